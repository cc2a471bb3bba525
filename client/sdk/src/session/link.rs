//! The session's link over `teu-link`: the only file of this crate that knows it.

use std::time::Duration;

use bytes::Bytes;
use teu_link::{Backoff, DialError, Dialer, LinkError, LinkReceiver, LinkSender};
use teu_protocol::message::{ClientToMaster, Initiate, MasterToClient, encode};

use super::transport::{Dialled, LinkGone, LinkReceive, LinkSend, Transport};
use crate::error::ConnectError;

/// Connections to one location as one account.
#[derive(Debug)]
pub(crate) struct TeuLink {
    dialer: Dialer,
}

impl TeuLink {
    pub(crate) const fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

type Sender = LinkSender<ClientToMaster>;
type Receiver = LinkReceiver<ClientToMaster, MasterToClient>;

impl Transport for TeuLink {
    type Sender = Sender;
    type Receiver = Receiver;

    async fn dial(&self, initiate: Initiate) -> Result<Dialled<Sender, Receiver>, ConnectError> {
        let payload = encode(&initiate).map_err(|error| protocol(&error))?;
        let connection = self.dialer.dial(&payload).await.map_err(connect_error)?;
        let (ready, sender, receiver) = connection.into_parts();
        match ready {
            MasterToClient::Ready(ready) => Ok(Dialled {
                sender,
                receiver,
                ready: *ready,
            }),
            MasterToClient::Closing(refusal) => Err(ConnectError::Refused(refusal)),
            _ => Err(ConnectError::Protocol {
                reason: "the first message is not READY".into(),
            }),
        }
    }

    fn pause(&self, attempt: u32) -> Duration {
        let mut random = [0; 4];
        // Without random bytes all clients come back at the same time: a pity, no more.
        let _ = getrandom::fill(&mut random);
        let jitter = u32::from_le_bytes(random);
        let mut backoff = Backoff::default();
        (0..=attempt.min(16)).fold(Duration::ZERO, |_, _| backoff.next_wait(jitter))
    }
}

impl LinkSend for Sender {
    async fn send(&mut self, message: ClientToMaster, bulk: Vec<Bytes>) -> Result<(), LinkGone> {
        LinkSender::send(self, message, bulk)
            .await
            .map_err(|error| gone(&error))
    }
}

impl LinkReceive for Receiver {
    async fn receive(&mut self) -> Result<(MasterToClient, Vec<Bytes>), LinkGone> {
        self.recv().await.map_err(|error| gone(&error))
    }

    fn probe(&mut self, quiet: Duration) -> Option<Duration> {
        LinkReceiver::probe(self, quiet)
    }
}

fn gone(error: &LinkError) -> LinkGone {
    LinkGone(told(error))
}

fn connect_error(error: DialError) -> ConnectError {
    match error {
        DialError::Refused(code) => ConnectError::NotAccepted { code },
        DialError::NotRecognised { .. } => ConnectError::NotRecognised {
            reason: told(&error),
        },
        DialError::Handshake(_) | DialError::Ready(_) => protocol(&error),
        DialError::Unreachable { .. }
        | DialError::NotZmtp { .. }
        | DialError::Endpoint { .. }
        | DialError::TimedOut { .. }
        | DialError::HungUp { .. }
        | DialError::Random(_) => ConnectError::Link {
            reason: told(&error),
        },
    }
}

fn protocol(error: &(dyn std::error::Error + 'static)) -> ConnectError {
    ConnectError::Protocol {
        reason: told(error),
    }
}

/// The error and what lies behind it, in one line.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
