//! TCP from this machine into a container.
//!
//! Owner: a [`Tunnel`] owns its listener's task, which owns the connections' tasks; a
//! [`Connection`] is owned by whoever made it. Invariant: a listener never lies: what it accepts is connected
//! through or reset, and when the container is destroyed nobody listens any more.

mod connection;
mod pump;
#[cfg(test)]
mod tests;

pub use connection::Connection;

use std::{io, net::SocketAddr, sync::Arc};

use teu_protocol::message::{Refusal, RefusalCode};
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{Duration, sleep},
};

use crate::{
    Container,
    error::{Error, Result},
    session::{Patience, StreamAsk},
};

/// Connections of one tunnel at a time; more are reset. As many as a server usually takes, half of the
/// streams that a session may have, well within a process's file descriptors.
const MAX_CONNECTIONS: usize = 512;

/// Reasons of reset connections that wait for somebody to ask; later ones are forgotten.
const REFUSALS_KEPT: usize = 16;

/// Out of file descriptors, most likely: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) const CONNECT: &str = "connect to the container's port";

/// A listener on this machine whose connections arrive at a container's port.
///
/// It survives reconnects: open connections are reset when the link is lost, new ones wait for it.
/// It closes when it is dropped or the container is destroyed.
#[derive(Debug)]
pub struct Tunnel {
    local: SocketAddr,
    port: u16,
    listener: JoinHandle<()>,
    refused: mpsc::Receiver<Error>,
}

impl Tunnel {
    pub(crate) async fn listen(
        container: Container,
        local: impl ToSocketAddrs,
        port: u16,
    ) -> Result<Self> {
        let io = |source| Error::Io {
            attempt: "listen for the tunnel",
            source,
        };
        let listener = TcpListener::bind(local).await.map_err(io)?;
        let local = listener.local_addr().map_err(io)?;
        let (refusals, refused) = mpsc::channel(REFUSALS_KEPT);
        let end = End {
            container,
            port,
            refusals,
        };
        let listener = tokio::spawn(serve(listener, end));
        Ok(Self {
            local,
            port,
            listener,
            refused,
        })
    }

    /// Where it listens on this machine.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The port in the container.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Waits for a connection that cannot be carried, and says why. Whoever made it saw a reset: the
    /// container's port is closed, say, or a limit is reached. Cancel-safe. A few reasons are kept for
    /// a program that asks late.
    pub async fn refused(&mut self) -> Error {
        match self.refused.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Where a tunnel leads.
#[derive(Debug, Clone)]
struct End {
    container: Container,
    port: u16,
    refusals: mpsc::Sender<Error>,
}

async fn serve(listener: TcpListener, end: End) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let container = end.container.clone();
    let gone = container.wait_gone();
    tokio::pin!(gone);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut gone => return,
        };
        match accepted {
            Ok((tcp, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let end = end.clone();
                    connections.spawn(async move {
                        end.carry(tcp).await;
                        drop(place);
                    });
                }
                Err(_) => end.refuse(&tcp, too_many()),
            },
            Err(source) => {
                let attempt = "accept a connection of the tunnel";
                end.tell(Error::Io { attempt, source });
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl End {
    /// One connection, from accept to end.
    async fn carry(&self, tcp: TcpStream) {
        let _ = tcp.set_nodelay(true);
        let ask = StreamAsk::Tunnel {
            container: self.container.id(),
            port: self.port,
            proxied: true,
        };
        let session = &self.container.session;
        match session.open(CONNECT, ask, Patience::USUAL).await {
            Ok((stream, _)) => pump::run(stream, tcp).await,
            Err(error) => self.refuse(&tcp, error),
        }
    }

    fn refuse(&self, tcp: &TcpStream, why: Error) {
        reset(tcp);
        self.tell(why);
    }

    fn tell(&self, why: Error) {
        let port = self.port;
        tracing::warn!(target: "teu", error = %why, port, "a connection of a tunnel was reset");
        // Nobody asks, or not often enough.
        let _ = self.refusals.try_send(why);
    }
}

fn too_many() -> Error {
    let message = format!(
        "the tunnel carries {MAX_CONNECTIONS} connections, which is the most: close some, or open \
         another tunnel"
    );
    Error::Refused {
        attempt: CONNECT,
        refusal: Refusal::new(RefusalCode::LimitReached, message),
    }
}

/// The connection ends with RST when it is dropped.
fn reset(tcp: &TcpStream) {
    let reset: io::Result<()> = tcp.set_zero_linger();
    if let Err(error) = reset {
        tracing::debug!(target: "teu", %error, "a connection cannot be reset");
    }
}

pub(crate) async fn connect(container: &Container, port: u16) -> Result<Connection> {
    let ask = StreamAsk::Tunnel {
        container: container.id(),
        port,
        proxied: false,
    };
    let (stream, _) = container
        .session
        .open(CONNECT, ask, Patience::USUAL)
        .await?;
    Ok(Connection::new(stream, container.clone()))
}
