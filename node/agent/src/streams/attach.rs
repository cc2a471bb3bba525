//! A reader of a process's output, who may also give it input.
//!
//! ```text
//! log file ──read──▶ Data (within credit) … Close Exited, after the last byte
//! keeper ──LogGrown──▶ progress ──wakes──┘        Data/Eof(Stdin) ──▶ stdin task, Credit back
//! ```
//! Owner: a task for each open stream. Invariants: Close comes after every byte that the log kept;
//! a lossless reader's acknowledgement follows what was sent. The decisions are
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
    ids::ProcessId,
    message::{Channel, Refusal, RefusalCode, StreamEnd},
};
use tokio::sync::{mpsc, watch};

use super::{Outlet, StdinHandle, log_source::LogSource};
use crate::{
    containers::ProcessProgress,
    keeper::{KeeperLink, LogReadError, STDIN_WINDOW},
    link::{Inbound, StreamInlet, chain},
};

/// A stream that is ready to run.
#[derive(Debug)]
pub struct AttachStream {
    source: LogSource,
    follower: Follower,
    progress: watch::Receiver<ProcessProgress>,
    lossless: Option<Lossless>,
}

/// Tells the keeper how far its slowest reader is.
#[derive(Debug)]
struct Lossless {
    link: KeeperLink,
    process: ProcessId,
    follower: u64,
}

/// Opens the log where the reader wants to begin.
///
/// # Errors
/// A log that cannot be read.
pub async fn open(
    attach: &Attach,
    dir: PathBuf,
    mut progress: watch::Receiver<ProcessProgress>,
    keeper: Option<KeeperLink>,
) -> Result<AttachStream, LogReadError> {
    let log = progress.borrow_and_update().log;
    let (process, from) = (attach.process, attach.from);
    let opened = tokio::task::spawn_blocking(move || LogSource::open(&dir, process, from, log.end));
    let source = match opened.await {
        Ok(source) => source?,
        Err(stopped) => {
            let source = std::io::Error::other(stopped);
            return Err(LogReadError::Io { process, source });
        }
    };
    // The node's stream numbers are unique on a link, and a lost link ends all its followers.
    let follower = attach.stream.0;
    let lossless = keeper.filter(|_| attach.lossless && attach.follow);
    let lossless = lossless.map(|link| Lossless {
        link,
        process,
        follower,
    });
    if let Some(lossless) = &lossless {
        lossless.acknowledge(source.cursor()).await;
    }
    let follower = Follower::new(source.cursor(), attach.window, attach.follow, log);
    Ok(AttachStream {
        source,
        follower,
        progress,
        lossless,
    })
}

impl Lossless {
    async fn acknowledge(&self, cursor: u64) {
        // A process that has ended needs no acknowledgement.
        let _ = self
            .link
            .ack(self.process, self.follower, Some(cursor))
            .await;
    }
}

/// Why the stream ends before its time.
enum Stop {
    /// The link is lost, or the peer closed the stream.
    Silent,
    Close(StreamEnd),
}

impl From<LinkError> for Stop {
    fn from(_: LinkError) -> Self {
        Self::Silent
    }
}

impl AttachStream {
    /// Runs until the process has ended and all is sent, or nobody listens any more.
    pub async fn run(mut self, outlet: Outlet, inlet: StreamInlet, stdin: Option<StdinHandle>) {
        let input = stdin.map(|stdin| Input::start(stdin, outlet.clone()));
        let stopped = self.follow(&outlet, inlet, input).await;
        if let Err(Stop::Close(end)) = stopped {
            let _ = outlet.close(end).await;
        }
        if let Some(Lossless {
            link,
            process,
            follower,
        }) = self.lossless
        {
            let _ = link.ack(process, follower, None).await;
        }
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
                    let inbound = inlet.recv().await.ok_or(Stop::Silent)?;
                    self.hear(inbound, &mut input)?;
                }
                FollowStep::WaitForLog => tokio::select! {
                    inbound = inlet.recv() => {
                        self.hear(inbound.ok_or(Stop::Silent)?, &mut input)?;
                    }
                    changed = self.progress.changed() => if changed.is_err() {
                        let gone = "the container is gone, and its output with it";
                        let refusal = Refusal::new(RefusalCode::NotFound, gone);
                        return Err(Stop::Close(StreamEnd::Failed(refusal)));
                    }
                },
            }
        }
    }

    async fn send(&mut self, outlet: &Outlet, max: u64, log_end: u64) -> Result<(), Stop> {
        if self.source.is_empty() {
            self.fill(usize::try_from(max).unwrap_or(usize::MAX))
                .await?;
        }
        let Some(batch) = self.source.take(max) else {
            // The rest was rotated away or never written: a gap that the next cursor shows.
            self.follower.sent(0, log_end);
            return Ok(());
        };
        outlet.data(batch.channel, batch.cursor, batch.bulk).await?;
        self.follower.sent(batch.bytes, batch.cursor);
        if let Some(lossless) = &self.lossless {
            lossless.acknowledge(batch.cursor).await;
        }
        Ok(())
    }

    async fn fill(&mut self, max: usize) -> Result<(), Stop> {
        let (reader, from) = self.source.missing();
        let read = tokio::task::spawn_blocking(move || reader.read(from, max));
        let chunk = read.await.map_err(|_| Stop::Silent)?.map_err(|error| {
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
            Inbound::Close(_) => return Err(Stop::Silent),
            Inbound::Data {
                channel: Channel::Stdin,
                bulk,
            } => {
                if let Some(input) = input {
                    input.take(bulk)?;
                }
            }
            Inbound::Eof(Channel::Stdin) => {
                if let Some(Input { queue, .. }) = input {
                    let _ = queue.send(None);
                }
            }
            Inbound::Data { .. } | Inbound::Eof(_) => {}
        }
        Ok(())
    }
}

/// Input on its way to the process; waits for it without holding up the output.
struct Input {
    /// Bounded by what was granted. `None`: the end.
    queue: mpsc::UnboundedSender<Option<Bytes>>,
    window: Arc<Mutex<ReceiveWindow>>,
}

impl Input {
    fn start(stdin: StdinHandle, outlet: Outlet) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let window = Arc::new(Mutex::new(ReceiveWindow::new(STDIN_WINDOW)));
        tokio::spawn(feed(stdin, outlet, items, Arc::clone(&window)));
        Self { queue, window }
    }

    fn take(&mut self, bulk: Vec<Bytes>) -> Result<(), Stop> {
        for part in bulk.into_iter().filter(|part| !part.is_empty()) {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            if window.received(part.len() as u64).is_err() {
                let message = "more standard input was sent than the node had granted";
                let refusal = Refusal::new(RefusalCode::BadRequest, message);
                return Err(Stop::Close(StreamEnd::Failed(refusal)));
            }
            let _ = self.queue.send(Some(part));
        }
        Ok(())
    }
}

/// Passes input on and grants as much again.
async fn feed(
    stdin: StdinHandle,
    outlet: Outlet,
    mut items: mpsc::UnboundedReceiver<Option<Bytes>>,
    window: Arc<Mutex<ReceiveWindow>>,
) {
    while let Some(item) = items.recv().await {
        let Some(bytes) = item else {
            stdin.end().await;
            continue;
        };
        let length = bytes.len() as u64;
        stdin.put(bytes).await;
        let grant = {
            let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
            window.consumed(length)
        };
        if let Some(grant) = grant {
            // If the link is lost, what was taken is still given to the process.
            let _ = outlet.credit(grant).await;
        }
    }
}
