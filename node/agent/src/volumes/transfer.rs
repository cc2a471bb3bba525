//! Volumes on their way: exports to the master, imports from it.
//!
//! ```text
//! export: Pool::send ─pipe─▶ Sealer ─▶ Data (as granted) … Eof, Close Done
//! import: Data ─▶ Unsealer ─pipe─▶ Pool::receive ─▶ durable: VolumeDone, Close Done
//! ```
//! Owner: a task for each, and a thread for the pool's blocking side. Invariants: no byte reaches a
//! pool that the envelope has not vouched for; an import that is cut leaves nothing; the end of a
//! stream is sealed only after the pool has said that it wrote all of it.
//! Next: `envelope` for the format, `export`, `import`.

mod envelope;
mod export;
mod import;

pub use envelope::{CHUNK_BYTES, EnvelopeError, Header, Sealer, Unsealer};
pub use export::{Export, export};
pub use import::{Import, import};

use std::{io, os::fd::OwnedFd, time::Duration};

use teu_protocol::message::{Refusal, RefusalCode};
use tokio::sync::oneshot;

use super::pool::PoolFormat;
use crate::{
    containers::refuse_internal,
    link::{Inbound, StreamInlet},
};

/// A client that neither sends nor takes anything for so long is not waited for: a transfer holds one of a few
/// places on the node.
const CLIENT_WITHIN: Duration = Duration::from_secs(300);

/// What the client says next; only for when nothing can be done before that. `None`: it is gone.
async fn from_client(inlet: &mut StreamInlet) -> Result<Option<Inbound>, Refusal> {
    let inbound = tokio::time::timeout(CLIENT_WITHIN, inlet.recv()).await;
    inbound.map_err(|_| {
        Refusal::new(
            RefusalCode::Unavailable,
            "the stream stood still for five minutes and was given up; begin it again",
        )
    })
}

/// What a pool's stream is called in an envelope.
const fn format_name(format: PoolFormat) -> &'static str {
    match format {
        PoolFormat::Btrfs => "btrfs",
        PoolFormat::Zfs => "zfs",
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Runs what blocks for as long as a stream takes: not on the runtime's few blocking threads.
fn on_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Refusal> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread
        .spawn(move || drop(answer.send(work())))
        .map_err(|error| refuse_internal("the stream cannot be started", &error))?;
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stands_still_is_given_up() {
        let (sender, mut inlet) = mpsc::unbounded_channel();
        sender.send(Inbound::Credit(1)).unwrap();
        let heard = from_client(&mut inlet).await;
        assert!(matches!(heard, Ok(Some(Inbound::Credit(1)))));
        let started = Instant::now();
        let refused = from_client(&mut inlet).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::Unavailable);
        assert_eq!(started.elapsed().as_secs(), CLIENT_WITHIN.as_secs());
        drop(sender);
        assert!(matches!(from_client(&mut inlet).await, Ok(None)));
    }
}
