//! The agent's end of its launcher.
//!
//! Owner: one task owns the socket and the child. Invariant: requests are answered in order; when
//! the launcher has died, every request says so (the agent then starts another: keepers do not
//! depend on it).

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

use super::{LauncherReply, LauncherRequest};
use crate::{
    keeper::{self, KeeperLink, LinkError},
    sys::names::SlotName,
};

/// Forks that wait their turn; each takes about a millisecond.
const FORKS_QUEUED: usize = 256;

/// How to start a launcher.
#[derive(Debug, Clone)]
pub struct LauncherConfig {
    /// The `teu-node` program: `std::env::current_exe()` in the agent.
    pub program: PathBuf,
    /// The instance's run directory; sockets are made in `keepers/` below it.
    pub run_dir: PathBuf,
    /// Where the agent mounts pools and volumes (need not exist): no sandbox keeps those mounts.
    pub volumes: PathBuf,
    /// The instance's cgroup, relative to each hierarchy's root.
    pub cgroup_parent: String,
}

/// Why no keeper came to be.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot start the launcher {program}")]
    Start { program: PathBuf, source: io::Error },
    #[error("the launcher cannot work: {0}")]
    Unusable(String),
    #[error("the launcher cannot fork a keeper for slot {slot}: {reason}")]
    Fork { slot: SlotName, reason: String },
    #[error("the launcher has died")]
    Gone,
    #[error(transparent)]
    Keeper(#[from] LinkError),
}

struct Fork {
    slot: SlotName,
    answer: oneshot::Sender<Result<i32, LaunchError>>,
}

/// A handle to the launcher; cheap to clone. The launcher ends with its last handle.
#[derive(Debug, Clone)]
pub struct LauncherHandle {
    run_dir: PathBuf,
    forks: mpsc::Sender<Fork>,
}

impl LauncherHandle {
    /// Starts a launcher and waits until it can fork.
    ///
    /// # Errors
    /// It cannot be executed, or this host lacks what it needs (cgroups, seccomp).
    pub async fn start(config: LauncherConfig) -> Result<Self, LaunchError> {
        let failed = |source| LaunchError::Start {
            program: config.program.clone(),
            source,
        };
        // The launcher works in `/`.
        let run_dir = std::path::absolute(&config.run_dir).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = theirs.into_std().map_err(failed)?;
        theirs.set_nonblocking(false).map_err(failed)?;
        let child = Command::new(&config.program)
            .arg("launcher")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .kill_on_drop(false)
            .spawn()
            .map_err(failed)?;
        let mut task = LauncherTask {
            child,
            stream: ours,
            incoming: Vec::new(),
        };
        let configure = LauncherRequest::Configure {
            run_dir: run_dir.clone(),
            volumes: as_mounted(&config.volumes).map_err(failed)?,
            cgroup_parent: config.cgroup_parent.clone(),
        };
        match task.ask(&configure).await {
            Ok(LauncherReply::Ready) => {}
            Ok(LauncherReply::Failed { reason }) => return Err(LaunchError::Unusable(reason)),
            Ok(LauncherReply::Forked { .. }) | Err(_) => return Err(LaunchError::Gone),
        }
        let (forks, forks_in) = mpsc::channel(FORKS_QUEUED);
        // Ends with the last handle, which ends the launcher.
        tokio::spawn(task.run(forks_in));
        Ok(Self {
            run_dir: config.run_dir,
            forks,
        })
    }

    /// Forks a keeper and waits until its slot is warm.
    ///
    /// # Errors
    /// The slot's name is taken, or the slot could not be prepared; what there is of it has been
    /// destroyed then.
    pub async fn fork_keeper(&self, slot: &SlotName) -> Result<KeeperLink, LaunchError> {
        let (answer, forked) = oneshot::channel();
        let request = Fork {
            slot: slot.clone(),
            answer,
        };
        self.forks
            .send(request)
            .await
            .map_err(|_| LaunchError::Gone)?;
        forked.await.map_err(|_| LaunchError::Gone)??;
        let path = keeper::socket_path(&self.run_dir, slot);
        let (link, hello) = KeeperLink::connect(&path).await?;
        match hello.broken {
            None => Ok(link),
            Some(reason) => {
                // It waits for nothing else; if it cannot be destroyed, the sweep will.
                let _ = link.destroy().await;
                Err(LinkError::Broken { path, reason }.into())
            }
        }
    }

    /// The run directory that its keepers live in.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }
}

/// The path without links, as the kernel's table of mounts has it.
fn as_mounted(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let whole = std::fs::canonicalize(&path);
    whole.or_else(|_| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(as_mounted(parent)?.join(name)),
        _ => Ok(path.clone()),
    })
}

struct LauncherTask {
    child: Child,
    stream: UnixStream,
    incoming: Vec<u8>,
}

impl LauncherTask {
    async fn run(mut self, mut forks: mpsc::Receiver<Fork>) {
        while let Some(Fork { slot, answer }) = forks.recv().await {
            let outcome = match self
                .ask(&LauncherRequest::Fork { slot: slot.clone() })
                .await
            {
                Ok(LauncherReply::Forked { pid }) => Ok(pid),
                Ok(LauncherReply::Failed { reason }) => Err(LaunchError::Fork { slot, reason }),
                Ok(LauncherReply::Ready) | Err(_) => Err(LaunchError::Gone),
            };
            let over = matches!(outcome, Err(LaunchError::Gone));
            let _ = answer.send(outcome);
            if over {
                break;
            }
        }
        drop(self.stream);
        let _ = self.child.wait().await;
    }

    async fn ask(&mut self, request: &LauncherRequest) -> io::Result<LauncherReply> {
        self.stream.write_all(&keeper::frame(request)?).await?;
        loop {
            if let Some(reply) = keeper::take_frame(&mut self.incoming)? {
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
