//! From an address and a key to a connection, within a deadline.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use teu_protocol::{
    heartbeat::LinkMessage,
    limits::HANDSHAKE_DEADLINE,
    noise::{
        ClientHandshake, ClientStep, HandshakeError, LocationIdentity, StaticKey, Suite, Welcomed,
    },
};
use tokio::time::Instant;

use crate::{
    Connection, DialError, LinkError, LinkReceiver, LinkSender,
    error::Awaited,
    sender::Shared,
    socket::{self, Disconnected, SocketReceiver, SocketSender},
};

/// Where a dialer gets 32 random bytes for a handshake.
pub type RandomSource = fn() -> Result<[u8; 32], getrandom::Error>;

/// Dials one location, as one key, as often as asked.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: String,
    location: LocationIdentity,
    key: StaticKey,
    suite: Suite,
    deadline: Duration,
    random: RandomSource,
}

impl Dialer {
    /// A dialer for `endpoint` (`host:port`), which must turn out to be `location`, as `key`.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, location: LocationIdentity, key: StaticKey) -> Self {
        Self {
            endpoint: endpoint.into(),
            location,
            key,
            suite: Suite::fastest(),
            deadline: HANDSHAKE_DEADLINE,
            random: system_random,
        }
    }

    /// Uses this suite instead of the fastest on this machine.
    #[must_use]
    pub const fn with_suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Gives up after this time instead of [`HANDSHAKE_DEADLINE`].
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Uses other random bytes than the system's: for reproducible tests.
    #[must_use]
    pub const fn with_random(mut self, random: RandomSource) -> Self {
        self.random = random;
        self
    }

    /// Where it dials.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Connects, shakes hands, sends INITIATE with this payload and waits for READY.
    ///
    /// Cancel-safe: dropped before it ends, it leaves nothing behind.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial<Out, In>(
        &self,
        initiate_payload: &[u8],
    ) -> Result<Connection<Out, In>, DialError>
    where
        Out: Serialize + LinkMessage,
        In: DeserializeOwned + LinkMessage,
    {
        let until = Instant::now() + self.deadline;
        let (sender, receiver) = socket::connect(&self.endpoint, self.deadline).await?;
        let mut attempt = Attempt {
            dialer: self,
            until,
            sender,
            receiver,
        };
        let welcomed = attempt.shake_hands().await?;
        let welcome = welcomed.payload().clone();
        let epoch = Instant::now();
        let (initiate, sealer, opener) = welcomed
            .initiate(initiate_payload, Duration::ZERO)
            .map_err(DialError::Handshake)?;
        attempt.send(initiate).await?;
        let Attempt {
            sender, receiver, ..
        } = attempt;

        let shared = Arc::new(Shared::new());
        let sender = LinkSender::start(sender, sealer, epoch, Arc::clone(&shared));
        let mut receiver = LinkReceiver::new(receiver, opener, sender.clone(), epoch, shared);
        let ready = match receiver.socket().recv_within(until - Instant::now()).await {
            None => return Err(self.timed_out(Awaited::Ready)),
            Some(Err(Disconnected)) => return Err(self.hung_up()),
            Some(Ok(parts)) => receiver.open(parts),
        };
        let (ready, _) = ready.map_err(|error| match error {
            LinkError::Refused(code) => DialError::Refused(code),
            other => DialError::Ready(other),
        })?;
        Ok(Connection {
            welcome,
            ready,
            sender,
            receiver,
        })
    }

    fn timed_out(&self, awaited: Awaited) -> DialError {
        DialError::TimedOut {
            endpoint: self.endpoint.clone(),
            awaited,
            deadline: self.deadline,
        }
    }

    fn hung_up(&self) -> DialError {
        DialError::HungUp {
            endpoint: self.endpoint.clone(),
        }
    }
}

/// One dial between ZMTP and READY.
struct Attempt<'a> {
    dialer: &'a Dialer,
    until: Instant,
    sender: SocketSender,
    receiver: SocketReceiver,
}

impl Attempt<'_> {
    async fn shake_hands(&mut self) -> Result<Welcomed, DialError> {
        let Dialer {
            location,
            key,
            suite,
            random,
            ..
        } = self.dialer;
        let seed = random().map_err(DialError::Random)?;
        let (mut handshake, mut hello) =
            ClientHandshake::new(location, key, *suite, seed).map_err(DialError::Handshake)?;
        loop {
            self.send(hello).await?;
            let time = self.until - Instant::now();
            let answer = match self.receiver.recv_within(time).await {
                None => return Err(self.dialer.timed_out(Awaited::Welcome)),
                Some(Err(Disconnected)) => return Err(self.not_recognised()),
                Some(Ok(answer)) => answer,
            };
            match handshake.on_message(&answer) {
                Ok(ClientStep::Welcomed(welcomed)) => return Ok(welcomed),
                Ok(ClientStep::SendHello(next, with_cookie)) => {
                    (handshake, hello) = (next, with_cookie);
                }
                Err(HandshakeError::Refused(code)) => return Err(DialError::Refused(code)),
                Err(error) => return Err(DialError::Handshake(error)),
            }
        }
    }

    async fn send(&mut self, parts: Vec<Bytes>) -> Result<(), DialError> {
        self.sender
            .send(parts)
            .await
            .map_err(|Disconnected| self.dialer.hung_up())
    }

    fn not_recognised(&self) -> DialError {
        DialError::NotRecognised {
            endpoint: self.dialer.endpoint.clone(),
        }
    }
}

fn system_random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
