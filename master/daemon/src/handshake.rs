//! From an accepted TCP connection to a peer that has proved who it is.
//!
//! ```text
//!   greeting, READY ─▶ HELLO ─(mac1?)─▶ [COOKIE ─▶ HELLO] ─▶ WELCOME ─▶ INITIATE ─▶ Arrival
//!                        └ no: closed without a word            └ bad: ERROR after a delay
//! ```
//! Owner: the connection's task, under one deadline for all of it. Invariant: nothing here touches
//! the core; a peer that fails leaves nothing behind. Next: [`crate::connection`].

use std::{net::IpAddr, time::Instant};

use teu_master_core::ConnectionId;
use teu_protocol::{
    message::{self, Initiate},
    noise::{HelloError, Opener, Sealer, Suite},
};

use crate::{
    admission::{Place, Stage},
    gate::{Gate, GateError},
    wire::{Wire, WireError},
};

/// A peer that has proved that it holds a key's secret.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) key: teu_protocol::ids::PublicKey,
    pub(crate) initiate: Initiate,
    pub(crate) suite: Suite,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// When INITIATE came: refusals are timed from here.
    pub(crate) initiated_at: Instant,
}

/// Why there is no arrival.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeFailed {
    /// Closed without a word.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Closed without a word.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// Closed without a word.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Told with ERROR.
    #[error("INITIATE was refused: {reason}")]
    Initiate {
        suite: Suite,
        initiated_at: Instant,
        reason: InitiateError,
    },
}

/// What was wrong with INITIATE. The peer is not told which.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitiateError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("its payload does not parse")]
    Payload(#[from] message::DecodeError),
}

/// Runs the handshake. The caller sets the deadline.
pub(crate) async fn run(
    wire: &mut Wire,
    gate: &Gate,
    (connection, address): (ConnectionId, IpAddr),
    place: &mut Place,
) -> Result<Arrival, HandshakeFailed> {
    let mut hello = gate.check.check(&wire.receive().await?)?;
    place.reached(Stage::KnowsLocation);
    if let Some(cookie) = gate.demand_cookie(&hello, connection, address)? {
        wire.send(&cookie).await?;
        hello = gate.check.check(&wire.receive().await?)?;
        if gate.demand_cookie(&hello, connection, address)?.is_some() {
            return Err(HelloError::Malformed.into());
        }
    }
    let (handshake, welcome) = gate.welcome(&hello).await?;
    let suite = handshake.suite();
    wire.send(&welcome).await?;
    let parts = wire.receive().await?;
    let initiated_at = Instant::now();
    let refused = |reason: InitiateError| HandshakeFailed::Initiate {
        suite,
        initiated_at,
        reason,
    };
    let accepted = gate
        .initiated(handshake, &parts)
        .await
        .map_err(|error| refused(error.into()))?;
    let initiate = message::decode(&accepted.payload).map_err(|error| refused(error.into()))?;
    Ok(Arrival {
        key: accepted.peer,
        initiate,
        suite,
        sealer: accepted.sealer,
        opener: accepted.opener,
        initiated_at,
    })
}
