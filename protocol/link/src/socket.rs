//! One DEALER, one peer, no reconnecting: TCP under the codec of [`teu_protocol::zmtp`].
//!
//! Owner: the dial; then each half belongs to its half of the link. Invariant: nothing that the peer
//! sends makes this side hold more than [`Limits`] allow and one read: a length that a header claims
//! allocates nothing. Why not the `zeromq` crate: docs/decisions/0010-own-dealer.md.

use bytes::{Bytes, BytesMut};
use teu_protocol::zmtp::{self, Decoder, Event, Limits, SocketRole, ZmtpError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout_at},
};

use crate::DialError;

/// Room for a read before the peer has authenticated: some messages of a handshake.
const HANDSHAKE_READ_BYTES: usize = 16 * 1024;

/// Room for a read afterwards: several full parts, so that a system call and the copying of a part
/// that was read by half cost little beside them; few enough to stay in a core's cache until opened.
const READ_BYTES: usize = 512 * 1024;

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The connection is over.
    HungUp,
    /// The peer broke ZMTP or its bounds.
    Violation(ZmtpError),
}

impl Ended {
    /// As the outcome of a dial to `endpoint`.
    pub(crate) fn during_dial(self, endpoint: &str) -> DialError {
        let endpoint = endpoint.to_owned();
        match self {
            Self::HungUp => DialError::HungUp { endpoint },
            Self::Violation(source) => DialError::NotZmtp { endpoint, source },
        }
    }
}

/// What arrives.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Vec<BytesMut>),
    /// Send this frame: the peer's PING wants it.
    Reply(Bytes),
}

/// The sending half. Dropping it tells the peer that nothing more comes.
pub(crate) struct SocketSender {
    half: OwnedWriteHalf,
}

/// The receiving half.
pub(crate) struct SocketReceiver {
    half: OwnedReadHalf,
    decoder: Decoder,
    received: BytesMut,
    read_bytes: usize,
    held_before: usize,
}

/// Connects to `host:port` and exchanges ZMTP greetings and READY.
pub(crate) async fn connect(
    endpoint: &str,
    until: Instant,
) -> Result<Option<(SocketSender, SocketReceiver)>, DialError> {
    if !is_host_and_port(endpoint) {
        let endpoint = endpoint.to_owned();
        return Err(DialError::Endpoint { endpoint });
    }
    timeout_at(until, greet(endpoint)).await.ok().transpose()
}

fn is_host_and_port(endpoint: &str) -> bool {
    let parts = endpoint.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

async fn greet(endpoint: &str) -> Result<(SocketSender, SocketReceiver), DialError> {
    let unreachable = |source| DialError::Unreachable {
        endpoint: endpoint.to_owned(),
        source,
    };
    let stream = TcpStream::connect(endpoint).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let (read, write) = stream.into_split();
    let mut sender = SocketSender { half: write };
    let mut receiver = SocketReceiver {
        half: read,
        decoder: Decoder::new(SocketRole::Dealer, Limits::HANDSHAKE),
        received: BytesMut::new(),
        read_bytes: HANDSHAKE_READ_BYTES,
        held_before: 0,
    };
    let ended = |ended: Ended| ended.during_dial(endpoint);
    sender.write(&zmtp::greeting()).await.map_err(ended)?;
    while let Event::Reply(ready) = receiver.event().await.map_err(ended)? {
        sender.write(&ready).await.map_err(ended)?;
    }
    Ok((sender, receiver))
}

impl SocketSender {
    /// Writes bytes that are framed already.
    pub(crate) async fn write(&mut self, frames: &[u8]) -> Result<(), Ended> {
        self.half.write_all(frames).await.map_err(|_| Ended::HungUp)
    }

    /// Sends a message of the handshake.
    pub(crate) async fn send(&mut self, parts: &[Bytes]) -> Result<(), Ended> {
        let mut frames = BytesMut::new();
        zmtp::encode_message(parts, &mut frames);
        self.write(&frames).await
    }
}

impl SocketReceiver {
    /// The peer has proven that it is the location: larger messages may come.
    pub(crate) const fn trust(&mut self) {
        self.decoder.set_limits(Limits::AUTHENTICATED);
        self.read_bytes = READ_BYTES;
    }

    /// What comes next. Cancel-safe. Once it has failed, it always fails.
    pub(crate) async fn recv(&mut self) -> Result<Received, Ended> {
        loop {
            match self.event().await? {
                Event::Message(parts) => return Ok(Received::Message(parts)),
                Event::Reply(frame) => return Ok(Received::Reply(frame)),
                Event::Ready => {}
            }
        }
    }

    /// Whether parts of a message have arrived since it was last asked: a large message on a slow
    /// line is no silence.
    pub(crate) const fn has_progressed(&mut self) -> bool {
        let held = self.decoder.bytes_held();
        let progressed = held != 0 && held != self.held_before;
        self.held_before = held;
        progressed
    }

    async fn event(&mut self) -> Result<Event<BytesMut>, Ended> {
        loop {
            let event = self.decoder.decode_mut(&mut self.received);
            if let Some(event) = event.map_err(Ended::Violation)? {
                return Ok(event);
            }
            self.make_room();
            match self.half.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Err(Ended::HungUp),
                Ok(_) => {}
            }
        }
    }

    /// Room for what the decoder waits for and a good read. If nobody holds what was received earlier,
    /// its memory is used again: only if no more is asked for than it had, so what is left over counts.
    fn make_room(&mut self) {
        let left_over = self.received.len();
        let room = self.received.capacity() - left_over;
        let missing = self.decoder.bytes_missing(left_over);
        if room < missing.max(self.read_bytes / 4) {
            let wanted = self.read_bytes.saturating_sub(left_over);
            self.received.reserve(missing.max(wanted));
        }
    }
}
