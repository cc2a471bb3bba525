//! The last steps of a container's process, inside the container, just before its program.
//!
//! Owner: the new process itself, as its own user and without privileges (libcontainer or the
//! tenant has dropped them). Invariant: it ends in the program or in a report of why not.

use std::{ffi::CString, io, os::fd::OwnedFd, path::PathBuf, rc::Rc};

use super::{
    plan::{ProcessPlan, TerminalSize},
    report::Report,
    wire::{Refusal, StartStep},
};
use crate::sys::{fork, init, pty, seccomp::SeccompProgram, users::Identity};

/// Where programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container's ends of the pipes.
#[derive(Debug, Clone)]
pub(super) struct ChildStdio {
    pub stdin: Rc<OwnedFd>,
    pub stdout: Rc<OwnedFd>,
    pub stderr: Rc<OwnedFd>,
}

/// All that the last steps need; copied over forks.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    args: Vec<String>,
    env: Vec<(String, String)>,
    tty: Option<TerminalSize>,
    open_stdin: bool,
    init: bool,
    /// To be entered once more, for something was mounted since.
    cwd: Option<PathBuf>,
    stdio: ChildStdio,
    report: Rc<OwnedFd>,
    seccomp: Rc<SeccompProgram>,
}

impl Payload {
    pub(super) fn new(
        plan: &ProcessPlan,
        identity: &Identity,
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
        add("HOME", &identity.home);
        if plan.tty.is_some() {
            add("TERM", "xterm");
        }
        Self {
            args: plan.args.clone(),
            env,
            tty: plan.tty,
            open_stdin: plan.open_stdin,
            init: plan.init,
            cwd: None,
            stdio,
            report,
            seccomp,
        }
    }

    /// Enters `cwd` before the program runs.
    pub(super) fn entering(mut self, cwd: PathBuf) -> Self {
        self.cwd = Some(cwd);
        self
    }

    /// Becomes the program. Returns only if that failed, and has reported it then.
    pub(super) fn execute(&self) {
        let refusal = match self.prepare() {
            Ok(()) => match self.init.then(init::stand_in_front) {
                None | Some(Ok(())) => self.exec(),
                Some(Err(error)) => Refusal::Failed {
                    step: StartStep::Execute,
                    reason: error.to_string(),
                },
            },
            Err((step, error)) => Refusal::Failed {
                step,
                reason: error.to_string(),
            },
        };
        let _ = Report::Failed(refusal).send(&*self.report, None);
    }

    fn prepare(&self) -> Result<(), (StartStep, io::Error)> {
        let at = |step| move |error: io::Error| (step, error);
        let errno = |step| move |error: rustix::io::Errno| (step, error.into());
        let execute = StartStep::Execute;
        fork::reset_signals();
        // If the keeper dies, so does what it watches over: nobody would reap or log it.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(errno(execute))?;
        if let Some(cwd) = &self.cwd {
            std::env::set_current_dir(cwd).map_err(at(StartStep::MakeWorkingDirectory))?;
        }
        if let Some(size) = self.tty {
            let step = StartStep::MakeTerminal;
            let (master, slave) =
                pty::controlling_terminal(size.rows, size.columns).map_err(at(step))?;
            let master = std::os::fd::AsFd::as_fd(&master);
            Report::Terminal
                .send(&*self.report, Some(master))
                .map_err(at(step))?;
            rustix::stdio::dup2_stdin(&slave).map_err(errno(step))?;
            rustix::stdio::dup2_stdout(&slave).map_err(errno(step))?;
            rustix::stdio::dup2_stderr(&slave).map_err(errno(step))?;
        } else {
            if self.open_stdin {
                rustix::stdio::dup2_stdin(&*self.stdio.stdin).map_err(errno(execute))?;
            } else {
                let null = std::fs::File::open("/dev/null").map_err(at(execute))?;
                rustix::stdio::dup2_stdin(&null).map_err(errno(execute))?;
            }
            rustix::stdio::dup2_stdout(&*self.stdio.stdout).map_err(errno(execute))?;
            rustix::stdio::dup2_stderr(&*self.stdio.stderr).map_err(errno(execute))?;
        }
        fork::cloexec_from(3).map_err(at(execute))?;
        self.seccomp.install().map_err(at(execute))
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
