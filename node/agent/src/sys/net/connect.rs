//! Connections into a container, made from inside its network namespace: the firewall needs no
//! hole, and a server that listens on the container's loopback only is reached as well.
//!
//! Owned by `NetworkHandle`: one thread makes the sockets (two setns and one socket call, some
//! microseconds each), the connecting itself is asynchronous on tokio. Invariant: the thread is
//! in its own namespace whenever it takes the next request. Next: `netns`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdTcpStream};
use std::sync::mpsc;
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::netns::{Home, Netns, NetnsError};

/// Waiting requests: each stands for a tunnel connection that somebody opens right now; more than
/// this at once and the opener is told to try again.
const QUEUE: usize = 1024;

/// The thread that makes sockets in other namespaces.
#[derive(Clone, Debug)]
pub(super) struct SocketMaker {
    requests: mpsc::SyncSender<Make>,
}

#[derive(Debug)]
struct Make {
    netns: Netns,
    reply: oneshot::Sender<io::Result<(Netns, StdTcpStream)>>,
}

impl SocketMaker {
    /// Starts the thread in the caller's namespace. It ends when the last handle is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let (requests, inbox) = mpsc::sync_channel(QUEUE);
        let home = Home::of_this_thread()?;
        thread::Builder::new()
            .name("net-sockets".to_owned())
            .spawn(move || serve(&home, inbox))?;
        Ok(Self { requests })
    }

    /// Connects to `address` inside `netns`; if nobody listens there, to the same port of the
    /// container's loopback. Cancel-safe: dropping it closes what was opened.
    pub(super) async fn connect(&self, netns: Netns, address: SocketAddr) -> io::Result<TcpStream> {
        let (netns, socket) = self.make(netns).await?;
        match TcpSocket::from_std_stream(socket).connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
                let (_, socket) = self.make(netns).await?;
                TcpSocket::from_std_stream(socket).connect(loopback).await
            }
            outcome => outcome,
        }
    }

    async fn make(&self, netns: Netns) -> io::Result<(Netns, StdTcpStream)> {
        let (reply, made) = oneshot::channel();
        self.requests
            .try_send(Make { netns, reply })
            .map_err(|error| match error {
                mpsc::TrySendError::Full(_) => io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "too many connections are being opened at once",
                ),
                mpsc::TrySendError::Disconnected(_) => stopped(),
            })?;
        made.await.map_err(|_| stopped())?
    }
}

fn serve(home: &Home, inbox: mpsc::Receiver<Make>) {
    for Make { netns, reply } in inbox {
        match home.visit(&netns, make_socket) {
            Ok(socket) => drop(reply.send(Ok((netns, socket)))),
            Err(NetnsError::Enter(error) | NetnsError::Inside(error)) => {
                drop(reply.send(Err(error)));
            }
            Err(error @ NetnsError::Lost(_)) => {
                tracing::error!(%error, "the socket thread ends; tunnels need an agent restart");
                return;
            }
        }
    }
}

fn make_socket() -> io::Result<StdTcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        Some(ipproto::TCP),
    )?;
    Ok(StdTcpStream::from(socket))
}

fn stopped() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the thread that makes sockets has stopped",
    )
}
