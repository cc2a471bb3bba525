//! The last steps of a container's process, inside the container, just before its program: the same
//! for the first one and for further ones.
//!
//! Owner: the new process itself, which begins as the container's root (libcontainer or the tenant made
//! it so) and becomes its own user. Invariants: it ends in the program or in a report of why not; no
//! path of the container is walked before every descriptor but the standard streams and the report's
//! is closed, for `/proc` leads from a descriptor to wherever it was opened.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use teu_protocol::image_config::user::{self, Identity};

use super::{
    plan::{ProcessPlan, TerminalSize},
    report::Report,
    stub::failed,
    wire::{Refusal, StartStep},
};
use crate::sys::{
    credentials, fork, init, open_in_root::open_in_root, pty, rootfs::Root, seccomp::SeccompProgram,
};

/// Where programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest passwd or group file that is read.
const USER_FILE_MAX: u64 = 1 << 20;
/// Linux's number of the null device (Documentation/admin-guide/devices.txt).
const NULL_DEVICE: u64 = libc::makedev(1, 3);
/// What a program starts with, as in Docker.
const UMASK: u32 = 0o022;

/// The container's ends of the pipes.
#[derive(Debug, Clone)]
pub(super) struct ChildStdio {
    pub stdin: Rc<OwnedFd>,
    pub stdout: Rc<OwnedFd>,
    pub stderr: Rc<OwnedFd>,
}

impl ChildStdio {
    /// Whose the pipes are; their owner can open `/dev/stdout`.
    pub(super) fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        for fd in [&self.stdin, &self.stdout, &self.stderr] {
            rustix::fs::fchown(&**fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    pub(super) fn descriptors(&self) -> [i32; 3] {
        [&self.stdin, &self.stdout, &self.stderr].map(|fd| fd.as_raw_fd())
    }
}

/// All that the last steps need; copied over forks.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// As the plan names it.
    user: String,
    cwd: PathBuf,
    tty: Option<TerminalSize>,
    open_stdin: bool,
    init: bool,
    stdio: ChildStdio,
    report: Rc<OwnedFd>,
    seccomp: Rc<SeccompProgram>,
}

impl Payload {
    pub(super) fn new(
        plan: &ProcessPlan,
        hostname: &str,
        stdio: ChildStdio,
        report: Rc<OwnedFd>,
        seccomp: Rc<SeccompProgram>,
    ) -> Self {
        let mut env = plan.env.clone();
        let mut add = |name: &str, value: &str| {
            if !env.iter().any(|(have, _)| have == name) {
                env.push((name.to_owned(), value.to_owned()));
            }
        };
        add("PATH", DEFAULT_PATH);
        add("HOSTNAME", hostname);
        if plan.tty.is_some() {
            add("TERM", "xterm");
        }
        Self {
            args: plan.args.clone(),
            env,
            user: plan.user.clone(),
            cwd: plan.cwd.clone(),
            tty: plan.tty,
            open_stdin: plan.open_stdin,
            init: plan.init,
            stdio,
            report,
            seccomp,
        }
    }

    /// The descriptors that the last steps need.
    pub(super) fn descriptors(&self) -> [i32; 4] {
        let [stdin, stdout, stderr] = self.stdio.descriptors();
        [stdin, stdout, stderr, self.report.as_raw_fd()]
    }

    /// Becomes the program, or reports why not and ends.
    pub(super) fn execute(mut self) -> ! {
        let refusal = match self.prepare() {
            Ok(()) => match self.init.then(init::stand_in_front) {
                None | Some(Ok(())) => self.exec(),
                Some(Err(error)) => failed(StartStep::Execute)(error),
            },
            Err(refusal) => refusal,
        };
        let _ = Report::Failed(refusal).send(&*self.report, None);
        fork::exit_now(1)
    }

    fn prepare(&mut self) -> Result<(), Refusal> {
        let execute = StartStep::Execute;
        fork::reset_signals();
        self.take_streams().map_err(failed(execute))?;
        rustix::process::umask(Mode::from_raw_mode(UMASK));
        let identity = self.enter()?;
        self.set_home(&identity);
        credentials::become_user(&identity).map_err(failed(StartStep::BecomeUser))?;
        // If the keeper dies, so does what it watches over: nobody would reap or log it. The kernel
        // forgets this when ids change.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(failed(execute))?;
        match self.tty {
            Some(size) => self
                .open_terminal(size)
                .map_err(failed(StartStep::MakeTerminal))?,
            None if !self.open_stdin => null_stdin().map_err(failed(execute))?,
            None => {}
        }
        fork::cloexec_from(3).map_err(failed(execute))?;
        self.seccomp.install().map_err(failed(execute))
    }

    /// Puts the pipes in their places and closes all else that was inherited.
    fn take_streams(&self) -> io::Result<()> {
        rustix::stdio::dup2_stdin(&*self.stdio.stdin)?;
        rustix::stdio::dup2_stdout(&*self.stdio.stdout)?;
        rustix::stdio::dup2_stderr(&*self.stdio.stderr)?;
        fork::close_all_but(&self.descriptors())
    }

    /// Finds out who the user is, and enters the working directory while the process may still make it.
    fn enter(&self) -> Result<Identity, Refusal> {
        let make = StartStep::MakeWorkingDirectory;
        let root = Root::own().map_err(failed(make))?;
        let identity = resolve_user(&root, &self.user)?;
        self.stdio
            .give(identity.uid.get(), identity.gid.get())
            .map_err(failed(StartStep::BecomeUser))?;
        root.enter(&Path::new("/").join(&self.cwd), identity.owner())
            .map_err(failed(make))?;
        Ok(identity)
    }

    fn set_home(&mut self, identity: &Identity) {
        if !self.env.iter().any(|(have, _)| have == "HOME") {
            self.env.push(("HOME".to_owned(), identity.home.clone()));
        }
    }

    fn open_terminal(&self, size: TerminalSize) -> io::Result<()> {
        let (master, slave) = pty::controlling_terminal(size.rows, size.columns)?;
        let master = std::os::fd::AsFd::as_fd(&master);
        Report::Terminal.send(&*self.report, Some(master))?;
        rustix::stdio::dup2_stdin(&slave)?;
        rustix::stdio::dup2_stdout(&slave)?;
        Ok(rustix::stdio::dup2_stderr(&slave)?)
    }

    /// execvp(3) with an environment of its own, and errors that tell what Docker tells.
    fn exec(&self) -> Refusal {
        let program = self.args.first().cloned().unwrap_or_default();
        let not_found = || Refusal::CommandNotFound {
            program: program.clone(),
        };
        if program.is_empty() {
            return not_found();
        }
        let strings = |list: &mut dyn Iterator<Item = String>| -> Option<Vec<CString>> {
            list.map(|one| CString::new(one).ok()).collect()
        };
        let args = strings(&mut self.args.iter().cloned());
        let env = strings(
            &mut self
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        let (Some(args), Some(env)) = (args, env) else {
            let reason = "an argument or environment value contains a zero byte".to_owned();
            return Refusal::NotExecutable { program, reason };
        };
        let mut denied = None;
        for candidate in self.candidates(&program) {
            let Ok(path) = CString::new(candidate) else {
                continue;
            };
            let error = fork::execve(&path, &args, &env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) if !program.contains('/') => denied = Some(error),
                _ => {
                    return Refusal::NotExecutable {
                        program,
                        reason: error.to_string(),
                    };
                }
            }
        }
        match denied {
            Some(error) => Refusal::NotExecutable {
                program,
                reason: error.to_string(),
            },
            None => not_found(),
        }
    }

    fn candidates(&self, program: &str) -> Vec<String> {
        if program.contains('/') {
            return vec![program.to_owned()];
        }
        let path = self
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value.as_str());
        path.unwrap_or(DEFAULT_PATH)
            .split(':')
            .map(|dir| if dir.is_empty() { "." } else { dir })
            .map(|dir| format!("{dir}/{program}"))
            .collect()
    }
}

/// Looks a user up in the container's own files.
fn resolve_user(root: &Root, wanted: &str) -> Result<Identity, Refusal> {
    let read = |path| {
        root.read_text(path, USER_FILE_MAX)
            .map_err(failed(StartStep::ResolveUser))
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    user::resolve(wanted, &passwd, &group).map_err(|error| Refusal::UnknownUser(error.to_string()))
}

/// Standard input that has nothing. A container's root may have put something else at its place.
fn null_stdin() -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
    let resolve = rustix::fs::ResolveFlags::NO_SYMLINKS;
    let null = open_in_root(root, "dev/null", flags, Mode::empty(), resolve)?;
    let is = rustix::fs::fstat(&null)?;
    if FileType::from_raw_mode(is.st_mode) != FileType::CharacterDevice || is.st_rdev != NULL_DEVICE
    {
        return Err(io::Error::other("/dev/null is not the null device"));
    }
    rustix::fs::fcntl_setfl(&null, OFlags::empty())?;
    Ok(rustix::stdio::dup2_stdin(&null)?)
}
