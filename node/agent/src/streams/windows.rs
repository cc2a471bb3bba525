//! What the node promises to the tunnels that it carries.
//!
//! Owner: the agent has one [`TunnelWindows`], each tunnel's task one [`TunnelWindow`]. Invariant: all
//! that clients may send to containers that do not read is bounded: [`TUNNELS`] times
//! [`TUNNEL_WINDOW_BYTES`] and [`GROWTH_BYTES`]. The master's bound on what waits for a node follows it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use teu_protocol::{
    flow::{GROWN_WINDOW_BYTES, GrowingWindow, Growth, Overrun},
    message::{Refusal, RefusalCode},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Connections into containers at the same time: four clients with all streams that a client may have.
const TUNNELS: usize = 4_096;

/// What each of them is promised from the start: most send questions and read answers.
const TUNNEL_WINDOW_BYTES: u64 = 32 * 1024;

/// What those that are fast may have beyond that, together.
const GROWTH_BYTES: u64 = 64 * 1024 * 1024;

/// The node's budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TunnelWindows {
    places: Arc<Semaphore>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    growth: Mutex<Growth>,
    began: Instant,
}

impl Budget {
    fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TunnelWindows {
    /// A budget of which nothing is taken.
    #[must_use]
    pub fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(TUNNELS)),
            budget: Arc::new(Budget {
                growth: Mutex::new(Growth::new(GROWTH_BYTES)),
                began: Instant::now(),
            }),
        }
    }

    /// The window of one more tunnel.
    ///
    /// # Errors
    /// If there are as many as the node carries.
    pub fn open(&self) -> Result<TunnelWindow, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!(
                "the node carries {TUNNELS} connections into containers, which is the most; close some"
            );
            Refusal::new(RefusalCode::LimitReached, message)
        })?;
        let now = self.budget.began.elapsed();
        Ok(TunnelWindow {
            window: GrowingWindow::new(TUNNEL_WINDOW_BYTES, GROWN_WINDOW_BYTES, now),
            budget: Arc::clone(&self.budget),
            _place: place,
        })
    }
}

impl Default for TunnelWindows {
    fn default() -> Self {
        Self::new()
    }
}

/// One tunnel's window towards its container.
#[derive(Debug)]
pub struct TunnelWindow {
    window: GrowingWindow,
    budget: Arc<Budget>,
    _place: OwnedSemaphorePermit,
}

impl TunnelWindow {
    /// What is promised now, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.window.size()
    }

    /// Bytes came.
    ///
    /// # Errors
    /// If they were not granted.
    pub const fn received(&mut self, bytes: u64) -> Result<(), Overrun> {
        self.window.received(bytes)
    }

    /// The container took them. `Some`: grant this much now.
    pub fn consumed(&mut self, bytes: u64) -> Option<u64> {
        let now = self.budget.began.elapsed();
        self.window.consumed(bytes, now, &mut self.budget.growth())
    }
}

impl Drop for TunnelWindow {
    fn drop(&mut self) {
        self.window.end(&mut self.budget.growth());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_node_carries_are_open_at_once_and_one_more_is_told_so() {
        let windows = TunnelWindows::new();
        let mut open: Vec<_> = (0..TUNNELS).map(|_| windows.open().unwrap()).collect();
        let promised: u64 = open.iter().map(TunnelWindow::size).sum();
        assert_eq!(promised, TUNNELS as u64 * TUNNEL_WINDOW_BYTES);
        assert_eq!(windows.open().unwrap_err().code, RefusalCode::LimitReached);
        open.pop();
        windows.open().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_ends_gives_its_growth_back() {
        let windows = TunnelWindows::new();
        let mut fast = windows.open().unwrap();
        let mut credit = fast.size();
        for _ in 0..100 {
            fast.received(credit).unwrap();
            credit = fast.consumed(credit).unwrap();
        }
        assert_eq!(fast.size(), GROWN_WINDOW_BYTES);
        drop(fast);
        assert_eq!(windows.budget.growth().left(), GROWTH_BYTES);
    }
}
