//! Sending a snapshot.
//!
//! Owner: a task. Invariants: no more is sent than was granted; the last chunk is sealed only after
//! the pool has said that it wrote all; when the reader goes, the pool's writer meets a closed pipe.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use teu_node_core::volume::VolumeDone;
use teu_protocol::{
    flow::SendWindow,
    ids::{Tag, VolumeId},
    limits::MAX_PART_CONTENT_BYTES,
    message::{Channel, Refusal, RefusalCode, StreamEnd, TransferKey},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::oneshot};

use super::{CHUNK_BYTES, Header, Sealer, format_name, from_client, on_a_thread, pipe as new_pipe};
use crate::{
    containers::refuse_internal,
    link::{Inbound, StreamInlet},
    streams::Outlet,
    volumes::{
        pool::{Pool, PoolError},
        worker::{WorkerHandle, refuse_pool},
    },
};

/// What to send.
#[derive(Debug)]
pub struct Export {
    /// Of what.
    pub volume: VolumeId,
    /// Which snapshot.
    pub snapshot: Tag,
    /// Only what changed since this one.
    pub base: Option<Tag>,
    /// Authenticates the stream.
    pub key: TransferKey,
    /// Credit granted to us.
    pub window: u64,
    /// The account's first user id.
    pub uid_base: u32,
}

/// Why a stream ended early.
enum Broken {
    /// Nobody listens any more.
    Gone,
    Failed(Refusal),
}

/// Sends it. `open` is called once: with the stream's start, or with what forbids it; the stream
/// begins when the start's other end says so. `told`: called before the stream's close.
pub async fn export(
    worker: &WorkerHandle,
    order: Export,
    outlet: &Outlet,
    mut inlet: StreamInlet,
    open: impl AsyncFnOnce(Result<(u64, oneshot::Sender<()>), Refusal>),
    told: impl AsyncFnOnce(Result<VolumeDone, Refusal>),
) {
    let (pool, order) = match check(worker, order).await {
        Ok(checked) => checked,
        Err(refusal) => {
            open(Err(refusal.clone())).await;
            return told(Err(refusal)).await;
        }
    };
    let (start, started) = oneshot::channel();
    // The client sends nothing: it is granted nothing.
    open(Ok((0, start))).await;
    let outcome = match started.await {
        Ok(()) => run(pool, order, outlet, &mut inlet).await,
        Err(_) => Err(Broken::Gone),
    };
    match outcome {
        Ok(()) => {
            told(Ok(VolumeDone::done())).await;
            let _ = outlet.eof(Channel::Main).await;
            let _ = outlet.close(StreamEnd::Done).await;
        }
        Err(Broken::Gone) => told(Err(gone())).await,
        Err(Broken::Failed(refusal)) => {
            told(Err(refusal.clone())).await;
            let _ = outlet.close(StreamEnd::Failed(refusal)).await;
        }
    }
}

fn gone() -> Refusal {
    Refusal::new(RefusalCode::Unavailable, "the stream was given up")
}

/// The snapshots are there.
async fn check(worker: &WorkerHandle, order: Export) -> Result<(Arc<dyn Pool>, Export), Refusal> {
    worker
        .run(move |pool| {
            let all = pool
                .snapshots(order.volume)
                .map_err(|error| refuse_pool(&error))?;
            let place = |name: &Tag| {
                let place = all.iter().position(|one| one.name == *name);
                place.ok_or_else(|| refuse_pool(&PoolError::NoSnapshot(name.clone())))
            };
            let newer = place(&order.snapshot)?;
            if let Some(base) = &order.base
                && place(base)? >= newer
            {
                let message = format!(
                    "the snapshot `{base}` is not older than `{}`, so it cannot be its base",
                    order.snapshot
                );
                return Err(Refusal::new(RefusalCode::BadRequest, message));
            }
            Ok((Arc::clone(pool), order))
        })
        .await
}

async fn run(
    pool: Arc<dyn Pool>,
    order: Export,
    outlet: &Outlet,
    inlet: &mut StreamInlet,
) -> Result<(), Broken> {
    let internal = |error: &(dyn std::error::Error + 'static)| {
        Broken::Failed(refuse_internal("the volume cannot be sent", error))
    };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| internal(&error))?;
    let header = Header {
        format: format_name(pool.format()).to_owned(),
        volume: order.volume,
        snapshot: order.snapshot.clone(),
        base: order.base.clone(),
        owner: if pool.maps_owners() {
            0
        } else {
            order.uid_base
        },
        nonce,
    };
    let (mut sealer, first) = Sealer::new(&order.key, &header).map_err(|error| internal(&error))?;
    let (reader, writer) = new_pipe().map_err(|error| internal(&error))?;
    let mut reader = pipe::Receiver::from_owned_fd(reader).map_err(|error| internal(&error))?;
    let (volume, name, base) = (order.volume, order.snapshot, order.base);
    let sent = on_a_thread("volume-send", move || {
        pool.send(volume, &name, base.as_ref(), writer)
    })
    .map_err(Broken::Failed)?;
    let mut credit = SendWindow::new(order.window);
    send(outlet, inlet, &mut credit, first).await?;
    // One chunk is held back: whether it is the last is known only later.
    let mut held: Option<Bytes> = None;
    loop {
        let chunk = fill(&mut reader, inlet, &mut credit).await?;
        let Some(chunk) = chunk else {
            break;
        };
        if let Some(before) = held.replace(chunk) {
            let sealed = sealer.chunk(&before, false);
            send(outlet, inlet, &mut credit, sealed).await?;
        }
    }
    match sent.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Broken::Failed(refuse_pool(&error))),
        Err(error) => return Err(internal(&error)),
    }
    let last = sealer.chunk(&held.unwrap_or_default(), true);
    send(outlet, inlet, &mut credit, last).await
}

/// One chunk from the pool, full unless it is the last. `None`: there is no more.
async fn fill(
    reader: &mut pipe::Receiver,
    inlet: &mut StreamInlet,
    credit: &mut SendWindow,
) -> Result<Option<Bytes>, Broken> {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    while chunk.len() < CHUNK_BYTES {
        let mut room = bytes::BufMut::limit(&mut chunk, 0);
        room.set_limit(CHUNK_BYTES - room.get_ref().len());
        tokio::select! {
            biased;
            inbound = inlet.recv() => heard(inbound, credit)?,
            got = reader.read_buf(&mut room) => match got {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    return Err(Broken::Failed(refuse_internal("the volume cannot be sent", &error)));
                }
            },
        }
    }
    Ok((!chunk.is_empty()).then(|| chunk.freeze()))
}

fn heard(inbound: Option<Inbound>, credit: &mut SendWindow) -> Result<(), Broken> {
    match inbound {
        Some(Inbound::Credit(bytes)) => credit.grant(bytes).map_err(|error| {
            Broken::Failed(Refusal::new(RefusalCode::BadRequest, error.to_string()))
        })?,
        // It has nothing to say.
        Some(Inbound::Data { .. } | Inbound::Eof(..)) => {}
        None | Some(Inbound::Close(_)) => return Err(Broken::Gone),
    }
    Ok(())
}

/// As far as granted, then waits for more.
async fn send(
    outlet: &Outlet,
    inlet: &mut StreamInlet,
    credit: &mut SendWindow,
    mut bytes: Bytes,
) -> Result<(), Broken> {
    while !bytes.is_empty() {
        while let Ok(inbound) = inlet.try_recv() {
            heard(Some(inbound), credit)?;
        }
        let most = bytes.len().min(MAX_PART_CONTENT_BYTES);
        let granted = usize::try_from(credit.take(most as u64)).unwrap_or(most);
        if granted == 0 {
            let inbound = from_client(inlet).await.map_err(Broken::Failed)?;
            heard(inbound, credit)?;
            continue;
        }
        let part = bytes.split_to(granted);
        outlet
            .data(Channel::Main, 0, vec![part])
            .await
            .map_err(|_| Broken::Gone)?;
    }
    Ok(())
}
