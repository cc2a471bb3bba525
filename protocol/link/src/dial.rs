//! From an address and a key to a connection, within a deadline.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use teu_protocol::{
    heartbeat::LinkMessage,
    limits::HANDSHAKE_DEADLINE,
    noise::{
        ClientHandshake, ClientStep, HandshakeError, LocationIdentity, StaticKey, Suite, Welcomed,
    },
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Connection, DialError, LinkError, LinkReceiver, LinkSender,
    error::Awaited,
    sender::Shared,
    socket::{self, Ended, Received, SocketReceiver, SocketSender},
};

/// Before a location that hung up on a HELLO is asked once more: a dying process has closed its listener
/// by then.
const HUNG_UP_PAUSE: Duration = Duration::from_millis(200);

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
        match self.attempt(initiate_payload, until).await {
            // A master that dies in the middle of a handshake hangs up as one that is not the location.
            // The same answer again tells the two apart: a dead one does not answer.
            Err(DialError::NotRecognised { .. }) if Instant::now() + HUNG_UP_PAUSE < until => {
                sleep(HUNG_UP_PAUSE).await;
                self.attempt(initiate_payload, until).await
            }
            outcome => outcome,
        }
    }

    async fn attempt<Out, In>(
        &self,
        initiate_payload: &[u8],
        until: Instant,
    ) -> Result<Connection<Out, In>, DialError>
    where
        Out: Serialize + LinkMessage,
        In: DeserializeOwned + LinkMessage,
    {
        let (sender, receiver) = socket::connect(&self.endpoint, until)
            .await?
            .ok_or_else(|| self.timed_out(Awaited::Connection))?;
        let mut attempt = Attempt {
            dialer: self,
            sender,
            receiver,
        };
        let welcomed = timeout_at(until, attempt.shake_hands())
            .await
            .map_err(|_| self.timed_out(Awaited::Welcome))??;
        let welcome = welcomed.payload().clone();
        let epoch = Instant::now();
        let (initiate, sealer, opener) = welcomed
            .initiate(initiate_payload, Duration::ZERO)
            .map_err(DialError::Handshake)?;
        timeout_at(until, attempt.send(&initiate))
            .await
            .map_err(|_| self.timed_out(Awaited::Ready))??;
        let Attempt {
            sender,
            mut receiver,
            ..
        } = attempt;
        receiver.trust();

        let shared = Arc::new(Shared::new());
        let sender = LinkSender::start(sender, sealer, epoch, Arc::clone(&shared));
        let mut receiver = LinkReceiver::new(receiver, opener, sender.clone(), epoch, shared);
        let ready = timeout_at(until, receiver.recv())
            .await
            .map_err(|_| self.timed_out(Awaited::Ready))?;
        let (ready, _) = ready.map_err(|error| match error {
            LinkError::Refused(code) => DialError::Refused(code),
            LinkError::Closed => Ended::HungUp.during_dial(&self.endpoint),
            LinkError::Framing(source) => Ended::Violation(source).during_dial(&self.endpoint),
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
}

/// One dial between ZMTP and READY.
struct Attempt<'a> {
    dialer: &'a Dialer,
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
            self.send(&hello).await?;
            let answer = self.answer().await?;
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

    async fn send(&mut self, parts: &[Bytes]) -> Result<(), DialError> {
        let sent = self.sender.send(parts).await;
        sent.map_err(|ended| ended.during_dial(&self.dialer.endpoint))
    }

    /// What the location says to HELLO.
    async fn answer(&mut self) -> Result<Vec<Bytes>, DialError> {
        let endpoint = &self.dialer.endpoint;
        loop {
            match self.receiver.recv().await {
                Ok(Received::Message(parts)) => {
                    return Ok(parts.into_iter().map(BytesMut::freeze).collect());
                }
                Ok(Received::Reply(frame)) => {
                    let sent = self.sender.write(&frame).await;
                    sent.map_err(|ended| ended.during_dial(endpoint))?;
                }
                Err(Ended::HungUp) => {
                    let endpoint = endpoint.clone();
                    return Err(DialError::NotRecognised { endpoint });
                }
                Err(ended) => return Err(ended.during_dial(endpoint)),
            }
        }
    }
}

fn system_random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
