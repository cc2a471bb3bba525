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

use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Duration, sleep},
};

use crate::{
    Container,
    error::{Error, Result},
    session::{Patience, StreamAsk},
};

/// Connections of one tunnel at a time; more wait in the system's queue. As many as a server
/// usually takes, well within a process's file descriptors.
const MAX_CONNECTIONS: usize = 512;

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
        let listener = tokio::spawn(serve(listener, container, port));
        Ok(Self {
            local,
            port,
            listener,
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
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(listener: TcpListener, container: Container, port: u16) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let gone = container.wait_gone();
    tokio::pin!(gone);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut gone => return,
        };
        match accepted {
            Ok((tcp, _)) => {
                let container = container.clone();
                connections.spawn(async move {
                    carry(container, port, tcp).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(target: "teu", %error, "a tunnel cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from accept to end.
async fn carry(container: Container, port: u16, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let ask = StreamAsk::Tunnel {
        container: container.id(),
        port,
        proxied: true,
    };
    match container.session.open(CONNECT, ask, Patience::USUAL).await {
        Ok((stream, _)) => pump::run(stream, tcp).await,
        Err(error) => {
            tracing::debug!(target: "teu", %error, port, "a tunnel's connection is refused");
            reset(&tcp);
        }
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
