//! What the agent calls: a cloneable handle to the network worker.
//!
//! Owned by the agent. Invariant: dropping the last handle ends the threads and leaves the network
//! standing, for containers outlive the agent; only `close` takes it down.
//! Next: `worker` for what the calls do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use teu_node_core::firewall::Pair;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::command::{Command, Reply};
use super::config::{Adopted, NetConfig, SlotNet, pair};
use super::connect::SocketMaker;
use super::error::NetError;
use super::netns::Netns;
use super::problem::NetProblem;
use super::watch;
use super::worker::Worker;
use crate::sys::names::SlotName;

/// Waiting commands. Callers wait when it is full; each command takes 0.1 to 60 ms.
const QUEUE: usize = 256;

/// The node's network: bridge, veths, addresses, firewall, and connections into containers.
#[derive(Clone, Debug)]
pub struct NetworkHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    sockets: SocketMaker,
    config: Arc<NetConfig>,
    watch: AbortHandle,
}

impl NetworkHandle {
    /// Builds the network, or repairs and takes over what is there. `adopted` are the containers
    /// and warm slots that run already: their flows go on undisturbed, and what was allowed between
    /// them stays allowed; veths of anybody else with this instance's names are removed.
    ///
    /// Works in the network namespace of the calling thread. Turns `net.ipv4.ip_forward` on.
    pub async fn open(config: NetConfig, adopted: Vec<Adopted>) -> Result<Self, NetError> {
        let config = Arc::new(config);
        let sockets = SocketMaker::start().map_err(NetError::Start)?;
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (ready, opened) = oneshot::channel();
        let for_worker = Arc::clone(&config);
        let run = move || {
            let opened = Worker::open(for_worker, adopted).and_then(|worker| {
                let announcements = watch::Announcements::listen().map_err(NetError::Start)?;
                let port = worker.port().map_err(NetError::Start)?;
                Ok((worker, announcements, port))
            });
            match opened {
                Err(error) => drop(ready.send(Err(error))),
                Ok((worker, announcements, port)) => {
                    if ready.send(Ok((announcements, port))).is_ok() {
                        worker.run(inbox);
                    }
                }
            }
        };
        thread::Builder::new()
            .name("net".to_owned())
            .spawn(run)
            .map_err(NetError::Start)?;
        let (announcements, port) = opened.await.map_err(|_| NetError::Stopped)??;
        let announcements = announcements.on_tokio().map_err(NetError::Start)?;
        let watch = tokio::spawn(watch::watch(announcements, port, commands.downgrade()));
        let watch = watch.abort_handle();
        Ok(Self {
            shared: Arc::new(Shared {
                commands,
                sockets,
                config,
                watch,
            }),
        })
    }

    /// What the network is made from.
    #[must_use]
    pub fn config(&self) -> &NetConfig {
        &self.shared.config
    }

    /// Gives each slot a veth, an address, a route and its anti-spoofing rules, in the network
    /// namespace of its keeper's process. All or none. The namespace must be fresh (no `eth0`).
    /// Cancel-safe: a caller that stops waiting leaves nothing behind.
    pub async fn prepare(&self, keepers: Vec<(SlotName, u32)>) -> Result<Vec<SlotNet>, NetError> {
        let delivery = self
            .ask(|reply| Command::Prepare { keepers, reply })
            .await?;
        Ok(delivery.claim())
    }

    /// Takes back what slots were given, and all rules about them. Unknown slots are fine. The
    /// addresses rest before they are used again. Call it once the container has ended; it need
    /// not wait for the keeper.
    pub async fn release(&self, slots: Vec<SlotName>) -> Result<(), NetError> {
        self.ask(|reply| Command::Release { slots, reply }).await
    }

    /// Lets `from` open connections to `to`. At least one is a container of this node; between two
    /// nodes it must be called on both. Allowing twice is fine.
    pub async fn allow(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<(), NetError> {
        self.ask(|reply| Command::Allow {
            pair: pair(from, to),
            reply,
        })
        .await
    }

    /// Takes a permission back: open connections stop at once. Not allowed is fine.
    pub async fn disallow(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<(), NetError> {
        self.ask(|reply| Command::Disallow {
            pair: pair(from, to),
            reply,
        })
        .await
    }

    /// Makes `pairs` all that is allowed (after reconciling with the master). Pairs about
    /// containers that are not here are left out.
    pub async fn replace_allowed(&self, pairs: Vec<Pair>) -> Result<(), NetError> {
        self.ask(|reply| Command::ReplaceAllowed { pairs, reply })
            .await
    }

    /// All that is allowed.
    pub async fn allowed(&self) -> Result<Vec<Pair>, NetError> {
        self.ask(|reply| Command::Allowed { reply }).await
    }

    /// Connects from inside a container's namespace: to `address` (the container's own), and if
    /// nobody listens there, to the same port of its loopback. No firewall rule is involved.
    /// Has no timeout of its own; cancel-safe.
    pub async fn connect_in(&self, netns: Netns, address: SocketAddr) -> io::Result<TcpStream> {
        self.shared.sockets.connect(netns, address).await
    }

    /// What is wrong and how to mend it; changes nothing.
    pub async fn check(&self) -> Vec<NetProblem> {
        let checked = self.ask(|reply| Command::Check { reply }).await;
        checked.unwrap_or_else(|error| vec![NetProblem::Unknown(error.to_string())])
    }

    /// Takes the whole network down: veths, bridge, tables. For uninstalling; an agent that merely
    /// ends drops its handles instead.
    pub async fn close(self) -> Result<(), NetError> {
        self.ask(|reply| Command::Close { reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.commands.send(command(reply)).await;
        sent.map_err(|_| NetError::Stopped)?;
        answer.await.map_err(|_| NetError::Stopped)?
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
