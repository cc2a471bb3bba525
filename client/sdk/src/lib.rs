//! Own a cluster from a program: spawn, wire, watch and destroy containers as ordinary objects.
//!
//! ```no_run
//! # async fn example() -> teu::Result<()> {
//! let location = teu::Location::connect().await?;
//! let web = location.spawn("nginx").await?;
//! let tunnel = web.tunnel(80).await?;
//! println!("http://{}", tunnel.local_addr());
//! web.destroy().await?;
//! # Ok(()) }
//! ```
//!
//! Start at [`Location`]; it hands out [`Container`]s, which hand out [`Process`]es and
//! [`Tunnel`]s, and [`Volume`]s, which outlive them all. All of them are cheap handles on one task that owns the connection: they stay valid when
//! the link is lost and comes back. What a program creates belongs to its session and goes with it:
//! the location sees to that, `Drop` is only a courtesy.
//!
//! Invariants: nothing here knows the master's or the node's code; no function reports success
//! before the location has confirmed it; a slow reader slows its own stream and nobody else.
//! Next: `session` for the connection, `stream` for bulk bytes, `image` for what is uploaded.

mod chosen_tag;
pub mod config;
mod container;
mod error;
mod events;
pub mod image;
mod images;
mod location;
mod logs;
mod process;
mod progress;
mod session;
mod sessions;
mod spawn;
mod stream;
mod tunnel;
mod volume;

pub use container::Container;
pub use error::{CloseReason, ConnectError, Error, Result};
pub use events::{Events, LocationEvent};
pub use images::Images;
pub use location::{Location, LocationBuilder, Session};
pub use logs::{Logs, OutputChunk};
pub use process::{
    CommandOutput, Process, ProcessBuilder, ProcessHandle, ProcessOutput, ProcessSignals, Stdin,
};
pub use progress::{NoProgress, Progress, ProgressEvent};
pub use session::LinkState;
pub use sessions::Sessions;
pub use spawn::{ImageRef, PreBoot, SpawnBuilder};
pub use tunnel::{Connection, Tunnel};
pub use volume::{
    CopyBuilder, ImportBuilder, RollbackBuilder, Volume, VolumeBuilder, VolumeExport,
};

pub use teu_protocol::{
    ids::{
        ContainerId, Digest, NodeId, ParseIdError, ParseKeyError, ParseTagError, ProcessId,
        PublicKey, SessionId, Tag, VolumeId,
    },
    image_config::signal::{Signal, UnknownSignal},
    message::{
        Cause, Channel, ContainerDetail, ContainerInfo, ContainerState, DoctorReport, ExitStatus,
        Finding, ImageInfo, Lifetime, LogStart, NodeCapacity, NodeOffer, NodeState, NodeUsage,
        Offer, ProcessInfo, ProcessState, Refusal, RefusalCode, ResourceLimits, SessionInfo,
        Severity, SnapshotInfo, SnapshotSchedule, TermSize, Termination, VolumeInfo, VolumeMount,
        VolumeOrigin, VolumeSpec, VolumeState, VolumeUsage,
    },
    noise::StaticKey,
};
