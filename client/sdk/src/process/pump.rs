//! The task that deals output to the handles of its channels.

use std::sync::Arc;

use teu_protocol::message::{Channel, StreamEnd};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{
    attached::{AttachedReader, Item},
    output::{Dealt, ProcessOutput},
};
use crate::error::{CloseReason, Error, Result};

/// The pump of one process. It begins when the first handle is read, so that all that are wanted
/// can be taken before.
#[derive(Debug)]
pub(super) struct Pump {
    task: Arc<PumpTask>,
    takers: mpsc::UnboundedSender<Taker>,
    stdout_taken: bool,
    stderr_taken: bool,
    end: Option<oneshot::Receiver<Result<StreamEnd>>>,
}

/// Who gets a channel's bytes. (Unbounded: the stream's window bounds what is in it.)
type Taker = (Channel, mpsc::UnboundedSender<Dealt>);

/// Ends the task when nobody needs it.
#[derive(Debug)]
pub(super) struct PumpTask {
    begin: watch::Sender<bool>,
    abort: AbortHandle,
}

impl Drop for PumpTask {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl PumpTask {
    /// Lets the task begin, if it has not.
    pub(super) fn begin(&self) {
        self.begin.send_replace(true);
    }
}

impl Pump {
    pub(super) fn start(reader: AttachedReader) -> Self {
        let (takers, taken) = mpsc::unbounded_channel();
        let (ended, end) = oneshot::channel();
        let (begin, mut begun) = watch::channel(false);
        let running = tokio::spawn(async move {
            if begun.wait_for(|begun| *begun).await.is_ok() {
                run(reader, taken, ended).await;
            }
        });
        let task = Arc::new(PumpTask {
            begin,
            abort: running.abort_handle(),
        });
        Self {
            task,
            takers,
            stdout_taken: false,
            stderr_taken: false,
            end: Some(end),
        }
    }

    pub(super) const fn task(&self) -> &Arc<PumpTask> {
        &self.task
    }

    pub(super) fn begin(&self) {
        self.task.begin();
    }

    /// The handle of a channel; `None` if it was taken before.
    pub(super) fn take(&mut self, channel: Channel) -> Option<ProcessOutput> {
        let taken = match channel {
            Channel::Stdout => &mut self.stdout_taken,
            Channel::Stderr => &mut self.stderr_taken,
            Channel::Main | Channel::Stdin => return None,
        };
        if std::mem::replace(taken, true) {
            return None;
        }
        let (deal, dealt) = mpsc::unbounded_channel();
        self.takers.send((channel, deal)).ok()?;
        Some(ProcessOutput::new(dealt, Arc::clone(&self.task)))
    }

    /// How the output ended. Cancel-safe; may be asked until it has answered.
    pub(super) async fn wait(&mut self) -> Result<StreamEnd> {
        self.begin();
        let Some(end) = &mut self.end else {
            return Err(Error::Closed(CloseReason::Shutdown));
        };
        let outcome = end.await;
        self.end = None;
        outcome.unwrap_or(Err(Error::Closed(CloseReason::Shutdown)))
    }
}

async fn run(
    mut reader: AttachedReader,
    mut takers: mpsc::UnboundedReceiver<Taker>,
    ended: oneshot::Sender<Result<StreamEnd>>,
) {
    // Who comes now comes too late.
    takers.close();
    let (mut stdout, mut stderr) = (None, None);
    while let Ok((channel, deal)) = takers.try_recv() {
        match channel {
            Channel::Stderr => stderr = Some(deal),
            _ => stdout = Some(deal),
        }
    }
    let outcome = loop {
        match reader.next().await {
            Ok(Item::Data(chunk)) => {
                let to = if chunk.channel == Channel::Stderr {
                    &stderr
                } else {
                    &stdout
                };
                if let Some(deal) = to {
                    // A handle that was dropped: its bytes are dropped too.
                    let _ = deal.send(Dealt::Data(chunk));
                }
            }
            Ok(Item::Lost(bytes)) => {
                for deal in [&stdout, &stderr].into_iter().flatten() {
                    let _ = deal.send(Dealt::Lost(bytes));
                }
            }
            Ok(Item::End(end)) => break Ok(end),
            Err(error) => break Err(error),
        }
    };
    let last = || match &outcome {
        Ok(StreamEnd::Exited(_)) => Dealt::End,
        Ok(_) => Dealt::Failed("the output ended without an exit status".to_owned()),
        Err(error) => Dealt::Failed(error.to_string()),
    };
    for deal in [stdout, stderr].into_iter().flatten() {
        let _ = deal.send(last());
    }
    let _ = ended.send(outcome);
}
