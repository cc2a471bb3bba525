//! Tasks that open streams.
//!
//! Owner: the event loop starts them. Invariant: a stream's task waits until the reply that opens it
//! has left; if nobody wants the reply any more, it never begins.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use teu_node_core::effect::Attach;
use teu_protocol::{
    flow::SendWindow,
    ids::{ContainerId, RequestId, StreamId},
    message::{Refusal, RefusalCode},
};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use crate::{
    agent::{Agent, Event},
    containers::{Sandbox, Yard, refuse_internal},
    keeper::{self, STDIN_WINDOW},
    link::LinkHandle,
    streams::{AttachError, Outlet, open_attach, run_tunnel},
    sys::net::Netns,
};

/// A container's own stack answers at once, unless its backlog is full.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct TunnelOrder {
    pub(super) request: RequestId,
    pub(super) container: ContainerId,
    pub(super) ip: Ipv4Addr,
    pub(super) port: u16,
    pub(super) stream: StreamId,
    pub(super) window: u64,
}

pub(super) fn link_lost() -> Refusal {
    Refusal::new(
        RefusalCode::NodeLost,
        "the node's link to the master was lost meanwhile",
    )
}

fn gone() -> Refusal {
    Refusal::new(RefusalCode::WrongState, "the container is not running")
}

impl Agent {
    pub(super) fn refuse_opening(&self, request: RequestId, refusal: Refusal) {
        let events = self.yard.events.clone();
        let event = Event::Opened {
            request,
            result: Err(refusal),
        };
        tokio::spawn(async move { events.send(event).await });
    }

    pub(super) fn current_link(&self) -> Option<LinkHandle> {
        self.link.borrow().clone()
    }

    pub(super) fn attach(&mut self, attach: Attach) {
        let Some(link) = self.current_link() else {
            return self.refuse_opening(attach.request, link_lost());
        };
        let keeper = self.keeper_of(&attach.container);
        let Some(entry) = self.table.get_mut(&attach.container) else {
            return self.refuse_opening(attach.request, gone());
        };
        let opening = Arc::clone(&entry.opening);
        let turn = Arc::clone(&opening).try_read_owned();
        let progress = entry.process(attach.process).progress();
        let granted = if attach.input { STDIN_WINDOW } else { 0 };
        let dir = self.yard.data.container(attach.container).path().to_owned();
        let inlet = link.accept(attach.stream);
        let outlet = Outlet::new(link, attach.stream);
        let events = self.yard.events.clone();
        tokio::spawn(async move {
            let request = attach.request;
            let turn = match turn {
                Ok(turn) => turn,
                Err(_) => opening.read_owned().await,
            };
            let opened = open_attach(&attach, dir, progress, keeper).await;
            drop(turn);
            let stream = match opened {
                Ok(stream) => stream,
                Err(error) => {
                    let refusal = refuse_attach(&error);
                    let _ = events
                        .send(Event::Opened {
                            request,
                            result: Err(refusal),
                        })
                        .await;
                    return;
                }
            };
            let (start, started) = oneshot::channel();
            let result = Ok((granted, stream.has_input, start));
            if events.send(Event::Opened { request, result }).await.is_ok() && started.await.is_ok()
            {
                stream.run(outlet, inlet).await;
            } else {
                stream.abandon().await;
            }
        });
    }

    pub(super) fn tunnel(&self, order: TunnelOrder) {
        let request = order.request;
        let Some(link) = self.current_link() else {
            return self.refuse_opening(request, link_lost());
        };
        let entry = self.table.get(&order.container);
        let Some((entry, sandbox)) = entry.and_then(|entry| Some((entry, entry.sandbox.clone()?)))
        else {
            return self.refuse_opening(request, gone());
        };
        let window = match self.yard.tunnels.open() {
            Ok(window) => window,
            Err(refusal) => return self.refuse_opening(request, refusal),
        };
        let cut = entry.cut.clone();
        let inlet = link.accept(order.stream);
        let outlet = Outlet::new(link, order.stream);
        let yard = self.yard.clone();
        tokio::spawn(async move {
            let socket = match connect(&yard, &sandbox, &order).await {
                Ok(socket) => socket,
                Err(refusal) => {
                    let event = Event::Opened {
                        request,
                        result: Err(refusal),
                    };
                    let _ = yard.events.send(event).await;
                    return;
                }
            };
            let (start, started) = oneshot::channel();
            let result = Ok((window.size(), None, start));
            let told = yard.events.send(Event::Opened { request, result }).await;
            // The stream outlives this task's interest in the node's other things.
            drop((yard, sandbox));
            if told.is_err() || started.await.is_err() {
                return;
            }
            let closing = outlet.clone();
            let credit = SendWindow::new(order.window);
            tokio::select! {
                () = run_tunnel(socket, outlet, inlet, credit, window) => {}
                () = cut.cancelled() => {
                    let _ = closing.close(teu_protocol::message::StreamEnd::Reset).await;
                }
            }
        });
    }
}

fn refuse_attach(error: &AttachError) -> Refusal {
    match error {
        AttachError::Log(error) => refuse_internal("the process's output cannot be read", error),
        AttachError::Keeper(keeper::Refusal::TooManyReaders) => {
            Refusal::new(RefusalCode::LimitReached, error.to_string())
        }
        AttachError::Keeper(_) => Refusal::new(RefusalCode::WrongState, error.to_string()),
    }
}

async fn connect(
    yard: &Yard,
    sandbox: &Sandbox,
    order: &TunnelOrder,
) -> Result<TcpStream, Refusal> {
    let netns = Netns::OfProcess(sandbox.keeper.pid().unsigned_abs());
    let port = order.port;
    let connecting = yard.network.connect_in(netns, (order.ip, port).into());
    match timeout(CONNECT_PATIENCE, connecting).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let message = format!(
                "nothing listens on port {port} in the container; wait until its server is up, or \
                 check the port"
            );
            Err(Refusal::new(RefusalCode::PortClosed, message))
        }
        Ok(Err(error)) => Err(refuse_internal(
            &format!("port {port} of the container cannot be reached"),
            &error,
        )),
        Err(_) => {
            let seconds = CONNECT_PATIENCE.as_secs();
            let message = format!(
                "the server on port {port} in the container did not accept within {seconds} s; it \
                 may be overloaded"
            );
            Err(Refusal::new(RefusalCode::Timeout, message))
        }
    }
}
