//! The bound on what waits to be sent, in bytes.
//!
//! A message takes its share before it is queued and gives it back when the system has it: so a slow
//! peer slows its senders, and nobody else.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::LinkError;

/// Bytes that may wait in a link: enough to keep a fast network busy while the writer works, little
/// enough that a control message queued behind them waits some milliseconds.
pub(crate) const BUDGET_BYTES: usize = 1024 * 1024;

/// What a message costs beyond its content, so that the number of waiting messages is bounded too.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// The budget of one link.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
}

/// A message's share of the budget.
#[derive(Debug)]
pub(crate) struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(BUDGET_BYTES)),
        }
    }

    /// Waits until there is room for a message of this size. One larger than the whole budget waits
    /// until it is alone.
    pub(crate) async fn take(&self, content_bytes: usize) -> Result<Share, LinkError> {
        let permit = Arc::clone(&self.bytes).acquire_many_owned(cost(content_bytes));
        let permit = permit.await.map_err(|_| LinkError::Closed)?;
        Ok(Share {
            _permit: Some(permit),
        })
    }

    /// A share if there is room now: for answers to a peer that is not known to be the location.
    pub(crate) fn try_take(&self, content_bytes: usize) -> Option<Share> {
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(cost(content_bytes));
        Some(Share {
            _permit: Some(permit.ok()?),
        })
    }

    /// A share of nothing: for heartbeats, which must not wait.
    pub(crate) const fn exempt() -> Share {
        Share { _permit: None }
    }

    /// Waits until nothing waits to be sent. `false` if the link ended before.
    pub(crate) async fn drained(&self) -> bool {
        let all = u32::try_from(BUDGET_BYTES).unwrap_or(u32::MAX);
        self.bytes.acquire_many(all).await.is_ok()
    }

    /// Ends the waiting of every sender, now and later.
    pub(crate) fn close(&self) {
        self.bytes.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.bytes.is_closed()
    }
}

fn cost(content_bytes: usize) -> u32 {
    let cost = content_bytes
        .saturating_add(MESSAGE_OVERHEAD_BYTES)
        .min(BUDGET_BYTES);
    u32::try_from(cost).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;

    #[test]
    fn room_comes_back_when_a_share_is_dropped() {
        let budget = Budget::new();
        let share = budget.take(BUDGET_BYTES).now_or_never().unwrap().unwrap();
        assert!(budget.take(1).now_or_never().is_none());
        assert!(budget.try_take(1).is_none());
        drop(share);
        assert!(budget.try_take(1).is_some());
        assert!(budget.take(1).now_or_never().is_some());
    }

    #[test]
    fn a_message_larger_than_the_budget_is_still_sent() {
        let budget = Budget::new();
        assert!(
            budget
                .take(100 * BUDGET_BYTES)
                .now_or_never()
                .unwrap()
                .is_ok()
        );
        assert!(budget.drained().now_or_never().unwrap());
    }

    #[test]
    fn closing_wakes_who_waits() {
        let budget = Budget::new();
        let _all = budget.take(BUDGET_BYTES).now_or_never().unwrap().unwrap();
        let mut waiting = Box::pin(budget.take(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        budget.close();
        assert!(waiting.now_or_never().unwrap().is_err());
        assert!(!budget.drained().now_or_never().unwrap());
    }
}
