//! ZMTP commands: READY, PING, PONG, ERROR (RFC 23 and 37).

use bytes::{BufMut, Bytes, BytesMut};

use super::ZmtpError;

/// The longest command accepted: READY with an identity of 255 bytes and some properties.
pub const MAX_COMMAND_BYTES: usize = 512;

/// The longest context that PING may carry and PONG repeats (RFC 37).
pub const MAX_PING_CONTEXT_BYTES: usize = 16;

/// More properties than any known implementation sends.
const MAX_PROPERTIES: usize = 16;

/// Which side of a TEU connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketRole {
    /// The master's side; its peer must be a DEALER.
    Router,
    /// The side of clients and nodes; its peer must be a ROUTER.
    Dealer,
}

impl SocketRole {
    const fn name(self) -> &'static str {
        match self {
            Self::Router => "ROUTER",
            Self::Dealer => "DEALER",
        }
    }

    const fn peer(self) -> Self {
        match self {
            Self::Router => Self::Dealer,
            Self::Dealer => Self::Router,
        }
    }
}

/// A command that a peer may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ready { socket_type: &'a [u8] },
    Ping { context: &'a [u8] },
    Pong,
    Error,
}

impl<'a> Command<'a> {
    /// Parses the body of a command frame.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ZmtpError> {
        let (name, rest) = split_short(body)?;
        match name {
            b"READY" => Ok(Self::Ready {
                socket_type: socket_type(rest)?,
            }),
            b"PING" => {
                // Two bytes of time to live, then the context.
                let context = rest.get(2..).ok_or(ZmtpError::MalformedCommand)?;
                if context.len() > MAX_PING_CONTEXT_BYTES {
                    return Err(ZmtpError::MalformedCommand);
                }
                Ok(Self::Ping { context })
            }
            b"PONG" => Ok(Self::Pong),
            b"ERROR" => Ok(Self::Error),
            _ => Err(ZmtpError::UnexpectedCommand),
        }
    }
}

/// Finds Socket-Type among READY's properties, all of which must be well formed.
fn socket_type(mut rest: &[u8]) -> Result<&[u8], ZmtpError> {
    let mut found = None;
    let mut count = 0;
    while !rest.is_empty() {
        count += 1;
        if count > MAX_PROPERTIES {
            return Err(ZmtpError::MalformedCommand);
        }
        let (name, after_name) = split_short(rest)?;
        let (length, after_length) = after_name
            .split_first_chunk::<4>()
            .ok_or(ZmtpError::MalformedCommand)?;
        let length = usize::try_from(u32::from_be_bytes(*length))
            .map_err(|_| ZmtpError::MalformedCommand)?;
        let (value, after_value) = after_length
            .split_at_checked(length)
            .ok_or(ZmtpError::MalformedCommand)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") && found.replace(value).is_some() {
            return Err(ZmtpError::MalformedCommand);
        }
        rest = after_value;
    }
    found.ok_or(ZmtpError::SocketType)
}

/// Splits off a name that is preceded by its length in one byte; empty names are malformed.
fn split_short(bytes: &[u8]) -> Result<(&[u8], &[u8]), ZmtpError> {
    let (length, rest) = bytes.split_first().ok_or(ZmtpError::MalformedCommand)?;
    if *length == 0 {
        return Err(ZmtpError::MalformedCommand);
    }
    rest.split_at_checked(usize::from(*length))
        .ok_or(ZmtpError::MalformedCommand)
}

/// Whether READY's Socket-Type is what `role` must have as a peer.
pub(super) fn fits(role: SocketRole, socket_type: &[u8]) -> bool {
    socket_type == role.peer().name().as_bytes()
}

/// Our READY, as a whole frame.
pub(super) fn ready_frame(role: SocketRole) -> Bytes {
    let mut body = BytesMut::with_capacity(32);
    put_short(&mut body, b"READY");
    put_short(&mut body, b"Socket-Type");
    let value = role.name().as_bytes();
    body.put_u32(u32::try_from(value.len()).unwrap_or_default());
    body.put_slice(value);
    command_frame(&body)
}

/// The PONG for a PING of this context, as a whole frame.
pub(super) fn pong_frame(context: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(5 + MAX_PING_CONTEXT_BYTES);
    put_short(&mut body, b"PONG");
    body.put_slice(context);
    command_frame(&body)
}

fn put_short(out: &mut BytesMut, name: &[u8]) {
    out.put_u8(u8::try_from(name.len()).unwrap_or_default());
    out.put_slice(name);
}

/// Our own commands are all shorter than 256 bytes.
fn command_frame(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(2 + body.len());
    frame.put_u8(super::decode::FLAG_COMMAND);
    put_short(&mut frame, body);
    frame.freeze()
}
