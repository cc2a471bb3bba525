//! The listener: takes TCP connections and gives each a task.
//!
//! Owner: the server. Invariant: no connection without a place, every task tracked; a failing accept
//! never ends the loop. Next: [`crate::connection`].

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use teu_daemon::tasks::contained;
use teu_master_core::{ConnectionId, Input};
use tokio::net::{TcpListener, TcpStream};

use crate::{admission::Place, connection, house::House};

/// After an accept that failed (out of files, mostly): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs until the house stops.
pub(crate) async fn run(listener: TcpListener, house: Arc<House>) {
    let next = AtomicU64::new(1);
    loop {
        let accepted = tokio::select! {
            biased;
            () = house.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let id = ConnectionId(next.fetch_add(1, Ordering::Relaxed));
        match house
            .admission
            .enter(id, address.ip(), house.abort.child_token())
        {
            Ok(place) => {
                house
                    .tasks
                    .spawn(serve(stream, id, address.ip(), place, Arc::clone(&house)));
            }
            Err(reason) => tracing::debug!(%address, %reason, "a connection was turned away"),
        }
    }
}

/// Serves a connection. A defect that its peer found ends it alone, and the core hears that it ended.
async fn serve(
    stream: TcpStream,
    id: ConnectionId,
    address: IpAddr,
    place: Place,
    house: Arc<House>,
) {
    let serving = Box::pin(connection::serve(
        stream,
        id,
        address,
        place,
        Arc::clone(&house),
    ));
    if let Err(panicked) = contained(serving).await {
        tracing::error!(connection = id.0, %address, "a connection's task failed: {panicked}");
        let disconnected = Input::Disconnected { connection: id };
        house.broker.tell(disconnected).await;
    }
}
