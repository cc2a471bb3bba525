//! Messages to sealed parts: one direction's sending half.
//!
//! A sealed message is F0, then one sealed part or more. A part's plaintext is its content and one
//! trailer byte of flags (below). Control parts come first, bulk parts after them; the last part
//! says that it is the last, so no part can be dropped, added or moved unnoticed.

use std::{fmt, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};

use super::{SealError, cipher::DirectionCipher};
use crate::{
    header::{HEADER_BYTES, Header, MessageType},
    limits::{
        MAX_MESSAGE_BYTES, MAX_MESSAGE_PARTS, MAX_PART_CONTENT_BYTES, REKEY_AFTER,
        REKEY_AFTER_MESSAGES, TAG_BYTES,
    },
    zmtp::{MAX_FRAME_HEADER_BYTES, frame_header},
};

/// Trailer: the content is bulk, not control.
pub(super) const TRAILER_BULK: u8 = 1 << 0;
/// Trailer of a last part: the sender changes its key after this message.
pub(super) const TRAILER_REKEY: u8 = 1 << 1;
/// Trailer: this is the message's last part.
pub(super) const TRAILER_LAST: u8 = 1 << 7;

/// What sealing adds to a part's content: the trailer and the tag.
const SEAL_BYTES: usize = 1 + TAG_BYTES;

/// Seals one direction's messages. Every message made must be sent, once and in order.
pub struct Sealer {
    cipher: DirectionCipher,
    next_kind: MessageType,
    messages_with_key: u64,
    key_since: Duration,
}

impl Sealer {
    pub(super) const fn initiator(cipher: DirectionCipher, now: Duration) -> Self {
        Self {
            cipher,
            next_kind: MessageType::Data,
            messages_with_key: 0,
            key_since: now,
        }
    }

    /// The master's first message is READY.
    pub(super) const fn responder(cipher: DirectionCipher, now: Duration) -> Self {
        Self {
            cipher,
            next_kind: MessageType::Ready,
            messages_with_key: 0,
            key_since: now,
        }
    }

    /// Seals a message: all its ZMTP parts, F0 first, each in memory of its own. `bulk` is one sequence of
    /// bytes, however it is cut: pieces longer than a part are cut again, empty ones left out. `now`
    /// counts from the same moment as at the handshake; it decides when to change the key.
    ///
    /// # Errors
    /// [`SealError::TooLong`] or [`SealError::TooManyParts`]: nothing was sealed, the sealer is as
    /// before. After [`SealError::Cipher`] the connection is over.
    pub fn seal(
        &mut self,
        control: &[u8],
        bulk: &[Bytes],
        now: Duration,
    ) -> Result<Vec<Bytes>, SealError> {
        let layout = Layout::of(control, bulk)?;
        let mut parts = Vec::with_capacity(1 + layout.parts);
        let mut part = BytesMut::new();
        self.write(control, bulk, &layout, now, &mut part, |part, bytes, _| {
            if !part.is_empty() {
                parts.push(std::mem::take(part).freeze());
            }
            part.reserve(bytes);
        })?;
        parts.push(part.freeze());
        Ok(parts)
    }

    /// As [`Sealer::seal`], but appends the whole message to `out` as ZMTP frames, ready to be
    /// written to a TCP connection. Keep `out` across messages: memory that the system has to hand out
    /// anew for every large message costs more than sealing it.
    ///
    /// # Errors
    /// As [`Sealer::seal`]; `out` is untouched unless the connection is over.
    pub fn seal_framed(
        &mut self,
        control: &[u8],
        bulk: &[Bytes],
        now: Duration,
        out: &mut BytesMut,
    ) -> Result<(), SealError> {
        let layout = Layout::of(control, bulk)?;
        out.reserve(layout.bytes + (1 + layout.parts) * MAX_FRAME_HEADER_BYTES);
        self.write(control, bulk, &layout, now, out, |out, bytes, more| {
            frame_header(bytes, more, out);
        })
    }

    /// Appends all parts to `out`. `begin` is told of each before it: its length, and whether more
    /// follow.
    fn write(
        &mut self,
        control: &[u8],
        bulk: &[Bytes],
        layout: &Layout,
        now: Duration,
        out: &mut BytesMut,
        mut begin: impl FnMut(&mut BytesMut, usize, bool),
    ) -> Result<(), SealError> {
        let rekey = self.rekey_due(now);
        begin(out, HEADER_BYTES, true);
        out.put_slice(&Header::new(self.next_kind, self.cipher.suite()).encode());
        let control = control_pieces(control).map(|content| (content, 0));
        let bulk = bulk_pieces(bulk).map(|content| (content, TRAILER_BULK));
        for (index, (content, kind)) in control.chain(bulk).enumerate() {
            let last = match (index + 1 == layout.parts, rekey) {
                (true, true) => TRAILER_LAST | TRAILER_REKEY,
                (true, false) => TRAILER_LAST,
                (false, _) => 0,
            };
            begin(out, content.len() + SEAL_BYTES, last == 0);
            self.seal_part(content, kind | last, out)?;
        }
        self.next_kind = MessageType::Data;
        self.messages_with_key += 1;
        if rekey {
            self.cipher.rekey().map_err(|_| SealError::Cipher)?;
            self.messages_with_key = 0;
            self.key_since = now;
        }
        Ok(())
    }

    /// The next message is the last that this key may seal, or the key is old.
    fn rekey_due(&self, now: Duration) -> bool {
        self.messages_with_key + 1 >= REKEY_AFTER_MESSAGES
            || now.saturating_sub(self.key_since) >= REKEY_AFTER
    }

    fn seal_part(
        &mut self,
        content: &[u8],
        trailer: u8,
        out: &mut BytesMut,
    ) -> Result<(), SealError> {
        let start = out.len();
        out.put_slice(content);
        out.put_u8(trailer);
        let part = out.get_mut(start..).ok_or(SealError::Cipher)?;
        let tag = self.cipher.seal(part).map_err(|_| SealError::Cipher)?;
        out.put_slice(&tag);
        Ok(())
    }
}

#[cfg(test)]
impl Sealer {
    /// A message of one-byte parts with these trailers, sound or not.
    pub(super) fn seal_trailers_for_test(&mut self, trailers: &[u8]) -> Vec<Bytes> {
        let header = Header::new(self.next_kind, self.cipher.suite()).encode();
        let mut parts = vec![Bytes::copy_from_slice(&header)];
        parts.extend(trailers.iter().map(|trailer| {
            let mut part = BytesMut::new();
            let _ = self.seal_part(b"x", *trailer, &mut part);
            part.freeze()
        }));
        parts
    }

    /// How many messages the key in use has sealed.
    pub(super) const fn messages_with_key_for_test(&self) -> u64 {
        self.messages_with_key
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// Control always has a part, be it empty.
fn control_pieces(control: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = control.is_empty().then_some(control);
    empty
        .into_iter()
        .chain(control.chunks(MAX_PART_CONTENT_BYTES))
}

fn bulk_pieces(bulk: &[Bytes]) -> impl Iterator<Item = &[u8]> {
    bulk.iter()
        .flat_map(|piece| piece.chunks(MAX_PART_CONTENT_BYTES))
}

struct Layout {
    /// Sealed parts: all but F0.
    parts: usize,
    /// All parts together, F0 included.
    bytes: usize,
}

impl Layout {
    fn of(control: &[u8], bulk: &[Bytes]) -> Result<Self, SealError> {
        let parts = control.len().div_ceil(MAX_PART_CONTENT_BYTES).max(1)
            + bulk
                .iter()
                .map(|piece| piece.len().div_ceil(MAX_PART_CONTENT_BYTES))
                .sum::<usize>();
        if parts + 1 > MAX_MESSAGE_PARTS {
            return Err(SealError::TooManyParts(parts + 1));
        }
        let content = control.len() + bulk.iter().map(Bytes::len).sum::<usize>();
        let bytes = HEADER_BYTES + content + parts * SEAL_BYTES;
        if bytes > MAX_MESSAGE_BYTES {
            return Err(SealError::TooLong(bytes));
        }
        Ok(Self { parts, bytes })
    }
}
