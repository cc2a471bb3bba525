//! A reader of a process's output, who may also give it input.
//!
//! ```text
//! log file ──read──▶ Data (within credit) … Close Exited, after the last byte
//! keeper ──LogGrown──▶ progress ──wakes──┘        Data/Eof(Stdin) ──▶ feeding task, Credit back
//! ```
//! Owner: a task for each open stream. Invariants: Close comes after every byte that was kept, and a
//! gap is told; a client's place is where the client stands, not what was sent to it; it is released when
//! the client closes the stream, never because a link is lost. The decisions are
//! `teu_node_core::stream::Follower`'s. Next: `log_source`, `stdin`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use teu_link::LinkError;
use teu_node_core::{
    effect::Attach,
    stream::{FollowStep, Follower},
};
use teu_protocol::{
    flow::ReceiveWindow,
    ids::{ProcessId, ReaderId},
    message::{Channel, LogStart, Place, Refusal, RefusalCode, StreamEnd},
};
use tokio::sync::{mpsc, watch};

use super::{
    Outlet,
    log_source::LogSource,
    stdin::{FeedError, Feeder},
};
use crate::{
    containers::ProcessProgress,
    keeper::{
        KeeperLink, LogReadError, PlaceAsk, Refusal as KeeperRefusal, STDIN_WINDOW, StartError,
    },
    link::{Inbound, StreamInlet, chain},
};

/// A stream that is ready to run.
#[derive(Debug)]
pub struct AttachStream {
    source: LogSource,
    follower: Follower,
    progress: watch::Receiver<ProcessProgress>,
    process: ProcessId,
    keeper: Option<KeeperLink>,
    held: Option<Held>,
    /// Forward input; it begins with this byte of the client's.
    input: Option<Option<PlaceAsk>>,
    /// How much of the client's input the keeper has; `None`: that is not known.
    pub has_input: Option<u64>,
}

/// The client's place.
#[derive(Debug)]
struct Held {
    link: KeeperLink,
    place: PlaceAsk,
    /// The process waits for it; else it only counts input.
    waits: bool,
    told: u64,
}

/// Why a stream is not opened.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// The keeper says no.
    #[error(transparent)]
    Keeper(#[from] KeeperRefusal),
}

/// Takes the client's place over, and opens the log where the client stands.
///
/// # Errors
/// See [`AttachError`].
pub async fn open(
    attach: &Attach,
    dir: PathBuf,
    mut progress: watch::Receiver<ProcessProgress>,
    keeper: Option<KeeperLink>,
) -> Result<AttachStream, AttachError> {
    let (process, from) = (attach.process, attach.from);
    let has_place = attach.follow && (attach.lossless || attach.place.is_some());
    let held = keeper.clone().filter(|_| has_place);
    let mut held = held.map(|link| Held {
        link,
        place: place_of(attach),
        waits: attach.lossless,
        told: 0,
    });
    let mut has_input = None;
    if let Some(held) = &mut held {
        // First the place, then the look at what is kept: so nothing goes in between.
        let cursor = match from {
            LogStart::Oldest | LogStart::Tail(_) => 0,
            LogStart::Now => u64::MAX,
            LogStart::Cursor(cursor) => cursor,
        };
        has_input = held.stand(cursor).await?;
    }
    let log = progress.borrow_and_update().log;
    let opened = tokio::task::spawn_blocking(move || LogSource::open(&dir, process, from, log.end));
    let source = match opened.await {
        Ok(source) => source?,
        Err(stopped) => {
            let source = std::io::Error::other(stopped);
            return Err(LogReadError::Io { process, source }.into());
        }
    };
    if let Some(held) = &mut held {
        held.stand(source.cursor()).await?;
    }
    let follower = Follower::new(source.cursor(), attach.window, attach.follow, log);
    let place = held.as_ref().map(|held| held.place);
    Ok(AttachStream {
        source,
        follower,
        progress,
        process,
        keeper,
        held,
        input: attach
            .input
            .then_some(place.filter(|_| attach.place.is_some())),
        has_input: has_input.filter(|_| attach.place.is_some()),
    })
}

/// A client that names no place has one of its stream's, which ends with the agent.
fn place_of(attach: &Attach) -> PlaceAsk {
    let (place, owner) = match attach.place {
        Some(place) => (place, attach.owner),
        None => {
            let mut reader = [0; 16];
            reader[..8].copy_from_slice(&attach.stream.0.to_le_bytes());
            reader[8..].copy_from_slice(&crate::agent::unix_ms().to_le_bytes());
            let place = Place {
                reader: ReaderId::from_bytes(reader),
                generation: 0,
            };
            (place, None)
        }
    };
    PlaceAsk {
        process: attach.process,
        place,
        owner,
    }
}

impl Held {
    /// The client has everything before `cursor`. Tells how much of its input the keeper has.
    async fn stand(&mut self, cursor: u64) -> Result<Option<u64>, KeeperRefusal> {
        self.told = cursor;
        let cursor = self.waits.then_some(cursor);
        match self.link.place(&self.place, cursor).await {
            Ok(input) => Ok(input),
            // A process that has ended waits for nobody; its output is in its log.
            Err(StartError::Link(_) | StartError::Refused(KeeperRefusal::NoSuchProcess)) => {
                Ok(None)
            }
            Err(StartError::Refused(refusal)) => Err(refusal),
        }
    }
}

/// Why the stream ends before its time.
enum Stop {
    /// The link is lost, on whichever side of the master: the client may come back.
    Lost,
    /// The client closed the stream.
    Left,
    Close(StreamEnd),
}

impl From<LinkError> for Stop {
    fn from(_: LinkError) -> Self {
        Self::Lost
    }
}

impl From<KeeperRefusal> for Stop {
    fn from(refusal: KeeperRefusal) -> Self {
        let message = format!("the output is not sent on: {refusal}");
        Self::Close(StreamEnd::Failed(Refusal::new(
            RefusalCode::WrongState,
            message,
        )))
    }
}

impl AttachStream {
    /// Runs until the process has ended and all is sent, or nobody listens any more.
    pub async fn run(mut self, outlet: Outlet, inlet: StreamInlet) {
        let input = self.start_input(&outlet);
        let stopped = self.follow(&outlet, inlet, input).await;
        let lost = matches!(stopped, Err(Stop::Lost));
        if let Err(Stop::Close(end)) = stopped {
            let _ = outlet.close(end).await;
        }
        if let Some(held) = self.held
            && !(lost && held.place.owner.is_some())
        {
            let _ = held.link.release(&held.place).await;
        }
    }

    /// It does not begin: the reply that opens it did not leave.
    pub async fn abandon(self) {
        if let Some(held) = self.held
            && held.place.owner.is_none()
        {
            let _ = held.link.release(&held.place).await;
        }
    }

    fn start_input(&mut self, outlet: &Outlet) -> Option<Input> {
        let feeder = Feeder {
            link: self.keeper.clone()?,
            process: self.process,
            place: self.input.take()?,
            progress: self.progress.clone(),
        };
        Some(Input::start(feeder, outlet.clone()))
    }

    async fn follow(
        &mut self,
        outlet: &Outlet,
        mut inlet: StreamInlet,
        mut input: Option<Input>,
    ) -> Result<std::convert::Infallible, Stop> {
        loop {
            let log = self.progress.borrow_and_update().log;
            match self.follower.step(log) {
                FollowStep::Close(end) => return Err(Stop::Close(end)),
                FollowStep::Read { max } => {
                    self.send(outlet, max, log.end).await?;
                    while let Ok(inbound) = inlet.try_recv() {
                        self.hear(inbound, &mut input)?;
                    }
                }
                FollowStep::WaitForCredit => {
                    let inbound = inlet.recv().await.ok_or(Stop::Lost)?;
                    self.hear(inbound, &mut input)?;
                }
                FollowStep::WaitForLog => tokio::select! {
                    inbound = inlet.recv() => {
                        self.hear(inbound.ok_or(Stop::Lost)?, &mut input)?;
                    }
                    changed = self.progress.changed() => if changed.is_err() {
                        let gone = "the container is gone, and its output with it";
                        let refusal = Refusal::new(RefusalCode::NotFound, gone);
                        return Err(Stop::Close(StreamEnd::Failed(refusal)));
                    }
                },
            }
            self.stand().await?;
        }
    }

    /// Tells the keeper where the client stands.
    async fn stand(&mut self) -> Result<(), Stop> {
        let cursor = self.follower.acknowledged();
        if let Some(held) = &mut self.held
            && held.waits
            && cursor != held.told
        {
            held.stand(cursor).await?;
        }
        Ok(())
    }

    async fn send(&mut self, outlet: &Outlet, max: u64, log_end: u64) -> Result<(), Stop> {
        if self.source.is_empty() {
            self.fill(usize::try_from(max).unwrap_or(usize::MAX), log_end)
                .await?;
        }
        let Some(batch) = self.source.take(max) else {
            // The rest is nowhere: a gap without anything behind it, which an empty message tells.
            self.source.give_up(log_end);
            let ends = (log_end, log_end);
            outlet.output(Channel::Stdout, ends, Vec::new()).await?;
            self.follower.sent(0, log_end);
            return Ok(());
        };
        let ends = (batch.from, batch.cursor);
        outlet.output(batch.channel, ends, batch.bulk).await?;
        self.follower.sent(batch.bytes, batch.cursor);
        Ok(())
    }

    /// Reads on: the log, and what the keeper could not write to it.
    async fn fill(&mut self, max: usize, log_end: u64) -> Result<(), Stop> {
        self.read(max).await?;
        let cursor = self.source.cursor();
        if !self.source.is_empty() || cursor >= log_end {
            return Ok(());
        }
        if let Some(keeper) = &self.keeper {
            let kept = keeper.unwritten(self.process, cursor).await;
            self.source.add_unwritten(kept.unwrap_or_default());
        }
        if self.source.is_empty() {
            // It may have been written just before the keeper was asked.
            self.read(max).await?;
        }
        Ok(())
    }

    async fn read(&mut self, max: usize) -> Result<(), Stop> {
        let (reader, from) = self.source.missing();
        let read = tokio::task::spawn_blocking(move || reader.read(from, max));
        let chunk = read.await.map_err(|_| Stop::Lost)?.map_err(|error| {
            let message = format!("the process's output cannot be read: {}", chain(&error));
            Stop::Close(StreamEnd::Failed(Refusal::new(
                RefusalCode::Internal,
                message,
            )))
        })?;
        self.source.add(chunk);
        Ok(())
    }

    fn hear(&mut self, inbound: Inbound, input: &mut Option<Input>) -> Result<(), Stop> {
        match inbound {
            Inbound::Credit(bytes) => self.follower.grant(bytes),
            // The client leaves; any other end is the master's word that it may come back.
            Inbound::Close(StreamEnd::Done | StreamEnd::Reset) => return Err(Stop::Left),
            Inbound::Close(_) => return Err(Stop::Lost),
            Inbound::Data {
                channel: Channel::Stdin,
                cursor,
                bulk,
            } => {
                if let Some(input) = input {
                    input.take(cursor, bulk)?;
                }
            }
            Inbound::Eof(Channel::Stdin, cursor) => {
                if let Some(Input { queue, .. }) = input {
                    let _ = queue.send((cursor, None));
                }
            }
            Inbound::Data { .. } | Inbound::Eof(..) => {}
        }
        Ok(())
    }
}

/// Input on its way to the process; waits for it without holding up the output.
struct Input {
    /// Bounded by what was granted. Where it begins, and the bytes; `None`: the end.
    queue: mpsc::UnboundedSender<(u64, Option<Bytes>)>,
    window: Arc<Mutex<ReceiveWindow>>,
}

impl Input {
    fn start(feeder: Feeder, outlet: Outlet) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let window = Arc::new(Mutex::new(ReceiveWindow::new(STDIN_WINDOW)));
        tokio::spawn(feed(feeder, outlet, items, Arc::clone(&window)));
        Self { queue, window }
    }

    fn take(&mut self, mut cursor: u64, bulk: Vec<Bytes>) -> Result<(), Stop> {
        for part in bulk.into_iter().filter(|part| !part.is_empty()) {
            let length = part.len() as u64;
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            if window.received(length).is_err() {
                let message = "more standard input was sent than the node had granted";
                let refusal = Refusal::new(RefusalCode::BadRequest, message);
                return Err(Stop::Close(StreamEnd::Failed(refusal)));
            }
            let _ = self.queue.send((cursor, Some(part)));
            cursor = cursor.saturating_add(length);
        }
        Ok(())
    }
}

/// Passes input on and grants as much again: what was granted, the keeper has.
async fn feed(
    mut feeder: Feeder,
    outlet: Outlet,
    mut items: mpsc::UnboundedReceiver<(u64, Option<Bytes>)>,
    window: Arc<Mutex<ReceiveWindow>>,
) {
    while let Some((offset, item)) = items.recv().await {
        let length = item.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let given = match item {
            Some(bytes) => feeder.give(offset, bytes).await,
            None => feeder.end(offset).await,
        };
        match given {
            Ok(()) => {}
            Err(FeedError::Superseded) => return,
            Err(FeedError::Missing { expected, offset }) => {
                let message = format!(
                    "standard input is missing: byte {offset} came where byte {expected} was due"
                );
                let refusal = Refusal::new(RefusalCode::BadRequest, message);
                let _ = outlet.close(StreamEnd::Failed(refusal)).await;
                return;
            }
        }
        let grant = {
            let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
            window.consumed(length)
        };
        if let Some(grant) = grant {
            let _ = outlet.credit(grant).await;
        }
    }
}
