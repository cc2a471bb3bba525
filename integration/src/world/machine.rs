//! The machine as a whole: a power cut, and a second machine.
//!
//! Owner: [`World`]. Invariant: after [`World::restart_machine`] nothing that lived in memory only is
//! there any more: no process, mount, loop device, control group, interface or rule of the location.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{World, eventually, kill, options, pool_option, program, supervisor};

impl World {
    /// What a power cut and the next boot do to the location.
    pub fn restart_machine(&mut self) {
        self.cut_power();
        self.boot();
    }

    fn cut_power(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
        // The daemons, the launcher, keepers and containers: by their command lines, or their control groups.
        eventually("all processes are dead", || {
            let all = self.processes();
            for pid in &all {
                kill(*pid, rustix::process::Signal::KILL);
            }
            all.is_empty()
        });
        // What is mounted last may lie on what was mounted before.
        eventually("nothing is mounted", || {
            let mounts = self.census().mounts;
            for point in mounts.iter().rev() {
                run("umount", &[point]);
            }
            mounts.is_empty()
        });
        let file = self.data().join("node/pool.btrfs").display().to_string();
        if Path::new(&file).exists() {
            for device in loop_devices(Path::new(&file)) {
                run("losetup", &["--detach", &device]);
            }
        }
        remove_cgroups(self.instance());
        run("ip", &["link", "delete", &format!("{}0", self.instance())]);
        run("nft", &["delete", "table", "inet", self.instance()]);
        let _ = fs::remove_dir_all(Path::new("/run").join(self.instance()));
    }

    fn boot(&mut self) {
        let mut options = options(
            self.directory.path(),
            &self.instance,
            self.port,
            self.second_octet,
        );
        options.extend(pool_option(self.pool()));
        self.supervisor = supervisor(&self.teu, self.directory.path(), &options);
        self.wait_ready();
    }

    /// Processes of the location, clients aside.
    fn processes(&self) -> BTreeSet<u32> {
        let data = self.data().display().to_string();
        let group = format!("/{}/", self.instance());
        let is_ours = |pid: &u32| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
            let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
            command.contains(&data)
                || cgroup
                    .lines()
                    .any(|line| format!("{line}/").contains(&group))
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .filter(is_ours)
            .collect()
    }

    /// Enrols and starts the agent of a second machine, which is this one, and waits until it takes
    /// containers.
    #[must_use]
    pub fn second_node(&self, name: &str) -> SecondNode {
        let data = self.scratch().join(name);
        let said = |program_name: &str, arguments: &[&str], data: &Path| {
            let mut command = Command::new(program(program_name));
            let done = command.args(arguments).arg("--data").arg(data).output();
            let done = done.expect("it is built");
            assert!(done.status.success(), "{program_name} {arguments:?}");
            String::from_utf8_lossy(&done.stdout).trim().to_owned()
        };
        let key = said("teu-node", &["public-key"], &data);
        let location = said("teu-master", &["public-key"], &self.data().join("master"));
        self.ok(["node", "enrol", &key, "--name", name]);
        let instance = format!("{}b", self.instance());
        let log = fs::File::create(self.scratch().join("second.log")).expect("a log file");
        let agent = Command::new(program("teu-node"))
            .args(["run", "--master", &format!("127.0.0.1:{}", self.port)])
            .args(["--fqdn", "dev.localhost", "--master-key", &location])
            .args(["--instance", &instance, "--name", name])
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("teu-node is built");
        let node = SecondNode {
            agent,
            data,
            instance,
        };
        eventually("two nodes are up", || {
            self.ok(["resources", "--format", "json"])
                .matches("\"up\"")
                .count()
                == 2
        });
        node
    }
}

/// The agent of another machine; ended and purged when dropped.
#[derive(Debug)]
pub struct SecondNode {
    agent: Child,
    data: PathBuf,
    instance: String,
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        kill(self.agent.id(), rustix::process::Signal::TERM);
        let _ = self.agent.wait();
        let mut purge = Command::new(program("teu-node"));
        purge.args(["purge", "--instance", &self.instance, "--data"]);
        let _ = purge.arg(&self.data).output();
    }
}

/// Loop devices that show a file.
#[must_use]
pub fn loop_devices(file: &Path) -> Vec<String> {
    let listed = Command::new("losetup")
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(file)
        .output()
        .expect("losetup");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// What of it is not there is not there.
fn run(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).output();
}

fn remove_cgroups(instance: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten();
    let mut roots: Vec<_> = controllers
        .map(|entry| entry.path().join(instance))
        .collect();
    roots.push(root.join(instance));
    for directory in roots {
        remove_below(&directory);
    }
}

fn remove_below(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&entry.path());
    }
    let _ = fs::remove_dir(directory);
}
