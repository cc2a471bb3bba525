//! Carries what a keeper tells to the event loop.
//!
//! Owner: a task for each sandbox; it ends with the keeper. Invariant: the end of the first process
//! is told exactly once: by the keeper, by the file that it left, or as its loss.

use teu_node_core::Input;
use teu_node_core::input::ProcessEnd;
use teu_protocol::{ids::ContainerId, message::ExitStatus};
use tokio_util::sync::CancellationToken;

use super::Yard;
use crate::{
    agent::Event,
    keeper::{self, ExitRecord, KeeperEvent, KeeperLink, ProcessExit},
};

/// Starts the task. The token is cancelled once the keeper is gone.
#[must_use]
pub fn watch_keeper(yard: &Yard, container: ContainerId, keeper: &KeeperLink) -> CancellationToken {
    let gone = CancellationToken::new();
    let Some(mut events) = keeper.events() else {
        return gone;
    };
    let (yard, token) = (yard.clone(), gone.clone());
    tokio::spawn(async move {
        let mut exit_told = false;
        while let Some(event) = events.recv().await {
            exit_told |= matches!(
                event,
                KeeperEvent::Exited { process, .. } if process == container.main_process()
            );
            if yard
                .events
                .send(Event::Keeper { container, event })
                .await
                .is_err()
            {
                return;
            }
        }
        // Only now, on every way out: whoever waits for it may then count on the end being told.
        let _gone = token.drop_guard();
        if !exit_told {
            let dir = yard.data.container(container).path().to_owned();
            let read = tokio::task::spawn_blocking(move || ExitRecord::read(&dir)).await;
            let event = match read {
                Ok(Ok(Some(record))) => Event::Keeper {
                    container,
                    event: KeeperEvent::Exited {
                        process: container.main_process(),
                        exit: record.exit,
                        log_end: record.log_end,
                    },
                },
                _ => Event::Core(Input::KeeperLost { container }),
            };
            let _ = yard.events.send(event).await;
        }
    });
    gone
}

/// A keeper's words for an end, in the core's.
pub(crate) fn process_end(exit: ProcessExit) -> ProcessEnd {
    // The kernel's numbers fit in a byte.
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let status = match exit.status {
        keeper::ExitStatus::Code(code) => ExitStatus::Code(byte(code)),
        keeper::ExitStatus::Signal(signal) => ExitStatus::Signal(byte(signal)),
    };
    ProcessEnd {
        status,
        out_of_memory: exit.oom,
        timed_out: exit.timed_out,
    }
}
