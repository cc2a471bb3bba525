//! One connection, from accept to end.
//!
//! ```text
//!   handshake ─▶ core's verdict ─▶ reader (this task) + writer (its own) ─▶ Disconnected
//! ```
//! Owner: its task, which owns the writer's task. Invariant: the core hears `Disconnected` exactly
//! once for each peer that it accepted, after both directions have stopped.
//! Next: [`reader`] and [`writer`].

mod reader;
pub(crate) mod spares;
mod writer;

use std::{net::IpAddr, sync::Arc, time::Instant};

use teu_daemon::tasks::contained;
use teu_master_core::{ConnectionId, Input};
use teu_protocol::{
    limits::HANDSHAKE_DEADLINE,
    message::Role,
    noise::{Suite, encode_refusal},
    zmtp::Limits,
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    admission::{Place, Stage},
    bounds::{FLUSH_WITHIN, REFUSAL_DELAY},
    handshake::{self, Arrival, HandshakeFailed},
    house::House,
    peer::{Peer, Verdict},
    random,
    wire::Wire,
};

/// ERROR's code for every refused INITIATE: an unknown, revoked or wrong-role key look the same.
const REFUSED: u16 = 1;

/// Longer than the core ever holds READY back (5 s, for nodes to report after a restart).
const VERDICT_WITHIN: std::time::Duration = std::time::Duration::from_secs(15);

/// Serves a connection until its end.
pub(crate) async fn serve(
    stream: TcpStream,
    id: ConnectionId,
    address: IpAddr,
    mut place: Place,
    house: Arc<House>,
) {
    let evicted = place.evicted.clone();
    let admitted = tokio::select! {
        biased;
        () = evicted.cancelled() => None,
        () = house.stop.cancelled() => None,
        admitted = Box::pin(admit(stream, (id, address), &mut place, &house)) => admitted,
    };
    let Some((wire, arrival, peer)) = admitted else {
        return;
    };
    place.authenticated();
    tracing::debug!(connection = id.0, %address, role = ?peer.role, "connected");
    Box::pin(talk(wire, arrival, &peer, &house)).await;
    tracing::debug!(connection = id.0, "disconnected");
    house
        .broker
        .tell(Input::Disconnected { connection: id })
        .await;
}

/// Handshake and verdict. `None`: the peer was turned away.
async fn admit(
    stream: TcpStream,
    (id, address): (ConnectionId, IpAddr),
    place: &mut Place,
    house: &Arc<House>,
) -> Option<(Wire, Arrival, Arc<Peer>)> {
    stream.set_nodelay(true).ok()?;
    let mut wire = None;
    let shaken = timeout(HANDSHAKE_DEADLINE, async {
        let wire = wire.insert(Wire::greet(stream).await?);
        handshake::run(wire, &house.gate, (id, address), place).await
    })
    .await;
    let arrival = match shaken {
        Ok(Ok(arrival)) => arrival,
        Ok(Err(failed)) => {
            tracing::debug!(connection = id.0, %address, reason = %failed, "turned away");
            if let HandshakeFailed::Initiate {
                suite,
                initiated_at,
                ..
            } = failed
            {
                place.reached(Stage::Silent);
                refuse(&mut wire?, suite, initiated_at).await;
            }
            return None;
        }
        Err(_) => {
            tracing::debug!(connection = id.0, %address, "the handshake took too long");
            return None;
        }
    };
    let mut wire = wire?;
    let gone = house.abort.child_token();
    let budget = Arc::clone(&house.budget);
    let (peer, verdict) = Peer::new(id, arrival.key, arrival.initiate.role, budget, gone);
    let random = random::bytes().ok()?;
    house
        .broker
        .arrived(Arc::clone(&peer), arrival.initiate.clone(), random)
        .await;
    match timeout(VERDICT_WITHIN, verdict).await {
        Ok(Ok(Verdict::Accepted)) => Some((wire, arrival, peer)),
        Ok(Ok(Verdict::Rejected)) => {
            tracing::debug!(connection = id.0, %address, "its key may not connect");
            place.reached(Stage::Silent);
            refuse(&mut wire, arrival.suite, arrival.initiated_at).await;
            None
        }
        // The broker stops, or is stuck.
        Ok(Err(_)) | Err(_) => {
            house
                .broker
                .tell(Input::Disconnected { connection: id })
                .await;
            None
        }
    }
}

/// ERROR, the same time after INITIATE whatever the reason.
async fn refuse(wire: &mut Wire, suite: Suite, initiated_at: Instant) {
    tokio::time::sleep_until((initiated_at + REFUSAL_DELAY).into()).await;
    let told = timeout(FLUSH_WITHIN, wire.send(&encode_refusal(suite, REFUSED))).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!("a refusal could not be told");
    }
}

/// Both directions, until either ends.
async fn talk(wire: Wire, arrival: Arrival, peer: &Arc<Peer>, house: &Arc<House>) {
    let Wire {
        stream,
        mut decoder,
        buffer,
    } = wire;
    decoder.set_limits(Limits::AUTHENTICATED);
    let (read, write) = stream.into_split();
    let writer = writer::Writer::new(write, arrival.sealer, Arc::clone(peer), house.clock);
    let gone = peer.gone.clone();
    let writer = house.tasks.spawn(async move {
        let outcome = contained(writer.run()).await;
        gone.cancel();
        outcome
    });
    let share = (peer.role == Role::Client).then(|| house.inflow.share(peer.key));
    let reader = reader::Reader::new(
        (read, decoder, buffer),
        arrival.opener,
        Arc::clone(peer),
        house.broker.clone(),
        (share, Arc::clone(&house.read_buffers)),
    );
    if let Err(reason) = reader.run().await {
        tracing::debug!(connection = peer.id.0, %reason, "the connection ended");
    }
    peer.gone.cancel();
    peer.outbox.close();
    if let Ok(Err(panicked)) = writer.await {
        tracing::error!(connection = peer.id.0, "a writer failed: {panicked}");
    }
}
