//! Ctrl-C and SIGTERM, as something that several waiters can wait for.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The exit code after Ctrl-C (docs/errors.md).
pub(crate) const INTERRUPTED: u8 = 130;

/// Which signal came, and how many came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// The newest; `None` before the first.
    pub(crate) signal: Option<teu::Signal>,
    /// How many came.
    pub(crate) count: u32,
}

impl Seen {
    /// Whether a person has pressed Ctrl-C for the first time, and may wonder whether that did anything.
    pub(crate) fn is_first_interrupt(self) -> bool {
        self.count == 1 && self.signal == Some(teu::Signal::INT)
    }
}

/// Listens for SIGINT, SIGTERM and SIGHUP from now on.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts(watch::Receiver<Seen>);

impl Interrupts {
    /// How long the program may take after the first signal.
    pub(crate) const GRACE: Duration = Duration::from_secs(10);

    pub(crate) fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, receiver) = watch::channel(Seen::default());
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = interrupt.recv() => teu::Signal::INT,
                    _ = terminate.recv() => teu::Signal::TERM,
                    _ = hangup.recv() => teu::Signal::HUP,
                    () = sender.closed() => return,
                };
                sender.send_modify(|seen| {
                    *seen = Seen {
                        signal: Some(signal),
                        count: seen.count + 1,
                    };
                });
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the next signal; never returns if none comes.
    pub(crate) async fn next(&mut self) -> Seen {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.0.borrow_and_update()
    }

    /// Waits for any signal.
    pub(crate) async fn first(mut self) {
        self.next().await;
    }
}
