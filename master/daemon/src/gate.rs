//! What all handshakes share: the location's key, the cookies, and the bound on public-key work.
//!
//! Owner: the server. Invariant: public-key work is done only for a peer that knows the location's
//! key, under load only for one that came back with a cookie, and never by more tasks at once than
//! half the processors. Next: [`crate::handshake`].

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use teu_master_core::ConnectionId;
use teu_protocol::{
    message::Welcome,
    noise::{
        Accepted, CheckedHello, ConnectionOrigin, CookieJar, HandshakeError, HelloCheck,
        LocationIdentity, ServerHandshake, StaticKey,
    },
};
use tokio::sync::Semaphore;

use crate::{
    admission::Admission,
    bounds::COOKIE_ABOVE_HANDSHAKES,
    clock::Clock,
    random::{self, RandomError},
};

/// Why the gate could not do its part. The peer is told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the master stops")]
    Stopping,
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) check: HelloCheck,
    jar: Mutex<CookieJar>,
    public_key_work: Semaphore,
    admission: Arc<Admission>,
    welcome: Vec<u8>,
    clock: Clock,
}

impl Gate {
    pub(crate) fn new(
        identity: LocationIdentity,
        key: StaticKey,
        admission: Arc<Admission>,
        clock: Clock,
    ) -> Result<Self, GateError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let welcome = Welcome {
            version: 1,
            features: Vec::new(),
        };
        let welcome =
            teu_protocol::message::encode(&welcome).map_err(|_| HandshakeError::Malformed)?;
        Ok(Self {
            check: HelloCheck::new(vec![(identity, key)]),
            jar: Mutex::new(CookieJar::new(random::bytes()?, clock.elapsed())),
            public_key_work: Semaphore::new((processors / 2).max(1)),
            admission,
            welcome,
            clock,
        })
    }

    /// The COOKIE to send instead of WELCOME, if the location is under load and the peer has not
    /// shown one.
    pub(crate) fn demand_cookie(
        &self,
        hello: &CheckedHello,
        connection: ConnectionId,
        address: IpAddr,
    ) -> Result<Option<Vec<Bytes>>, GateError> {
        if self.admission.unauthenticated() <= COOKIE_ABOVE_HANDSHAKES {
            return Ok(None);
        }
        let origin = ConnectionOrigin {
            connection: connection.0,
            address,
        };
        let now = self.clock.elapsed();
        let (fresh_secret, nonce) = (random::bytes()?, random::bytes()?);
        let mut jar = self.jar.lock().unwrap_or_else(PoisonError::into_inner);
        if jar.is_stale(now) {
            jar.rotate(fresh_secret, now);
        }
        if jar.admits(hello, origin) {
            return Ok(None);
        }
        Ok(Some(jar.issue(hello, origin, nonce)?))
    }

    /// WELCOME.
    pub(crate) async fn welcome(
        &self,
        hello: &CheckedHello,
    ) -> Result<(ServerHandshake, Vec<Bytes>), GateError> {
        let seed = random::bytes()?;
        let _turn = self
            .public_key_work
            .acquire()
            .await
            .map_err(|_| GateError::Stopping)?;
        Ok(ServerHandshake::accept(hello, seed, &self.welcome)?)
    }

    /// Judges INITIATE.
    pub(crate) async fn initiated(
        &self,
        handshake: ServerHandshake,
        parts: &[Bytes],
    ) -> Result<Accepted, GateError> {
        let _turn = self
            .public_key_work
            .acquire()
            .await
            .map_err(|_| GateError::Stopping)?;
        Ok(handshake.on_initiate(parts, self.clock.elapsed())?)
    }
}
