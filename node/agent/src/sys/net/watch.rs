//! Notices when somebody else changes nftables, so that a flushed firewall is back at once.
//!
//! Owned by `NetworkHandle`, ended with it. Invariant: only tells the worker to look; looks at
//! nothing itself, and never waits for the worker (a full queue means that the worker is busy and
//! the next tick asks again). Next: `worker`, `Command::Verify`.

#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::command::Command;
use super::wire;

/// The kernel's announcements of changes to nf_tables (NFNLGRP_NFTABLES).
const GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`: closes each transaction and tells whose it was.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// Besides announcements: the bridge and the sysctl are looked at this often.
const TICK: Duration = Duration::from_secs(10);

/// Others may change their tables often (Docker does for each container); looking costs about
/// 1 ms, so not more often than this.
const PAUSE: Duration = Duration::from_millis(10);

/// A socket that hears announcements.
#[derive(Debug)]
pub(super) struct Announcements(Socket);

impl Announcements {
    /// Those of the calling thread's network namespace.
    pub(super) fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Registers the socket with the runtime of the calling task.
    pub(super) fn on_tokio(self) -> io::Result<AsyncFd<Socket>> {
        // SAFETY: the socket owns its descriptor, never changes it, and closes it only when it is
        // dropped, which is after the `AsyncFd` that holds it has unregistered it.
        unsafe { AsyncFd::register(self.0) }.map_err(io::Error::from)
    }
}

/// Runs until the worker is gone. `own_port` is the worker's: what it does itself is not news.
pub(super) async fn watch(
    socket: AsyncFd<Socket>,
    own_port: u32,
    worker: mpsc::WeakSender<Command>,
) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both are cancel-safe.
        let news = tokio::select! {
            _ = tick.tick() => true,
            ready = socket.readable() => match ready {
                Ok(mut ready) => {
                    let news = drain(socket.get_ref(), own_port);
                    ready.clear_ready();
                    news
                }
                Err(error) => {
                    tracing::error!(%error, "cannot hear about firewall changes any more");
                    return;
                }
            },
        };
        if news {
            let Some(worker) = worker.upgrade() else {
                return;
            };
            if matches!(
                worker.try_send(Command::Verify),
                Err(mpsc::error::TrySendError::Closed(_))
            ) {
                return;
            }
            drop(worker);
            sleep(PAUSE).await;
        }
    }
}

/// Reads all that waits; whether somebody else changed something.
fn drain(socket: &Socket, own_port: u32) -> bool {
    let mut news = false;
    loop {
        let mut datagram = Vec::with_capacity(64 * 1024);
        match socket.recv(&mut datagram, 0) {
            Ok(_) => {
                news |= wire::messages(&datagram)
                    .any(|message| message.kind == NEW_GENERATION && message.port != own_port);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return news,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // More was announced than the socket holds (ENOBUFS): something happened.
            Err(_) => news = true,
        }
    }
}
