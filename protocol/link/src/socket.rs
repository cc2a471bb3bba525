//! The only file that knows the `zeromq` crate: one DEALER, one peer, no reconnecting.
//!
//! Facts about `zeromq` 0.7.0 that shape it (docs/decisions/0002-teu-link-crate.md): `recv` on a DEALER
//! whose peer is gone waits for ever, only the monitor tells; an error from `recv` means that the
//! connection is broken; a DEALER does not dial again by itself; `connect` retries a refused TCP
//! connection silently until its timeout; PING from the peer breaks the connection.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use tokio::{net::TcpStream, time::timeout};
use zeromq::{
    DealerRecvHalf, DealerSendHalf, DealerSocket, Socket, SocketEvent, SocketOptions, SocketRecv,
    SocketSend, ZmqError, ZmqMessage,
};

use crate::{DialError, error::Awaited};

/// A dial that is not through by then looks for the reason itself, because `zeromq` does not tell.
const PROBE_AFTER: Duration = Duration::from_millis(200);

/// Reads start at this size and double up to the second: a full part and its header fit in the
/// larger, so bulk needs about one read a part.
const READ_BUFFER_BYTES: (usize, usize) = (4 * 1024, 128 * 1024);

/// Short reads before the buffer shrinks again.
const SHORT_READS: usize = 4;

/// The connection is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disconnected;

/// The sending half.
pub(crate) struct SocketSender {
    half: DealerSendHalf,
}

/// The receiving half.
pub(crate) struct SocketReceiver {
    half: DealerRecvHalf,
    monitor: mpsc::Receiver<SocketEvent>,
}

/// Connects to `host:port` and exchanges ZMTP greetings.
pub(crate) async fn connect(
    endpoint: &str,
    deadline: Duration,
) -> Result<(SocketSender, SocketReceiver), DialError> {
    let mut options = SocketOptions::default();
    options.connect_timeout(deadline);
    options.read_buffer(READ_BUFFER_BYTES.0, READ_BUFFER_BYTES.1, SHORT_READS);
    let mut socket = DealerSocket::with_options(options);
    let monitor = socket.monitor();
    let address = format!("tcp://{endpoint}");
    let outcome = tokio::select! {
        biased;
        outcome = socket.connect(&address) => outcome,
        source = probe(endpoint) => {
            return Err(DialError::Unreachable { endpoint: endpoint.to_owned(), source });
        }
    };
    outcome.map_err(|error| explain(endpoint, deadline, error))?;
    let (sender, receiver) = socket.split();
    Ok((
        SocketSender { half: sender },
        SocketReceiver {
            half: receiver,
            monitor,
        },
    ))
}

/// Ends only if a plain TCP connection fails too.
async fn probe(endpoint: &str) -> io::Error {
    tokio::time::sleep(PROBE_AFTER).await;
    match TcpStream::connect(endpoint).await {
        Err(error) => error,
        Ok(_) => std::future::pending().await,
    }
}

fn explain(endpoint: &str, deadline: Duration, error: ZmqError) -> DialError {
    let endpoint = endpoint.to_owned();
    match error {
        ZmqError::Network(source) => DialError::Unreachable { endpoint, source },
        ZmqError::ConnectTimeout(_) => DialError::TimedOut {
            endpoint,
            awaited: Awaited::Connection,
            deadline,
        },
        source @ ZmqError::Endpoint(_) => DialError::Endpoint { endpoint, source },
        source => DialError::NotZmtp { endpoint, source },
    }
}

impl SocketSender {
    /// Queues a message of one part or more.
    pub(crate) async fn send(&mut self, parts: Vec<Bytes>) -> Result<(), Disconnected> {
        let message = ZmqMessage::try_from(parts).map_err(|_| Disconnected)?;
        self.half.send(message).await.map_err(|_| Disconnected)
    }
}

impl SocketReceiver {
    /// The next message. Cancel-safe. Once it has failed, it always fails.
    pub(crate) async fn recv(&mut self) -> Result<Vec<Bytes>, Disconnected> {
        loop {
            tokio::select! {
                biased;
                message = self.half.recv() => {
                    return message.map(ZmqMessage::into_vec).map_err(|_| {
                        self.monitor.close();
                        Disconnected
                    });
                }
                event = self.monitor.next() => match event {
                    Some(SocketEvent::Disconnected(_)) | None => {
                        self.monitor.close();
                        return Err(Disconnected);
                    }
                    Some(_) => {}
                },
            }
        }
    }

    /// The next message of a handshake, if it comes in time.
    pub(crate) async fn recv_within(
        &mut self,
        time: Duration,
    ) -> Option<Result<Vec<Bytes>, Disconnected>> {
        timeout(time, self.recv()).await.ok()
    }
}
