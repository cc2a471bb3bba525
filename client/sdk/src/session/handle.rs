//! What everybody else holds of a session: ask, and wait for the answer.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use teu_protocol::{
    ids::RequestId,
    message::{ReplyBody, RequestBody},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

use super::{
    LinkState, StreamAsk,
    command::{AskError, AskResult, Command},
    view::View,
};
use crate::{
    error::{CloseReason, Error, Result},
    stream::Stream,
};

/// First pause before a refused request is asked again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until the answer, whatever happens to the link.
    pub(crate) answer: Duration,
    /// Refusals that may pass are asked again (with the same id) for this long.
    pub(crate) retry: Duration,
}

impl Patience {
    /// What most requests get.
    pub(crate) const USUAL: Self = Self {
        answer: Duration::from_secs(30),
        retry: Duration::from_secs(30),
    };

    /// For requests that do much at the far end: `work` on top of the usual.
    pub(crate) const fn with_work(work: Duration) -> Self {
        let usual = Self::USUAL;
        Self {
            answer: work.saturating_add(usual.answer),
            retry: usual.retry,
        }
    }
}

/// A cheap handle; the session says goodbye when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) link: watch::Receiver<LinkState>,
    pub(super) view: View,
}

impl SessionHandle {
    pub(crate) const fn view(&self) -> &View {
        &self.view
    }

    pub(crate) const fn link_state(&self) -> &watch::Receiver<LinkState> {
        &self.link
    }

    /// Asks, and waits for the answer. Dropped midway, what was asked for may still happen, once.
    pub(crate) async fn request(
        &self,
        attempt: &'static str,
        body: RequestBody,
        patience: Patience,
    ) -> Result<ReplyBody> {
        self.request_with_bulk(attempt, body, Vec::new(), patience)
            .await
    }

    /// As [`SessionHandle::request`], with bytes that travel beside the request.
    pub(crate) async fn request_with_bulk(
        &self,
        attempt: &'static str,
        body: RequestBody,
        bulk: Vec<Bytes>,
        patience: Patience,
    ) -> Result<ReplyBody> {
        let id = RequestId::from_bytes(Uuid::now_v7().into_bytes());
        self.persist(attempt, patience, || {
            let (body, bulk) = (body.clone(), bulk.clone());
            self.ask(|reply| Command::Request {
                id,
                body,
                bulk,
                reply,
            })
        })
        .await
    }

    /// Opens a stream, on whichever connection there is by then.
    pub(crate) async fn open(
        &self,
        attempt: &'static str,
        ask: StreamAsk,
        patience: Patience,
    ) -> Result<(Stream, ReplyBody)> {
        self.persist(attempt, patience, || {
            let ask = ask.clone();
            self.ask(|reply| Command::Open { ask, reply })
        })
        .await
    }

    /// Says goodbye and waits until the location has heard it, briefly.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Asks again while a refusal may pass and there is time.
    async fn persist<T, F>(
        &self,
        attempt: &'static str,
        patience: Patience,
        mut ask: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = AskResult<T>>,
    {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = timeout_at(start + patience.answer, ask())
                .await
                .map_err(|_| Error::Timeout {
                    attempt,
                    waited: patience.answer,
                })?;
            let again = match &outcome {
                Ok(_) | Err(AskError::Closed(_)) => false,
                Err(AskError::Refused(refusal)) => refusal.retryable,
                Err(AskError::LinkLost) => true,
            };
            if !again || start.elapsed() + pause >= patience.retry {
                return outcome.map_err(|error| match error {
                    AskError::Refused(refusal) => Error::Refused { attempt, refusal },
                    AskError::LinkLost => Error::LinkLost { attempt },
                    AskError::Closed(reason) => Error::Closed(reason),
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<AskResult<T>>) -> Command,
    ) -> AskResult<T> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(AskError::Closed(self.close_reason()));
        }
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(AskError::Closed(self.close_reason())),
        }
    }

    /// Why nobody answers any more.
    pub(crate) fn close_reason(&self) -> CloseReason {
        match &*self.link.borrow() {
            LinkState::Closed(reason) => reason.clone(),
            // The task is gone without a word: only when the runtime stops.
            LinkState::Connected
            | LinkState::Unanswered { .. }
            | LinkState::Reconnecting { .. } => CloseReason::Shutdown,
        }
    }
}
