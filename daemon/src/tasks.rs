//! Tasks and threads whose end is noticed.
//!
//! Invariants: a panic anywhere ends the daemon, which is started again and takes over what it left,
//! instead of living on without a part of itself; only what is [`contained`] ends alone. A vital task
//! that returns ends the daemon as well.

use std::{
    cell::Cell,
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::pin,
};

use futures::FutureExt as _;
use tokio::sync::mpsc;

thread_local! {
    /// Whether what runs on this thread just now may panic alone.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic that is not [`contained`] is logged and ends the process as a crash: other
/// threads do not run on with what it left half done.
pub fn end_on_panic() {
    let said = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        // Writes to standard error and ignores that it cannot.
        said(what);
        if CONTAINED.get() {
            return;
        }
        tracing::error!("the daemon ends: {what}");
        std::process::abort();
    }));
}

/// What a task panicked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it panicked: {0}")]
pub struct Panicked(String);

/// Runs what one peer can make fail: a panic in it ends it and nothing else.
///
/// # Errors
/// [`Panicked`].
pub async fn contained<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    let outcome = std::future::poll_fn(|context| {
        let before = CONTAINED.replace(true);
        let polled = work.as_mut().poll(context);
        CONTAINED.set(before);
        polled
    });
    outcome.await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Panicked(text.unwrap_or_else(|| "without a message".to_owned()))
    })
}

/// A task without which the daemon is not whole has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task `{name}`, which never ends, has ended: {why}")]
pub struct Ended {
    /// Which.
    pub name: &'static str,
    /// How.
    pub why: String,
}

/// Makes tasks that must not end while the daemon runs.
#[derive(Debug, Clone)]
pub struct Vital {
    ends: mpsc::UnboundedSender<Ended>,
}

/// Hears of vital tasks' ends.
#[derive(Debug)]
pub struct VitalEnds {
    ends: mpsc::UnboundedReceiver<Ended>,
    /// So that nobody hears "no task is left" for an end.
    _open: mpsc::UnboundedSender<Ended>,
}

impl Vital {
    /// A maker, and who hears of the ends.
    #[must_use]
    pub fn new() -> (Self, VitalEnds) {
        let (ends, received) = mpsc::unbounded_channel();
        let open = ends.clone();
        let ends = Self { ends };
        (
            ends,
            VitalEnds {
                ends: received,
                _open: open,
            },
        )
    }

    /// The future, with its end told. A future that is dropped has not ended.
    pub fn watch(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let ends = self.ends.clone();
        async move {
            let why = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) => "it returned".to_owned(),
                Err(_) => "it panicked".to_owned(),
            };
            // A daemon that stops does not listen any more.
            let _ = ends.send(Ended { name, why });
        }
    }
}

impl VitalEnds {
    /// The first that ended. Waits for ever while all is well. Cancel-safe.
    pub async fn next(&mut self) -> Ended {
        match self.ends.recv().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

/// Polls once.
#[cfg(test)]
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_heard_whatever_ends_it() {
        let (vital, mut ends) = Vital::new();
        let forever = tokio::spawn(vital.watch("forever", std::future::pending()));
        assert!(is_pending(&mut Box::pin(ends.next())).await);
        tokio::spawn(vital.watch("short", async {}));
        assert_eq!(ends.next().await.name, "short");
        tokio::spawn(vital.watch("broken", async { panic!("a defect") }));
        let ended = ends.next().await;
        assert_eq!((ended.name, ended.why.as_str()), ("broken", "it panicked"));
        forever.abort();
        drop(forever.await);
        assert!(
            is_pending(&mut Box::pin(ends.next())).await,
            "it was stopped"
        );
    }

    #[tokio::test]
    async fn a_contained_panic_is_a_value() {
        assert_eq!(contained(async { 7 }).await, Ok(7));
        let failed = contained(async {
            tokio::task::yield_now().await;
            panic!("peer {}", 3)
        });
        assert_eq!(failed.await, Err(Panicked("peer 3".to_owned())));
        assert!(!CONTAINED.get());
    }
}
