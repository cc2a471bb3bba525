//! The envelope of an exported volume: what the stream is, and a proof of every byte.
//!
//! ```text
//! magic   "TEUV1\n"
//! header  length u32 | MessagePack Header | tag 32
//! chunk   last bit and length u32 | at most 64 KiB | tag 32        again and again; the last says so
//! ```
//! Numbers are big-endian. A tag is HMAC-SHA256 with the [`TransferKey`] over the tag before it (the
//! header's: nothing), the chunk's number, its first four bytes, and its content. So nothing can be
//! cut, swapped, repeated, or taken from another stream, and only who has the key can make one.
//!
//! Pure. Owner: a transfer's task. Invariant: [`Unsealer`] gives out verified bytes only. The last
//! chunk is never empty unless the stream is: whoever has all bytes has the proof that they are all.

use bytes::{Buf, Bytes, BytesMut};
use ring::hmac;
use serde::{Deserialize, Serialize};
use teu_protocol::{
    ids::{Tag, VolumeId},
    message::TransferKey,
};

const MAGIC: &[u8; 6] = b"TEUV1\n";

/// The most content of one chunk.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Far more than any header has.
const HEADER_BYTES: usize = 4 * 1024;

const TAG_BYTES: usize = 32;
const LAST: u32 = 1 << 31;

/// What is in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `btrfs` or `zfs`.
    pub format: String,
    /// Of which volume it was made.
    pub volume: VolumeId,
    /// Of which snapshot.
    pub snapshot: Tag,
    /// What it builds on.
    pub base: Option<Tag>,
    /// The host's user id that is the account's root in its files: 0 where mounts map owners.
    pub owner: u32,
    /// Random, so that no two streams have the same tags.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 16],
}

/// Why a stream is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not such a stream at all.
    #[error("this is no exported volume")]
    Magic,
    /// The proof is wrong: damaged, cut together, or of another account or location.
    #[error(
        "the stream is damaged, or was exported by another account or at another location; export \
         it again"
    )]
    Forged,
    /// Sizes beyond the format's bounds, or a header that says nothing.
    #[error("the stream is damaged; export it again")]
    Malformed,
    /// Bytes after the last chunk.
    #[error("the stream goes on after its end")]
    Trailing,
    /// It ends before its last chunk.
    #[error("the stream is cut off; send it again")]
    Cut,
}

/// Tags, one chained to the other.
#[derive(Debug)]
struct Chain {
    key: hmac::Key,
    before: [u8; TAG_BYTES],
    number: u64,
}

impl Chain {
    fn new(key: &TransferKey) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key.0),
            before: [0; TAG_BYTES],
            number: 0,
        }
    }

    fn context(&self, prefix: u32, content: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&self.before);
        context.update(&self.number.to_be_bytes());
        context.update(&prefix.to_be_bytes());
        context.update(content);
        context
    }

    fn seal(&mut self, prefix: u32, content: &[u8]) -> [u8; TAG_BYTES] {
        let signed = self.context(prefix, content).sign();
        self.before.copy_from_slice(signed.as_ref());
        self.number += 1;
        self.before
    }

    fn verify(&mut self, prefix: u32, content: &[u8], tag: &[u8]) -> Result<(), EnvelopeError> {
        let mut message = Vec::with_capacity(TAG_BYTES + 12 + content.len());
        message.extend_from_slice(&self.before);
        message.extend_from_slice(&self.number.to_be_bytes());
        message.extend_from_slice(&prefix.to_be_bytes());
        message.extend_from_slice(content);
        // In constant time.
        hmac::verify(&self.key, &message, tag).map_err(|_| EnvelopeError::Forged)?;
        self.before.copy_from_slice(tag);
        self.number += 1;
        Ok(())
    }
}

/// Makes an envelope.
#[derive(Debug)]
pub struct Sealer(Chain);

impl Sealer {
    /// Begins one.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] for a header that is too long (never, with tags of their size).
    pub fn new(key: &TransferKey, header: &Header) -> Result<(Self, Bytes), EnvelopeError> {
        let content = rmp_serde::to_vec_named(header).map_err(|_| EnvelopeError::Malformed)?;
        let length = u32::try_from(content.len()).map_err(|_| EnvelopeError::Malformed)?;
        if content.len() > HEADER_BYTES {
            return Err(EnvelopeError::Malformed);
        }
        let mut chain = Chain::new(key);
        let tag = chain.seal(length, &content);
        let mut out = BytesMut::with_capacity(MAGIC.len() + 4 + content.len() + TAG_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&content);
        out.extend_from_slice(&tag);
        Ok((Self(chain), out.freeze()))
    }

    /// One chunk: at most [`CHUNK_BYTES`] are taken, the caller sees to that.
    #[must_use]
    pub fn chunk(&mut self, content: &[u8], is_last: bool) -> Bytes {
        debug_assert!(content.len() <= CHUNK_BYTES);
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX) & !LAST;
        let prefix = if is_last { length | LAST } else { length };
        let tag = self.0.seal(prefix, content);
        let mut out = BytesMut::with_capacity(4 + content.len() + TAG_BYTES);
        out.extend_from_slice(&prefix.to_be_bytes());
        out.extend_from_slice(content);
        out.extend_from_slice(&tag);
        out.freeze()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Chunks,
    Ended,
}

/// Opens an envelope, whatever the pieces in which it comes.
#[derive(Debug)]
pub struct Unsealer {
    chain: Chain,
    stage: Stage,
    held: BytesMut,
    header: Option<Header>,
}

impl Unsealer {
    /// For a stream that was sealed with this key.
    #[must_use]
    pub fn new(key: &TransferKey) -> Self {
        Self {
            chain: Chain::new(key),
            stage: Stage::Header,
            held: BytesMut::new(),
            header: None,
        }
    }

    /// What the stream is, once that is known.
    #[must_use]
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The last chunk has come.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Takes what came; gives what is proved by it.
    ///
    /// # Errors
    /// [`EnvelopeError`]: nothing more may be taken from this stream.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Bytes>, EnvelopeError> {
        self.held.extend_from_slice(bytes);
        let mut proved = Vec::new();
        if self.stage == Stage::Header {
            match self.take_header()? {
                Some(header) => {
                    self.header = Some(header);
                    self.stage = Stage::Chunks;
                }
                None => return Ok(proved),
            }
        }
        while self.stage == Stage::Chunks {
            let Some(content) = self.take_chunk()? else {
                break;
            };
            if !content.is_empty() {
                proved.push(content);
            }
        }
        if self.stage == Stage::Ended && !self.held.is_empty() {
            return Err(EnvelopeError::Trailing);
        }
        Ok(proved)
    }

    /// The stream is over.
    ///
    /// # Errors
    /// [`EnvelopeError::Cut`] if it should not be.
    pub const fn finish(&self) -> Result<(), EnvelopeError> {
        if self.is_whole() {
            Ok(())
        } else {
            Err(EnvelopeError::Cut)
        }
    }

    fn take_header(&mut self) -> Result<Option<Header>, EnvelopeError> {
        let known = self.held.len().min(MAGIC.len());
        if self.held[..known] != MAGIC[..known] {
            return Err(EnvelopeError::Magic);
        }
        let Some((prefix, length)) = prefix_at(&self.held, MAGIC.len(), HEADER_BYTES)? else {
            return Ok(None);
        };
        if prefix & LAST != 0 {
            return Err(EnvelopeError::Malformed);
        }
        let whole = MAGIC.len() + 4 + length + TAG_BYTES;
        if self.held.len() < whole {
            return Ok(None);
        }
        let mut part = self.held.split_to(whole);
        part.advance(MAGIC.len() + 4);
        let content = part.split_to(length);
        self.chain.verify(prefix, &content, &part)?;
        let header =
            teu_protocol::message::decode(&content).map_err(|_| EnvelopeError::Malformed)?;
        Ok(Some(header))
    }

    fn take_chunk(&mut self) -> Result<Option<Bytes>, EnvelopeError> {
        let Some((prefix, length)) = prefix_at(&self.held, 0, CHUNK_BYTES)? else {
            return Ok(None);
        };
        if self.held.len() < 4 + length + TAG_BYTES {
            return Ok(None);
        }
        let mut part = self.held.split_to(4 + length + TAG_BYTES);
        part.advance(4);
        let content = part.split_to(length);
        self.chain.verify(prefix, &content, &part)?;
        if prefix & LAST != 0 {
            self.stage = Stage::Ended;
        }
        Ok(Some(content.freeze()))
    }
}

/// The four bytes at `at`, and the length in them.
fn prefix_at(held: &[u8], at: usize, most: usize) -> Result<Option<(u32, usize)>, EnvelopeError> {
    let Some(bytes) = held.get(at..).and_then(<[u8]>::first_chunk::<4>) else {
        return Ok(None);
    };
    let prefix = u32::from_be_bytes(*bytes);
    let length = usize::try_from(prefix & !LAST).map_err(|_| EnvelopeError::Malformed)?;
    if length > most {
        return Err(EnvelopeError::Malformed);
    }
    Ok(Some((prefix, length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: TransferKey = TransferKey([7; 32]);

    fn header() -> Header {
        Header {
            format: "btrfs".into(),
            volume: VolumeId::from_bytes([1; 16]),
            snapshot: "before".parse().unwrap(),
            base: None,
            owner: 0,
            nonce: [3; 16],
        }
    }

    /// The envelope's parts: header, then chunks.
    fn sealed(chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (mut sealer, first) = Sealer::new(&KEY, &header()).unwrap();
        let mut parts = vec![first.to_vec()];
        for (n, chunk) in chunks.iter().enumerate() {
            parts.push(sealer.chunk(chunk, n + 1 == chunks.len()).to_vec());
        }
        parts
    }

    /// What is given out, and whether it was all.
    fn opened(
        key: &TransferKey,
        bytes: &[u8],
        step: usize,
    ) -> (Vec<u8>, Result<(), EnvelopeError>) {
        let mut unsealer = Unsealer::new(key);
        let mut out = Vec::new();
        for piece in bytes.chunks(step) {
            match unsealer.push(piece) {
                Ok(proved) => proved.iter().for_each(|part| out.extend_from_slice(part)),
                Err(error) => return (out, Err(error)),
            }
        }
        (out, unsealer.finish())
    }

    fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..8)
    }

    proptest! {
        #[test]
        fn it_is_read_back_whatever_the_pieces(chunks in chunks(), step in 1..700_usize) {
            let bytes = sealed(&chunks).concat();
            let (out, end) = opened(&KEY, &bytes, step);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(out, chunks.concat());
        }

        #[test]
        fn a_cut_stream_is_never_whole(chunks in chunks(), at in any::<prop::sample::Index>()) {
            let bytes = sealed(&chunks).concat();
            let (out, end) = opened(&KEY, &bytes[..at.index(bytes.len())], 100);
            prop_assert_eq!(end, Err(EnvelopeError::Cut));
            let whole = chunks.concat();
            prop_assert!(out.len() < whole.len(), "all bytes without the proof that they are all");
            prop_assert_eq!(&whole[..out.len()], &out[..]);
        }

        #[test]
        fn a_flipped_bit_gives_nothing_from_there_on(
            chunks in chunks(),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = sealed(&chunks).concat();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (out, end) = opened(&KEY, &bytes, 64);
            prop_assert!(end.is_err());
            let whole = chunks.concat();
            prop_assert!(out.len() < whole.len());
            prop_assert_eq!(&whole[..out.len()], &out[..], "what is given out is as it was sealed");
        }

        #[test]
        fn chunks_cannot_be_swapped_dropped_or_repeated(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 40), 3..6),
            a in any::<prop::sample::Index>(),
            kind in 0..3_u8,
        ) {
            let mut parts = sealed(&chunks);
            let a = 1 + a.index(parts.len() - 2);
            match kind {
                0 => parts.swap(a, a + 1),
                1 => drop(parts.remove(a)),
                _ => parts.insert(a, parts[a].clone()),
            }
            let (out, end) = opened(&KEY, &parts.concat(), 1_000);
            prop_assert!(end.is_err());
            prop_assert!(chunks.concat().starts_with(&out));
        }
    }

    #[test]
    fn another_key_gives_not_a_byte() {
        let bytes = sealed(&[b"secret".to_vec()]).concat();
        let (out, end) = opened(&TransferKey([8; 32]), &bytes, 10);
        assert_eq!((out, end), (Vec::new(), Err(EnvelopeError::Forged)));
    }

    #[test]
    fn parts_of_another_stream_do_not_fit() {
        let ours = sealed(&[b"one".to_vec(), b"two".to_vec()]);
        let other = Header {
            nonce: [4; 16],
            ..header()
        };
        let (mut sealer, _) = Sealer::new(&KEY, &other).unwrap();
        let _ = sealer.chunk(b"one", false);
        let foreign = sealer.chunk(b"two", true);
        let spliced = [&ours[0][..], &ours[1], &foreign].concat();
        let (out, end) = opened(&KEY, &spliced, 7);
        assert_eq!((&out[..], end), (&b"one"[..], Err(EnvelopeError::Forged)));
    }

    #[test]
    fn what_is_no_envelope_is_told_at_once() {
        for bytes in [&b"btrfs-stream\0"[..], b"T", b"TEUV2\n"] {
            let (_, end) = opened(&KEY, bytes, 1);
            let cut = bytes == b"T";
            let expected = if cut {
                EnvelopeError::Cut
            } else {
                EnvelopeError::Magic
            };
            assert_eq!(end, Err(expected));
        }
        let endless = [&MAGIC[..], &[0x7f, 0xff, 0xff, 0xff]].concat();
        assert_eq!(opened(&KEY, &endless, 3).1, Err(EnvelopeError::Malformed));
        let mut more = sealed(&[b"x".to_vec()]).concat();
        more.push(0);
        assert_eq!(opened(&KEY, &more, 9).1, Err(EnvelopeError::Trailing));
        let empty = sealed(&[Vec::new()]).concat();
        assert_eq!(opened(&KEY, &empty, 5), (Vec::new(), Ok(())));
    }
}
