//! Where a one-machine location keeps its things, and how its programs are called.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{DevArgs, DevError};
use crate::{args::Globals, failure::Failure};

/// The serial number of the location's key: a one-machine location never rotates it.
pub(super) const SERIAL: u64 = 1;

/// Paths, programs and addresses of one location.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) name: String,
    pub(super) data: PathBuf,
    pub(super) home: PathBuf,
    pub(super) instance: String,
    pub(super) port: u16,
    pub(super) range: String,
    /// Where the node keeps volumes, if it was told.
    pub(super) pool: Option<String>,
    master: PathBuf,
    node: PathBuf,
}

impl Layout {
    pub(super) fn new(globals: &Globals, args: &DevArgs) -> Result<Self, Failure> {
        Ok(Self {
            name: args.name.clone(),
            data: args.data.clone(),
            home: teu::config::home(globals.home.as_deref()),
            instance: args.instance.clone(),
            port: args.port,
            range: args.range.clone(),
            pool: args.pool.clone(),
            master: program("teu-master")?,
            node: program("teu-node")?,
        })
    }

    pub(super) fn fqdn(&self) -> String {
        format!("{}.localhost", self.name)
    }

    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn master_data(&self) -> PathBuf {
        self.data.join("master")
    }

    pub(super) fn node_data(&self) -> PathBuf {
        self.data.join("node")
    }

    pub(super) fn bootstrap(&self) -> PathBuf {
        self.data.join("bootstrap.json")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.data.join("dev.pid")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.data.join("dev.log")
    }

    pub(super) fn run_master(&self) -> Command {
        let mut command = Command::new(&self.master);
        command.args([
            "--listen",
            &self.endpoint(),
            "--fqdn",
            &self.fqdn(),
            "--range",
            &self.range,
        ]);
        command.arg("--data").arg(self.master_data());
        command.arg("--bootstrap").arg(self.bootstrap());
        command
    }

    pub(super) fn run_node(&self, master_key: &str) -> Command {
        let mut command = Command::new(&self.node);
        command.args(["run", "--master", &self.endpoint(), "--fqdn", &self.fqdn()]);
        command.args(["--master-key", master_key, "--serial", &SERIAL.to_string()]);
        command.args(["--instance", &self.instance]);
        command.arg("--data").arg(self.node_data());
        if let Some(pool) = &self.pool {
            command.args(["--pool", pool]);
        }
        command
    }

    pub(super) async fn master_key(&self) -> Result<String, Failure> {
        let mut command = Command::new(&self.master);
        command
            .arg("public-key")
            .arg("--data")
            .arg(self.master_data());
        said("teu-master", command).await
    }

    pub(super) async fn node_key(&self) -> Result<String, Failure> {
        let mut command = Command::new(&self.node);
        command
            .arg("public-key")
            .arg("--data")
            .arg(self.node_data());
        said("teu-node", command).await
    }

    /// Removes what the node left on the machine: bridge, firewall table, cgroups, data.
    pub(super) async fn purge_node(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.node);
        command
            .args(["purge", "--instance", &self.instance])
            .arg("--data")
            .arg(self.node_data());
        said("teu-node", command).await.map(drop)
    }
}

/// The program beside ours, or the one in PATH.
fn program(name: &'static str) -> Result<PathBuf, DevError> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(name)));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&paths).map(|directory| directory.join(name)))
        .find(|path| path.is_file())
        .ok_or(DevError::ProgramMissing(name))
}

/// Runs a program to its end and gives what it printed.
async fn said(program: &'static str, mut command: Command) -> Result<String, Failure> {
    let output = command
        .output()
        .await
        .map_err(|source| DevError::Start { program, source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DevError::Failed { program, said }.into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An error about a file.
pub(super) fn file_error(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> DevError + use<> {
    let path = path.to_owned();
    move |source| DevError::File {
        doing,
        path,
        source,
    }
}
