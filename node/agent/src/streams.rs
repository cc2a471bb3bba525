//! Streams between the master and a container: TCP connections, processes' output and input.
//!
//! Owner: each stream is a task, started once the reply that opens it has left. Invariants: no more
//! is sent than was granted; what comes beyond our grant ends the stream; a stream ends with Close,
//! or with its link. Next: `tunnel`, `attach`, `windows`.

mod attach;
mod log_source;
mod outlet;
mod stdin;
mod tunnel;
mod windows;

pub use attach::{AttachError, AttachStream, open as open_attach};
pub use outlet::Outlet;
pub use tunnel::run as run_tunnel;
pub use windows::{TunnelWindow, TunnelWindows};
