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

use std::{io, os::fd::OwnedFd};

use teu_protocol::message::Refusal;
use tokio::sync::oneshot;

use super::pool::PoolFormat;
use crate::containers::refuse_internal;

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
