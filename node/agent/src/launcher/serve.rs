//! The launcher process itself.
//!
//! Owner: exec'ed by the agent with its socket as standard input. Invariant: one thread, blocking,
//! nothing but forking; a keeper gets its listening socket from here, so that the agent can connect
//! at once.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::DirBuilderExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
};

use super::{KEEPERS_GROUP, LauncherReply, LauncherRequest};
use crate::{
    keeper::{self, KeeperConfig},
    sys::{
        cgroup::{Cgroup, Hierarchies, node_pids},
        fork::{self, ForkOptions},
        mount_table,
        names::SlotName,
        namespaces,
        seccomp::{self, SeccompProgram},
    },
};

/// The hidden subcommand `teu-node launcher`. Must be called before any other thread or a runtime
/// exists.
#[must_use]
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The agent is gone, or sees the socket end; this is for whoever runs it by hand.
            let _ = writeln!(io::stderr(), "teu-node launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut socket = take_socket()?;
    // A terminal's Ctrl-C is for the agent.
    let _ = rustix::process::setsid();
    // No keeper holds on to the directory that the agent happened to be started in.
    std::env::set_current_dir("/")?;
    fork::reap_children_automatically();
    let mut buffer = Vec::new();
    let Some(LauncherRequest::Configure {
        run_dir,
        volumes,
        cgroup_parent,
    }) = receive(&mut socket, &mut buffer)?
    else {
        return Ok(());
    };
    let launcher = match Launcher::new(&run_dir, volumes, &cgroup_parent) {
        Ok(launcher) => launcher,
        Err(error) => return reply(&mut socket, &failed(&error)),
    };
    reply(&mut socket, &LauncherReply::Ready)?;
    while let Some(request) = receive(&mut socket, &mut buffer)? {
        let answer = match request {
            LauncherRequest::Fork { slot } => launcher
                .fork(slot)
                .map_or_else(|error| failed(&error), |pid| LauncherReply::Forked { pid }),
            LauncherRequest::Configure { .. } => LauncherReply::Ready,
        };
        reply(&mut socket, &answer)?;
    }
    Ok(())
}

fn failed(error: &io::Error) -> LauncherReply {
    let mut reason = error.to_string();
    let mut cause = error.get_ref().and_then(|inner| inner.source());
    while let Some(one) = cause {
        reason = format!("{reason}: {one}");
        cause = one.source();
    }
    LauncherReply::Failed { reason }
}

/// Standard input is the agent; keepers and containers must never see it.
fn take_socket() -> io::Result<UnixStream> {
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket.into())
}

fn receive(socket: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<Option<LauncherRequest>> {
    loop {
        if let Some(request) = keeper::take_frame(buffer)? {
            return Ok(Some(request));
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(got) => buffer.extend_from_slice(&chunk[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn reply(socket: &mut UnixStream, answer: &LauncherReply) -> io::Result<()> {
    socket.write_all(&keeper::frame(answer)?)
}

/// What keepers and the makers of containers look at by path, beside the instance's own directories.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A mount namespace that keepers copy: without the host's other mounts, whose file systems would stay busy for as long
/// as a keeper lives, whatever the host unmounts.
fn leave_hosts_mounts(run_dir: &Path, volumes: &Path) -> io::Result<()> {
    namespaces::private_mounts()?;
    let data = volumes.parent().unwrap_or(volumes);
    // The table has no links in it.
    let (run_dir, data) = (real(run_dir), real(data));
    let mut needed: Vec<&Path> = KERNELS.iter().map(Path::new).collect();
    needed.extend([run_dir.as_path(), data.as_path()]);
    mount_table::detach_all_but(&needed)?;
    mount_table::detach_below(volumes)
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

struct Launcher {
    run_dir: PathBuf,
    volumes: PathBuf,
    cgroup_parent: String,
    hierarchies: Hierarchies,
    seccomp: Rc<SeccompProgram>,
}

impl Launcher {
    fn new(run_dir: &Path, volumes: PathBuf, cgroup_parent: &str) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(keeper::socket_dir(run_dir))?;
        leave_hosts_mounts(run_dir, &volumes)?;
        let hierarchies = Hierarchies::detect()?;
        // Children inherit it: no keeper ever waits for a cgroup of its own, and on a systemd host
        // they are not in the agent's service any more.
        let keepers = Cgroup::named(&hierarchies, cgroup_parent, KEEPERS_GROUP);
        keepers
            .create()
            .and_then(|()| keepers.join())
            .map_err(io::Error::other)?;
        let all = Cgroup::named(&hierarchies, "", cgroup_parent);
        if let Err(error) = all.bound_pids(node_pids()) {
            // `doctor` looks at it; each container has a bound of its own all the same.
            let _ = writeln!(
                io::stderr(),
                "teu-node launcher: containers together are not bounded: {}",
                crate::link::chain(&error)
            );
        }
        Ok(Self {
            run_dir: run_dir.to_owned(),
            volumes,
            cgroup_parent: cgroup_parent.to_owned(),
            hierarchies,
            seccomp: Rc::new(seccomp::compile().map_err(io::Error::other)?),
        })
    }

    fn fork(&self, slot: SlotName) -> io::Result<i32> {
        let listener = UnixListener::bind(keeper::socket_path(&self.run_dir, &slot))?;
        let config = KeeperConfig {
            slot,
            run_dir: self.run_dir.clone(),
            volumes: self.volumes.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            hierarchies: self.hierarchies.clone(),
            seccomp: Rc::clone(&self.seccomp),
        };
        fork::fork(ForkOptions::default(), move || {
            // The agent's socket stays open here otherwise, and its end would go unnoticed.
            if fork::close_all_but(&[listener.as_raw_fd()]).is_err() {
                return 1;
            }
            keeper::run(config, listener)
        })
    }
}
