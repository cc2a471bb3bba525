//! Where a one-machine location keeps its things, and how its programs are called.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{
    DevError,
    mark::{Mark, USUAL_POOL},
};
use crate::{failure::Failure, output};

/// The serial number of the location's key: a one-machine location never rotates it.
pub(super) const SERIAL: u64 = 1;

/// Where a location's data are, unless somebody says otherwise.
pub(super) const USUAL_DATA: &str = "/var/lib/teu";

const MASTER: &str = "master";
const NODE: &str = "node";
const BOOTSTRAP: &str = "bootstrap.json";
const PID_FILE: &str = "dev.pid";
const LOG_FILE: &str = "dev.log";

/// What is in the data directory of a location that was made before there were marks.
pub(super) const LEGACY: [&str; 3] = [MASTER, NODE, BOOTSTRAP];

/// All that TEU puts into a data directory. The mark is the last to be removed.
pub(super) const ENTRIES: [&str; 6] = [
    NODE,
    MASTER,
    BOOTSTRAP,
    LOG_FILE,
    PID_FILE,
    super::mark::MARK_FILE,
];

/// Paths, programs and addresses of one location.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) data: PathBuf,
    pub(super) mark: Mark,
    master: PathBuf,
    node: PathBuf,
}

/// The lock of a location's supervisor, with its process id.
pub(super) fn pid_file(data: &Path) -> PathBuf {
    data.join(PID_FILE)
}

pub(super) fn master_data(data: &Path) -> PathBuf {
    data.join(MASTER)
}

pub(super) fn node_data(data: &Path) -> PathBuf {
    data.join(NODE)
}

/// A whole `teu dev` command for the location of this directory, as a shell takes it.
pub(super) fn command(data: &Path, flags: &[&str]) -> String {
    let mut words = vec!["teu dev".to_owned()];
    words.extend(flags.iter().map(|flag| (*flag).to_owned()));
    if data != Path::new(USUAL_DATA) {
        words.push(format!(
            "--data {}",
            output::quoted(&data.display().to_string())
        ));
    }
    words.join(" ")
}

impl Layout {
    pub(super) fn new(data: PathBuf, mark: Mark) -> Result<Self, Failure> {
        Ok(Self {
            data,
            mark,
            master: program("teu-master")?,
            node: program("teu-node")?,
        })
    }

    pub(super) fn name(&self) -> &str {
        self.mark.name.as_str()
    }

    pub(super) fn home(&self) -> &Path {
        &self.mark.home
    }

    pub(super) fn fqdn(&self) -> String {
        format!("{}.localhost", self.mark.name)
    }

    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.mark.port)
    }

    pub(super) fn master_data(&self) -> PathBuf {
        master_data(&self.data)
    }

    pub(super) fn node_data(&self) -> PathBuf {
        node_data(&self.data)
    }

    pub(super) fn bootstrap(&self) -> PathBuf {
        self.data.join(BOOTSTRAP)
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        pid_file(&self.data)
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.data.join(LOG_FILE)
    }

    pub(super) fn run_master(&self) -> Command {
        let mut command = Command::new(&self.master);
        command.args([
            "--listen",
            &self.endpoint(),
            "--fqdn",
            &self.fqdn(),
            "--range",
            &self.mark.range.to_string(),
        ]);
        command.arg("--data").arg(self.master_data());
        command.arg("--bootstrap").arg(self.bootstrap());
        command
    }

    pub(super) fn run_node(&self, master_key: &str) -> Command {
        let mut command = Command::new(&self.node);
        command.args(["run", "--master", &self.endpoint(), "--fqdn", &self.fqdn()]);
        command.args(["--master-key", master_key, "--serial", &SERIAL.to_string()]);
        command.args(["--instance", self.mark.instance.as_str()]);
        command.arg("--data").arg(self.node_data());
        if self.mark.pool != USUAL_POOL {
            command.args(["--pool", &self.mark.pool]);
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

    /// Ends what the node left running on the machine: containers, bridge, firewall table, cgroups. With
    /// `data`, removes its data too, and gives back its loop device.
    pub(super) async fn clear_node(&self, data: bool) -> Result<(), Failure> {
        let mut command = Command::new(&self.node);
        command.args(["purge", "--instance", self.mark.instance.as_str()]);
        if !data {
            command.arg("--keep-data");
        }
        command.args(["--pool", &self.mark.pool]);
        command.arg("--data").arg(self.node_data());
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
