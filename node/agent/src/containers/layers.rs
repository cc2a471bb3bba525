//! Layers that a container needs and the node does not have: fetched from the master.
//!
//! Owner: the preparing tasks. Invariants: each layer is fetched by one of them at a time (the store
//! sees to that); what arrives is within the credit that we grant as the unpacker takes it.

use std::{collections::VecDeque, io, pin::Pin, task};

use bytes::{Buf, Bytes};
use futures::stream::{FuturesUnordered, StreamExt};
use teu_protocol::{
    flow::ReceiveWindow,
    ids::Digest,
    message::{LayerRef, Refusal, RefusalCode, StreamEnd},
};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Yard, refuse::refuse_layer};
use crate::{
    agent::Event,
    link::{Inbound, LinkHandle, StreamInlet},
    streams::Outlet,
};

/// Fast links are filled, and four layers at once hold 8 MiB at most.
const LAYER_WINDOW: u64 = 2 * 1024 * 1024;

/// Room that is left on a node's disk before layers come, in bytes: idle ones make it if need be.
const ROOM_WANTED: u64 = 1 << 30;

/// How much larger a layer usually is when it is unpacked.
const UNPACKED_BY: u64 = 3;

/// Layers of one image that are fetched at the same time: unpacking takes a core each.
const AT_ONCE: usize = 4;

/// Makes sure that all are there.
pub(super) async fn ensure(yard: &Yard, layers: &[LayerRef]) -> Result<(), Refusal> {
    let missing = yard.layers.missing(layers);
    let wanted = missing.iter().fold(ROOM_WANTED, |sum, layer| {
        sum.saturating_add(layer.size.saturating_mul(UNPACKED_BY))
    });
    if !missing.is_empty()
        && let Some(room) = yard.layers.room()
        && room < wanted
    {
        yard.layers.make_room(wanted - room).await;
    }
    let mut missing = missing.into_iter();
    let mut under_way: FuturesUnordered<_> = missing
        .by_ref()
        .take(AT_ONCE)
        .map(|layer| ensure_one(yard, layer))
        .collect();
    while let Some(outcome) = under_way.next().await {
        outcome?;
        if let Some(layer) = missing.next() {
            under_way.push(ensure_one(yard, layer));
        }
    }
    Ok(())
}

async fn ensure_one(yard: &Yard, layer: LayerRef) -> Result<(), Refusal> {
    let digest = layer.digest;
    let mut refused = None;
    let fetched = yard.layers.ensure(&layer, || async {
        fetch(yard, digest).await.map_err(|refusal| {
            let error = io::Error::other(refusal.clone());
            refused = Some(refusal);
            error
        })
    });
    let outcome = fetched.await;
    match outcome {
        Ok(()) => {
            let _ = yard.events.send(Event::LayerReady(digest)).await;
            Ok(())
        }
        Err(error) => Err(refused.unwrap_or_else(|| refuse_layer(&error))),
    }
}

async fn fetch(yard: &Yard, digest: Digest) -> Result<LayerBlob, Refusal> {
    let link: Option<LinkHandle> = yard.link.borrow().clone();
    let lost = || {
        let message = format!(
            "layer {} cannot be fetched: the link is down",
            digest.short()
        );
        Refusal::new(RefusalCode::Unavailable, message)
    };
    let link = link.ok_or_else(lost)?;
    match link.fetch(digest, 0, LAYER_WINDOW).await {
        Ok((stream, inlet)) => Ok(LayerBlob {
            inlet,
            outlet: Outlet::new(link, stream),
            parts: VecDeque::new(),
            window: ReceiveWindow::new(LAYER_WINDOW),
            done: false,
        }),
        Err(crate::link::FetchError::Refused(refusal)) => Err(refusal),
        Err(_) => Err(lost()),
    }
}

/// A layer's bytes as they arrive.
struct LayerBlob {
    inlet: StreamInlet,
    outlet: Outlet,
    parts: VecDeque<Bytes>,
    window: ReceiveWindow,
    done: bool,
}

impl LayerBlob {
    fn hear(&mut self, inbound: Option<Inbound>) -> io::Result<()> {
        match inbound {
            Some(Inbound::Data { bulk, .. }) => {
                let bytes = bulk.iter().map(|part| part.len() as u64).sum();
                self.window.received(bytes).map_err(io::Error::other)?;
                self.parts
                    .extend(bulk.into_iter().filter(|part| !part.is_empty()));
            }
            Some(Inbound::Close(StreamEnd::Done)) => self.done = true,
            Some(Inbound::Close(StreamEnd::Failed(refusal))) => {
                return Err(io::Error::other(refusal));
            }
            Some(Inbound::Close(_)) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Inbound::Eof(..) | Inbound::Credit(_)) => {}
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the link to the master was lost",
                ));
            }
        }
        Ok(())
    }

    fn took(&mut self, bytes: usize) {
        if let Some(grant) = self.window.consumed(bytes as u64) {
            let outlet = self.outlet.clone();
            // Small, and rare: one for each quarter of the window.
            tokio::spawn(async move { outlet.credit(grant).await });
        }
    }
}

impl AsyncRead for LayerBlob {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        loop {
            if let Some(front) = self.parts.front_mut() {
                let now = front.len().min(buf.remaining());
                buf.put_slice(&front[..now]);
                front.advance(now);
                if front.is_empty() {
                    self.parts.pop_front();
                }
                self.took(now);
                return task::Poll::Ready(Ok(()));
            }
            if self.done {
                return task::Poll::Ready(Ok(()));
            }
            let inbound = task::ready!(self.inlet.poll_recv(cx));
            self.hear(inbound)?;
        }
    }
}
