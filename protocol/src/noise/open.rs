//! Sealed parts to messages: one direction's receiving half. Mirrors [`super::seal`].

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{
    OpenError,
    cipher::DirectionCipher,
    refusal::read_refusal,
    seal::{TRAILER_BULK, TRAILER_LAST, TRAILER_REKEY},
};
use crate::{
    header::{Header, MessageType},
    limits::{
        MAX_MESSAGE_BYTES, MAX_MESSAGE_PARTS, MAX_SEALED_PART_BYTES, REKEY_AFTER_MESSAGES,
        TAG_BYTES,
    },
};

/// An authentic message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The control message's bytes (MessagePack).
    pub control: Bytes,
    /// The bulk bytes, in order. Where they are cut means nothing.
    pub bulk: Vec<Bytes>,
}

/// Opens one direction's messages, every one of them, in order. The first failure is final.
pub struct Opener {
    cipher: DirectionCipher,
    next_kind: MessageType,
    may_be_refused: bool,
    messages_with_key: u64,
    failed: bool,
}

impl Opener {
    /// The client expects READY first, and may be told an ERROR.
    pub(super) const fn initiator(cipher: DirectionCipher) -> Self {
        Self::new(cipher, MessageType::Ready, true)
    }

    pub(super) const fn responder(cipher: DirectionCipher) -> Self {
        Self::new(cipher, MessageType::Data, false)
    }

    const fn new(cipher: DirectionCipher, next_kind: MessageType, may_be_refused: bool) -> Self {
        Self {
            cipher,
            next_kind,
            may_be_refused,
            messages_with_key: 0,
            failed: false,
        }
    }

    /// Opens a message: all its ZMTP parts, F0 first. Parts as [`BytesMut`] are decrypted where they
    /// are ([`crate::zmtp::Decoder::decode_mut`] yields such); so are [`Bytes`] whose allocation
    /// nobody shares; others are copied first.
    ///
    /// # Errors
    /// [`OpenError`]: close the connection; every later call fails too.
    pub fn open<Part>(&mut self, parts: Vec<Part>) -> Result<Opened, OpenError>
    where
        Part: AsRef<[u8]> + Into<BytesMut>,
    {
        if self.failed {
            return Err(OpenError::AlreadyFailed);
        }
        let outcome = self.open_message(parts);
        self.failed = outcome.is_err();
        outcome
    }

    fn open_message<Part>(&mut self, parts: Vec<Part>) -> Result<Opened, OpenError>
    where
        Part: AsRef<[u8]> + Into<BytesMut>,
    {
        if self.may_be_refused
            && let Some(code) = read_refusal(self.cipher.suite(), &parts)
        {
            return Err(OpenError::Refused(code));
        }
        if parts.len() < 2 || parts.len() > MAX_MESSAGE_PARTS {
            return Err(OpenError::Parts(parts.len()));
        }
        if parts.iter().map(|part| part.as_ref().len()).sum::<usize>() > MAX_MESSAGE_BYTES {
            return Err(OpenError::TooLong);
        }
        let last = parts.len() - 1;
        let mut parts = parts.into_iter().enumerate();
        let header = parts
            .next()
            .map(|(_, header)| Header::decode(header.as_ref()));
        let header = header.ok_or(OpenError::Parts(0))??;
        if header != Header::new(self.next_kind, self.cipher.suite()) {
            return Err(OpenError::Unexpected);
        }
        let mut message = Assembly::default();
        for (index, part) in parts {
            let (trailer, content) = self.open_part(part.into())?;
            message.add(trailer, content, index == last)?;
        }
        self.next_kind = MessageType::Data;
        self.messages_with_key += 1;
        if message.rekey {
            self.cipher.rekey().map_err(|_| OpenError::Unauthentic)?;
            self.messages_with_key = 0;
        } else if self.messages_with_key >= REKEY_AFTER_MESSAGES {
            return Err(OpenError::RekeyOverdue);
        }
        Ok(message.finish())
    }

    fn open_part(&mut self, mut part: BytesMut) -> Result<(u8, Bytes), OpenError> {
        if part.len() <= TAG_BYTES || part.len() > MAX_SEALED_PART_BYTES {
            return Err(OpenError::Unauthentic);
        }
        let plaintext = self
            .cipher
            .open(&mut part)
            .map_err(|_| OpenError::Unauthentic)?;
        part.truncate(plaintext);
        let trailer = part.last().copied().ok_or(OpenError::Trailer)?;
        part.truncate(plaintext - 1);
        Ok((trailer, part.freeze()))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// A message under way.
#[derive(Default)]
struct Assembly {
    control: Vec<Bytes>,
    bulk: Vec<Bytes>,
    rekey: bool,
}

impl Assembly {
    fn add(&mut self, trailer: u8, content: Bytes, is_last: bool) -> Result<(), OpenError> {
        let unknown = trailer & !(TRAILER_BULK | TRAILER_REKEY | TRAILER_LAST) != 0;
        let says_last = trailer & TRAILER_LAST != 0;
        let rekey = trailer & TRAILER_REKEY != 0;
        if unknown || says_last != is_last || (rekey && !is_last) {
            return Err(OpenError::Trailer);
        }
        self.rekey = rekey;
        if trailer & TRAILER_BULK != 0 {
            if self.control.is_empty() {
                return Err(OpenError::Trailer);
            }
            self.bulk.push(content);
        } else {
            if !self.bulk.is_empty() {
                return Err(OpenError::Trailer);
            }
            self.control.push(content);
        }
        Ok(())
    }

    fn finish(mut self) -> Opened {
        let control = match self.control.as_mut_slice() {
            [only] => std::mem::take(only),
            several => Bytes::from(several.concat()),
        };
        Opened {
            control,
            bulk: self.bulk,
        }
    }
}
