//! Taking a stream in.
//!
//! Owner: a task. Invariants: what comes is proved before the pool sees it; a stream that ends early
//! is broken off so that the pool notices, and nothing of it is left; the stream is closed as done
//! only after all is durable and the volume was told.

use std::{os::fd::OwnedFd, sync::Arc};

use bytes::Bytes;
use teu_node_core::volume::VolumeDone;
use teu_protocol::{
    flow::{GROWN_WINDOW_BYTES, ReceiveWindow},
    ids::Tag,
    message::{
        NodeReplyBody, Refusal, RefusalCode, SCHEDULED_PREFIX, StreamEnd, TransferKey, VolumeRecord,
    },
};
use tokio::{io::AsyncWriteExt, net::unix::pipe, sync::oneshot};

use super::{Header, Unsealer, format_name, from_client, on_a_thread, pipe as new_pipe};
use crate::{
    containers::refuse_internal,
    link::{Inbound, StreamInlet},
    streams::Outlet,
    volumes::{
        pool::{Pool, PoolError, Receive},
        worker::{WorkerHandle, encoded, refuse_pool},
    },
};

/// What to make of a stream.
#[derive(Debug, Clone)]
pub struct Import {
    /// The volume.
    pub record: VolumeRecord,
    /// It is there already.
    pub into: bool,
    /// Authenticates the stream.
    pub key: TransferKey,
    /// The account's first user id.
    pub uid_base: u32,
}

enum Broken {
    /// Nobody sends any more.
    Gone,
    Failed(Refusal),
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal)
    }
}

/// Takes it in. See [`super::export`] for `open`. `told`: called between the last durable byte and the
/// stream's close.
pub async fn import(
    worker: &WorkerHandle,
    order: Import,
    outlet: &Outlet,
    inlet: StreamInlet,
    open: impl AsyncFnOnce(Result<(u64, oneshot::Sender<()>), Refusal>),
    told: impl AsyncFnOnce(Result<VolumeDone, Refusal>),
) {
    let (start, started) = oneshot::channel();
    open(Ok((GROWN_WINDOW_BYTES, start))).await;
    let outcome = match started.await {
        Ok(()) => {
            let mut stream = Stream {
                inlet,
                outlet,
                window: ReceiveWindow::new(GROWN_WINDOW_BYTES),
                unsealer: Unsealer::new(&order.key),
            };
            run(worker, &order, &mut stream).await
        }
        Err(_) => Err(Broken::Gone),
    };
    match outcome {
        Ok(done) => {
            told(Ok(done)).await;
            let _ = outlet.close(StreamEnd::Done).await;
        }
        Err(Broken::Gone) => {
            let message = "the stream was given up; nothing of it is left";
            told(Err(Refusal::new(RefusalCode::Unavailable, message))).await;
        }
        Err(Broken::Failed(refusal)) => {
            told(Err(refusal.clone())).await;
            let _ = outlet.close(StreamEnd::Failed(refusal)).await;
        }
    }
}

struct Stream<'a> {
    inlet: StreamInlet,
    outlet: &'a Outlet,
    window: ReceiveWindow,
    unsealer: Unsealer,
}

impl Stream<'_> {
    /// The next proved bytes. `None`: that was all.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Broken> {
        if self.unsealer.is_whole() {
            return Ok(None);
        }
        match from_client(&mut self.inlet).await? {
            None => Err(Broken::Gone),
            Some(Inbound::Credit(_)) => Ok(Some(Vec::new())),
            Some(Inbound::Eof(..) | Inbound::Close(StreamEnd::Done)) => {
                self.unsealer
                    .finish()
                    .map_err(|error| bad(error.to_string()))?;
                Ok(None)
            }
            Some(Inbound::Close(_)) => Err(Broken::Gone),
            Some(Inbound::Data { bulk, .. }) => {
                let mut all = Vec::new();
                for part in bulk {
                    self.window
                        .received(part.len() as u64)
                        .map_err(|error| bad(error.to_string()))?;
                    let proved = self.unsealer.push(&part);
                    all.extend(proved.map_err(|error| bad(error.to_string()))?);
                    if let Some(grant) = self.window.consumed(part.len() as u64) {
                        self.outlet.credit(grant).await.map_err(|_| Broken::Gone)?;
                    }
                }
                Ok(Some(all))
            }
        }
    }
}

fn bad(message: impl Into<String>) -> Broken {
    Broken::Failed(Refusal::new(RefusalCode::BadRequest, message))
}

async fn run(
    worker: &WorkerHandle,
    order: &Import,
    stream: &mut Stream<'_>,
) -> Result<VolumeDone, Broken> {
    let mut first = Vec::new();
    let header = loop {
        match stream.next().await? {
            Some(proved) => first.extend(proved),
            None if stream.unsealer.header().is_none() => return Err(bad("the stream is empty")),
            None => {}
        }
        if let Some(header) = stream.unsealer.header() {
            break header.clone();
        }
    };
    let pool = check(worker, order, &header).await?;
    let (reader, writer) =
        new_pipe().map_err(|error| refuse_internal("the volume cannot be received", &error))?;
    let record = encoded(&order.record)?;
    let received = {
        let (order, header) = (order.clone(), header.clone());
        on_a_thread("volume-receive", move || {
            receive(pool.as_ref(), &order, &header, &record, reader)
        })?
    };
    let fed = feed(stream, first, writer).await;
    let received = received
        .await
        .map_err(|error| refuse_internal("the volume cannot be received", &error))?;
    if order.into {
        // The tree of before; or what the pool could not undo by itself.
        worker.recover().await;
    }
    match (fed, received) {
        (Ok(()), Ok(())) => {
            fail::fail_point!("volume-import-answer");
            Ok(VolumeDone {
                reply: NodeReplyBody::Done,
                record: (!order.into).then(|| order.record.clone()),
            })
        }
        // What broke the feeding off is what the sender has to know, unless it was the pool itself.
        (Err(Fed::Stream(broken)), Err(_)) => Err(broken),
        (_, Err(error)) => Err(refuse_pool(&error).into()),
        (Err(Fed::Stream(broken)), Ok(())) => {
            // It took a part for the whole.
            undo(worker, order, &header).await;
            Err(broken)
        }
        (Err(Fed::Pipe), Ok(())) => {
            undo(worker, order, &header).await;
            Err(bad("the stream has more in it than its volume"))
        }
    }
}

/// Why feeding ended early.
enum Fed {
    Stream(Broken),
    /// The pool reads no more: it says why.
    Pipe,
}

/// Writes what is proved; a stream that breaks is made to look broken.
async fn feed(stream: &mut Stream<'_>, first: Vec<Bytes>, writer: OwnedFd) -> Result<(), Fed> {
    let internal = |error: std::io::Error| {
        let refusal = refuse_internal("the volume cannot be received", &error);
        Fed::Stream(Broken::Failed(refusal))
    };
    let mut writer = pipe::Sender::from_owned_fd(writer).map_err(internal)?;
    let mut proved = first;
    loop {
        for part in proved {
            writer.write_all(&part).await.map_err(|_| Fed::Pipe)?;
        }
        match stream.next().await {
            Ok(Some(more)) => proved = more,
            Ok(None) => return Ok(()),
            Err(broken) => {
                // A btrfs stream that ends between two commands passes for whole: half a command does not.
                let _ = writer.write_all(&[0]).await;
                return Err(Fed::Stream(broken));
            }
        }
    }
}

fn receive(
    pool: &dyn Pool,
    order: &Import,
    header: &Header,
    record: &[u8],
    input: OwnedFd,
) -> Result<(), PoolError> {
    let receive = Receive {
        id: order.record.id,
        record,
        quota: order.record.spec.quota_bytes,
        name: &header.snapshot,
        base: header.base.as_ref(),
    };
    pool.receive(receive, input)
}

/// Removes what a pool has made of a stream that was not whole.
async fn undo(worker: &WorkerHandle, order: &Import, header: &Header) {
    let (id, into) = (order.record.id, order.into);
    let (name, base) = (header.snapshot.clone(), header.base.clone());
    let undone = worker.run(move |pool| {
        match base {
            Some(base) if into => pool.roll_back(id, &base),
            _ if into => pool.destroy_snapshot(id, &name),
            _ => pool.destroy(id),
        }
        .map_err(|error| refuse_pool(&error))
    });
    if let Err(refusal) = undone.await {
        tracing::error!("what is left of an import cannot be removed: {refusal}");
    }
}

/// The stream fits the pool and the volume.
async fn check(
    worker: &WorkerHandle,
    order: &Import,
    header: &Header,
) -> Result<Arc<dyn Pool>, Refusal> {
    let refuse = |message: String| Err(Refusal::new(RefusalCode::BadRequest, message));
    if !order.into && header.base.is_some() {
        return refuse(
            "the stream has only what changed since another snapshot; import it into a volume that \
             has that"
                .to_owned(),
        );
    }
    if order.into && header.base.is_none() {
        return refuse(
            "the stream is a whole volume; import it as a new one, or export it with a base"
                .to_owned(),
        );
    }
    let (order, header) = (order.clone(), header.clone());
    worker
        .run(move |pool| {
            let refuse = |code, message: String| Err(Refusal::new(code, message));
            let ours = format_name(pool.format());
            if header.format != ours {
                let message = format!(
                    "the stream is of a {} pool and this node's is {ours}; import it on a node whose \
                     pool is {}",
                    header.format, header.format
                );
                return refuse(RefusalCode::BadRequest, message);
            }
            let owner = if pool.maps_owners() { 0 } else { order.uid_base };
            if header.owner != owner {
                let message = "the files in the stream have owners that are strangers on this node: \
                               one of the two pools cannot map owners (zfs before 2.2)";
                return refuse(RefusalCode::BadRequest, message.to_owned());
            }
            if order.into {
                let all = pool
                    .snapshots(order.record.id)
                    .map_err(|error| refuse_pool(&error))?;
                fits(&header, &all.iter().map(|one| &one.name).collect::<Vec<_>>())?;
            }
            Ok(Arc::clone(pool))
        })
        .await
}

fn fits(header: &Header, names: &[&Tag]) -> Result<(), Refusal> {
    if names.contains(&&header.snapshot) {
        let error = PoolError::SnapshotExists(header.snapshot.clone());
        return Err(refuse_pool(&error));
    }
    if names.last().copied() == header.base.as_ref() {
        return Ok(());
    }
    let base = header.base.as_ref().map_or("", Tag::as_str);
    let newest = names.last().map_or("none", |name| name.as_str());
    let cure = if newest.starts_with(SCHEDULED_PREFIX) {
        "; turn its schedule off, and roll it back to the base"
    } else {
        "; roll it back to the base, or export since its newest"
    };
    let message = format!(
        "the stream builds on the snapshot `{base}`, but the volume's newest is `{newest}`{cure}"
    );
    Err(Refusal::new(RefusalCode::WrongState, message))
}
