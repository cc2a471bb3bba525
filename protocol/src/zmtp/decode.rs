//! Bytes to messages.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    ZmtpError,
    command::{self, Command, MAX_COMMAND_BYTES, SocketRole},
    greeting::{self, GREETING_BYTES},
};
use crate::limits;

pub(super) const FLAG_MORE: u8 = 0b001;
pub(super) const FLAG_LONG: u8 = 0b010;
pub(super) const FLAG_COMMAND: u8 = 0b100;

/// Bounds on what the peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest frame of a message.
    pub max_frame_bytes: usize,
    /// The most frames in a message.
    pub max_parts: usize,
    /// The longest message, all its frames together.
    pub max_message_bytes: usize,
}

impl Limits {
    /// Before authentication.
    pub const HANDSHAKE: Self = Self {
        max_frame_bytes: limits::MAX_HANDSHAKE_MESSAGE_BYTES,
        max_parts: limits::MAX_HANDSHAKE_PARTS,
        max_message_bytes: limits::MAX_HANDSHAKE_MESSAGE_BYTES,
    };

    /// After authentication.
    pub const AUTHENTICATED: Self = Self {
        max_frame_bytes: limits::MAX_SEALED_PART_BYTES,
        max_parts: limits::MAX_MESSAGE_PARTS,
        max_message_bytes: limits::MAX_MESSAGE_BYTES,
    };
}

/// What received bytes amount to. `Part` is [`Bytes`], or [`BytesMut`] for who changes parts in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<Part = Bytes> {
    /// Send these bytes: our READY, or the PONG for a PING.
    Reply(Bytes),
    /// The peer's READY was accepted; messages may follow, in both directions.
    Ready,
    /// A message: one part or more.
    Message(Vec<Part>),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Greeting,
    Header {
        ready: bool,
    },
    Body {
        ready: bool,
        flags: u8,
        length: usize,
    },
    Failed,
}

/// A sans-IO ZMTP decoder for one connection.
#[derive(Debug)]
pub struct Decoder {
    role: SocketRole,
    limits: Limits,
    state: State,
    parts: Vec<BytesMut>,
    parts_bytes: usize,
}

impl Decoder {
    /// A decoder for a connection that has just been opened.
    #[must_use]
    pub const fn new(role: SocketRole, limits: Limits) -> Self {
        Self {
            role,
            limits,
            state: State::Greeting,
            parts: Vec::new(),
            parts_bytes: 0,
        }
    }

    /// Changes the bounds, for frames whose header has not been read yet. Call it when the peer has
    /// authenticated.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many bytes are missing, given that `buffered` are at hand, before [`Decoder::decode`] can
    /// go on. A hint for the size of the next read; never more than the bounds allow.
    #[must_use]
    pub const fn bytes_missing(&self, buffered: usize) -> usize {
        let wanted = match self.state {
            State::Greeting => GREETING_BYTES,
            State::Header { .. } => 2,
            State::Body { length, .. } => length,
            State::Failed => 0,
        };
        wanted.saturating_sub(buffered)
    }

    /// Bytes that this decoder holds: the parts of a message whose last part has not arrived.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.parts_bytes
    }

    /// Takes the next event out of `received`; `None` if more bytes are needed. Bodies are split off
    /// the buffer without copying.
    ///
    /// # Errors
    /// The peer's violation. The connection must be closed; the decoder stays failed.
    pub fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Event>, ZmtpError> {
        Ok(self.decode_mut(received)?.map(|event| match event {
            Event::Reply(bytes) => Event::Reply(bytes),
            Event::Ready => Event::Ready,
            Event::Message(parts) => {
                Event::Message(parts.into_iter().map(BytesMut::freeze).collect())
            }
        }))
    }

    /// As [`Decoder::decode`], but the parts may be changed where they are: so that a message is
    /// opened without being copied, although its parts and `received` share one allocation.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_mut(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<Option<Event<BytesMut>>, ZmtpError> {
        let outcome = self.step(received);
        if outcome.is_err() {
            self.state = State::Failed;
            self.parts = Vec::new();
            self.parts_bytes = 0;
        }
        outcome
    }

    fn step(&mut self, received: &mut BytesMut) -> Result<Option<Event<BytesMut>>, ZmtpError> {
        loop {
            match self.state {
                State::Failed => return Err(ZmtpError::AlreadyFailed),
                State::Greeting => {
                    if !greeting::check(received)? {
                        return Ok(None);
                    }
                    received.advance(GREETING_BYTES);
                    self.state = State::Header { ready: false };
                    return Ok(Some(Event::Reply(command::ready_frame(self.role))));
                }
                State::Header { ready } => {
                    let Some((flags, length, header_bytes)) = read_header(received)? else {
                        return Ok(None);
                    };
                    let length = self.admit(ready, flags, length)?;
                    received.advance(header_bytes);
                    self.state = State::Body {
                        ready,
                        flags,
                        length,
                    };
                }
                State::Body {
                    ready,
                    flags,
                    length,
                } => {
                    if received.len() < length {
                        return Ok(None);
                    }
                    let body = received.split_to(length);
                    self.state = State::Header { ready };
                    let event = if flags & FLAG_COMMAND != 0 {
                        self.accept_command(ready, &body)?
                    } else {
                        self.accept_part(flags & FLAG_MORE != 0, body)
                    };
                    if event.is_some() {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Decides on a frame by its header alone, before a byte of its body is waited for.
    fn admit(&self, ready: bool, flags: u8, claimed: u64) -> Result<usize, ZmtpError> {
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        if flags & FLAG_COMMAND != 0 {
            if !self.parts.is_empty() {
                return Err(ZmtpError::CommandInsideMessage);
            }
            if length > MAX_COMMAND_BYTES {
                return Err(ZmtpError::CommandTooLong(claimed));
            }
            return Ok(length);
        }
        let Limits {
            max_frame_bytes,
            max_parts,
            max_message_bytes,
        } = self.limits;
        if !ready {
            return Err(ZmtpError::NotReady);
        }
        if length > max_frame_bytes {
            return Err(ZmtpError::FrameTooLong {
                claimed,
                max: max_frame_bytes,
            });
        }
        let total = self.parts_bytes.saturating_add(length);
        if total > max_message_bytes {
            return Err(ZmtpError::MessageTooLong {
                claimed: total as u64,
                max: max_message_bytes,
            });
        }
        if self.parts.len() >= max_parts {
            return Err(ZmtpError::TooManyParts { max: max_parts });
        }
        Ok(length)
    }

    fn accept_command(
        &mut self,
        ready: bool,
        body: &[u8],
    ) -> Result<Option<Event<BytesMut>>, ZmtpError> {
        match (Command::parse(body)?, ready) {
            (Command::Ready { socket_type }, false) => {
                if !command::fits(self.role, socket_type) {
                    return Err(ZmtpError::SocketType);
                }
                self.state = State::Header { ready: true };
                Ok(Some(Event::Ready))
            }
            (Command::Ping { context }, true) => {
                Ok(Some(Event::Reply(command::pong_frame(context))))
            }
            (Command::Pong, true) => Ok(None),
            (Command::Error, _) => Err(ZmtpError::RefusedByPeer),
            (Command::Ready { .. }, true) | (Command::Ping { .. } | Command::Pong, false) => {
                Err(ZmtpError::UnexpectedCommand)
            }
        }
    }

    fn accept_part(&mut self, more: bool, body: BytesMut) -> Option<Event<BytesMut>> {
        self.parts_bytes += body.len();
        self.parts.push(body);
        if more {
            return None;
        }
        self.parts_bytes = 0;
        Some(Event::Message(std::mem::take(&mut self.parts)))
    }
}

/// Flags, claimed length and the header's own length, if they have all arrived.
fn read_header(received: &[u8]) -> Result<Option<(u8, u64, usize)>, ZmtpError> {
    let Some((&flags, rest)) = received.split_first() else {
        return Ok(None);
    };
    let command_with_more = flags & FLAG_COMMAND != 0 && flags & FLAG_MORE != 0;
    if flags & !(FLAG_MORE | FLAG_LONG | FLAG_COMMAND) != 0 || command_with_more {
        return Err(ZmtpError::Flags(flags));
    }
    if flags & FLAG_LONG == 0 {
        return Ok(rest.first().map(|length| (flags, u64::from(*length), 2)));
    }
    Ok(rest
        .first_chunk::<8>()
        .map(|length| (flags, u64::from_be_bytes(*length), 9)))
}
