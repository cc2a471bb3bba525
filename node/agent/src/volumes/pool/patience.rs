//! How long a file system may take to answer, and what comes of it if it does not.
//!
//! Owner: one pool. Invariants: whatever may hang in the kernel (on a suspended ZFS pool all does, and no
//! signal ends it) costs its caller one deadline; while it hangs, everything else fails at once, so at most
//! one thread for each caller of that moment is lost, until the pool answers again. What was
//! ended by a signal may hang again, so all else fails at once for a pause.
//! Next: `command.rs`, whose tools wait here.

use std::{
    io,
    os::fd::AsFd,
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::PoolError;

/// How long anything may take that moves no volume's content. A healthy pool takes milliseconds; a loaded
/// disk's commit may take seconds.
const DEADLINE: Duration = Duration::from_mins(1);
/// For how long nothing is tried after something had to be ended.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a killed program may take to be gone.
const DIES_WITHIN: Duration = Duration::from_secs(1);

/// One pool's. Clones share what they know.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    deadline: Duration,
    pause: Duration,
    /// What hangs in the kernel now.
    stuck: Arc<AtomicUsize>,
    /// When something last had to be ended.
    ended: Arc<Mutex<Option<Instant>>>,
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(DEADLINE, PAUSE)
    }
}

impl Patience {
    pub(super) fn of(deadline: Duration, pause: Duration) -> Self {
        Self {
            deadline,
            pause,
            stuck: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Fails if something hangs, or did a moment ago.
    pub(super) fn check(&self) -> Result<(), PoolError> {
        if self.stuck.load(Ordering::Relaxed) > 0 {
            return Err(PoolError::Faulted(
                "an earlier change still hangs in the kernel; is the pool suspended or its disk gone?"
                    .to_owned(),
            ));
        }
        let paused = held(&self.ended).is_some_and(|ended| ended.elapsed() < self.pause);
        if paused {
            return Err(PoolError::Faulted(
                "the pool did not answer a moment ago; it is asked again soon".to_owned(),
            ));
        }
        Ok(())
    }

    /// Waits for a program's end; kills it at the deadline. If it cannot die, a thread waits for it.
    pub(super) fn wait(&self, mut child: Child, line: &str) -> Result<Child, PoolError> {
        if ends_within(&child, self.deadline).unwrap_or(true) {
            return Ok(child);
        }
        let _ = child.kill();
        if ends_within(&child, DIES_WITHIN).unwrap_or(true) {
            let _ = child.wait();
            *held(&self.ended) = Some(Instant::now());
        } else {
            self.stuck.fetch_add(1, Ordering::Relaxed);
            let stuck = Arc::clone(&self.stuck);
            thread::spawn(move || {
                let _ = child.wait();
                stuck.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Err(self.silent(line))
    }

    /// Runs what calls the kernel on a thread of its own, and gives it up at the deadline.
    pub(super) fn call<T: Send + 'static>(
        &self,
        what: &str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        self.check()?;
        let (done, wait) = mpsc::channel();
        let given_up = Arc::new(Mutex::new(false));
        let (theirs, stuck) = (Arc::clone(&given_up), Arc::clone(&self.stuck));
        let named = thread::Builder::new().name("pool-call".to_owned());
        let spawned = named.spawn(move || {
            let result = run();
            // Whoever comes second knows of the other.
            match *held(&theirs) {
                true => drop(stuck.fetch_sub(1, Ordering::Relaxed)),
                false => drop(done.send(result)),
            }
        });
        spawned.map_err(|source| PoolError::Io {
            action: format!("start a thread to {what}"),
            source,
        })?;
        if let Ok(result) = wait.recv_timeout(self.deadline) {
            return Ok(result);
        }
        let mut given_up = held(&given_up);
        match wait.try_recv() {
            Ok(result) => return Ok(result),
            // It panicked, which its own thread has told.
            Err(mpsc::TryRecvError::Disconnected) => {}
            Err(mpsc::TryRecvError::Empty) => {
                *given_up = true;
                self.stuck.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(self.silent(what))
    }

    fn silent(&self, what: &str) -> PoolError {
        PoolError::Faulted(format!(
            "`{what}` did not answer within {} s; is the pool suspended or its disk gone?",
            self.deadline.as_secs()
        ))
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a child ends in time, without reaping it.
fn ends_within(child: &Child, deadline: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(true) };
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::of(Duration::from_millis(200), Duration::from_millis(200))
    }

    fn faulted<T: std::fmt::Debug>(result: Result<T, PoolError>, words: &str) {
        let Err(PoolError::Faulted(why)) = &result else {
            unreachable!("{result:?}")
        };
        assert!(why.contains(words), "{why}");
    }

    #[test]
    fn a_call_that_hangs_costs_one_deadline_until_it_is_done() {
        let patience = patience();
        assert_eq!(patience.call("add", || 1 + 1).unwrap(), 2);
        let (go, wait) = mpsc::channel::<()>();
        let started = Instant::now();
        let hangs = patience.call("wait", move || wait.recv());
        assert!(started.elapsed() >= patience.deadline);
        faulted(hangs, "`wait` did not answer");
        let started = Instant::now();
        for _ in 0..100 {
            faulted(patience.call("add", || 1 + 1), "still hangs");
        }
        assert!(started.elapsed() < patience.deadline, "no further waiting");
        assert_eq!(patience.stuck.load(Ordering::Relaxed), 1);
        drop(go);
        while patience.stuck.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        assert_eq!(patience.call("add", || 1 + 1).unwrap(), 2);
    }

    #[test]
    fn calls_beside_each_other_do_not_take_each_other_for_hanging() {
        let patience = patience();
        let (go, wait) = mpsc::channel();
        let beside = patience.clone();
        let long = thread::spawn(move || beside.call("wait", move || wait.recv()));
        assert_eq!(patience.call("add", || 1 + 1).unwrap(), 2);
        go.send(7).unwrap();
        assert_eq!(long.join().unwrap().unwrap(), Ok(7));
    }

    #[test]
    fn after_a_program_that_had_to_be_killed_there_is_a_pause() {
        let patience = patience();
        let mut sleep = std::process::Command::new("sleep");
        let child = sleep.arg("1000").spawn().unwrap();
        faulted(patience.wait(child, "sleep 1000"), "`sleep 1000` did not");
        faulted(patience.check(), "a moment ago");
        thread::sleep(patience.pause);
        patience.check().unwrap();
    }
}
