//! What every keeper test stands on: an instance of its own (run directory, cgroup parent), a root
//! made of the machine's static busybox, and ways to look at what is left.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use teu_node::{
    keeper::{
        self, Channel, ExecPlan, ExitRecord, IdRange, KeeperEvent, KeeperLink, Limits, LogLimits,
        LogReader, ProcessExit, ProcessPlan, RootPlan, StartPlan,
    },
    launcher::{LauncherConfig, LauncherHandle},
    sys::{
        cgroup::{Cgroup, Hierarchies},
        names::SlotName,
    },
};
use teu_protocol::ids::{ContainerId, ProcessId};
use tokio::sync::mpsc;

const BUSYBOX: &str = "/bin/busybox";
pub(crate) const BASE: u32 = 1_000_000;
/// Nothing here takes longer unless it is broken.
pub(crate) static PATIENCE: LazyLock<Duration> =
    LazyLock::new(|| Duration::from_secs(20) * slowness());

/// How many times longer than here what must happen may take (`TEU_TEST_PATIENCE`, in an emulated
/// guest for one).
fn slowness() -> u32 {
    std::env::var("TEU_TEST_PATIENCE").map_or(1, |times| times.parse().unwrap())
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) parent: String,
    pub(crate) launcher: LauncherHandle,
}

pub(crate) struct Running {
    pub(crate) slot: SlotName,
    pub(crate) link: KeeperLink,
    pub(crate) events: Events,
    pub(crate) container: ContainerId,
    pub(crate) dir: PathBuf,
    pub(crate) pid: i32,
}

/// Events, remembered, because tests ask for them in their own order.
pub(crate) struct Events {
    incoming: mpsc::Receiver<KeeperEvent>,
    pub(crate) exits: BTreeMap<ProcessId, (ProcessExit, u64)>,
    pub(crate) ends: BTreeMap<ProcessId, u64>,
    pub(crate) consumed: BTreeMap<ProcessId, u64>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        assert!(
            Path::new(BUSYBOX).exists(),
            "these tests need {BUSYBOX} (package busybox-static)"
        );
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let parent = format!("teutest{}x{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("teu-k").tempdir().unwrap();
        // Mapped users must be able to walk to their files.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let layer = dir.path().join("layer");
        for sub in ["bin", "etc", "tmp", "root"] {
            fs::create_dir_all(layer.join(sub)).unwrap();
        }
        fs::copy(BUSYBOX, layer.join("bin/busybox")).unwrap();
        for name in [
            "sh", "echo", "cat", "id", "sleep", "stty", "kill", "head", "dd", "ls", "ps", "true",
            "grep", "tty", "ping", "nc", "wc", "mount", "unshare", "seq", "yes", "stat",
            "readlink", "hostname", "touch", "ip", "tail", "mknod", "usleep",
        ] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n";
        fs::write(layer.join("etc/passwd"), passwd).unwrap();
        fs::write(
            layer.join("etc/group"),
            "root:x:0:\nweb:x:34:\nextra:x:77:web\n",
        )
        .unwrap();
        fs::write(layer.join("etc/plain"), "not a program").unwrap();
        let launcher = launch(dir.path(), &parent).await;
        Self {
            dir,
            parent,
            launcher,
        }
    }

    pub(crate) async fn relaunch(&mut self) {
        self.launcher = launch(self.dir.path(), &self.parent).await;
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) async fn warm(&self, slot: &str) -> (SlotName, KeeperLink) {
        let slot: SlotName = slot.parse().unwrap();
        let link = self.launcher.fork_keeper(&slot).await.unwrap();
        (slot, link)
    }

    pub(crate) fn plan(&self, name: &str, process: ProcessPlan) -> StartPlan {
        let dir = self.dir.path().join(name);
        for sub in ["upper", "work"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(BASE), Some(BASE)).unwrap();
        }
        StartPlan {
            container: container_id(name),
            dir: dir.clone(),
            hostname: "boxed".to_owned(),
            ids: IdRange {
                base: BASE,
                count: 65536,
            },
            root: RootPlan {
                layers: vec![self.dir.path().join("layer")],
                upper: dir.join("upper"),
                work: dir.join("work"),
                read_only: false,
            },
            process,
            files: Vec::new(),
            hosts: Vec::new(),
            address: Some("10.1.2.3".parse().unwrap()),
            name_servers: vec!["9.9.9.9".parse().unwrap()],
            mounts: Vec::new(),
            limits: Limits::default(),
            log: LogLimits::default(),
            shm_bytes: 64 << 20,
        }
    }

    pub(crate) async fn start(&self, name: &str, plan: StartPlan) -> Running {
        let (slot, link) = self.warm(name).await;
        let events = Events::new(&link);
        let (container, dir) = (plan.container, plan.dir.clone());
        let started = link.start(plan).await.unwrap();
        Running {
            slot,
            link,
            events,
            container,
            dir,
            pid: started.pid,
        }
    }

    pub(crate) async fn run(&self, name: &str, script: &str) -> Running {
        self.start(name, self.plan(name, sh(script))).await
    }

    /// Everything of this instance that the kernel or the file system still knows.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in walk(Path::new("/sys/fs/cgroup"), 3) {
            let inside = entry
                .parent()
                .is_some_and(|one| one.ends_with(&self.parent));
            if inside && !entry.ends_with(teu_node::launcher::KEEPERS_GROUP) && entry.is_dir() {
                left.push(entry.display().to_string());
            }
        }
        let run = self.run_dir().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&run))
                .map(str::to_owned),
        );
        left.extend(
            keeper::slots(&self.run_dir())
                .unwrap()
                .iter()
                .map(|slot| format!("socket {slot}")),
        );
        left
    }
}

async fn launch(dir: &Path, parent: &str) -> LauncherHandle {
    LauncherHandle::start(LauncherConfig {
        program: env!("CARGO_BIN_EXE_teu-node").into(),
        run_dir: dir.join("run"),
        volumes: dir.join("volumes"),
        cgroup_parent: parent.to_owned(),
    })
    .await
    .unwrap()
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What a failed test leaves must not disturb the next run.
        for slot in keeper::slots(&self.run_dir()).unwrap_or_default() {
            let _ = keeper::sweep(&self.run_dir(), &self.parent, &slot);
        }
        // Launcher and keepers go now: the runtime that would end them is ending itself.
        let hierarchies = Hierarchies::detect().unwrap();
        let keepers = Cgroup::named(
            &hierarchies,
            &self.parent,
            teu_node::launcher::KEEPERS_GROUP,
        );
        let _ = keepers.kill_all().and_then(|()| keepers.remove());
        for one in hierarchies.iter() {
            let _ = fs::remove_dir(one.mount.join(&self.parent));
        }
    }
}

impl Running {
    pub(crate) fn main(&self) -> ProcessId {
        self.container.main_process()
    }

    pub(crate) async fn exit(&mut self) -> ProcessExit {
        let id = self.main();
        self.events.exit_of(id).await.0
    }

    pub(crate) fn output(&self, process: ProcessId) -> String {
        String::from_utf8_lossy(&self.bytes(process)).into_owned()
    }

    pub(crate) fn bytes(&self, process: ProcessId) -> Vec<u8> {
        read_log(&self.dir, process)
            .into_iter()
            .flat_map(|one| one.1)
            .collect()
    }

    /// Runs to its end and returns exit and output.
    pub(crate) async fn finish(&mut self) -> (ProcessExit, String) {
        let exit = self.exit().await;
        (exit, self.output(self.main()))
    }

    pub(crate) async fn exec(&self, number: u8, process: ProcessPlan) -> ProcessId {
        let id = ProcessId::from_bytes([number; 16]);
        self.link.exec(ExecPlan { id, process }).await.unwrap();
        id
    }

    pub(crate) fn exit_record(&self) -> ExitRecord {
        ExitRecord::read(&self.dir).unwrap().unwrap()
    }

    /// Waits until the process has written this text.
    pub(crate) async fn wait_output(&mut self, process: ProcessId, text: &str) {
        let deadline = Instant::now() + *PATIENCE;
        while !self.output(process).contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text:?} in {:?}",
                self.output(process)
            );
            if !self.events.exits.contains_key(&process) {
                self.events.next().await;
            }
        }
    }
}

impl Events {
    pub(crate) fn new(link: &KeeperLink) -> Self {
        Self {
            incoming: link.events().unwrap(),
            exits: BTreeMap::new(),
            ends: BTreeMap::new(),
            consumed: BTreeMap::new(),
        }
    }

    /// Takes one more event in; `false` if there will be none.
    pub(crate) async fn next(&mut self) -> bool {
        let event = tokio::time::timeout(*PATIENCE, self.incoming.recv())
            .await
            .expect("no event");
        match event {
            None => return false,
            Some(KeeperEvent::Exited {
                process,
                exit,
                log_end,
            }) => {
                self.exits.insert(process, (exit, log_end));
                self.ends.insert(process, log_end);
            }
            Some(KeeperEvent::LogGrown { process, end }) => {
                self.ends.insert(process, end);
            }
            Some(KeeperEvent::StdinConsumed { process, total }) => {
                self.consumed.insert(process, total);
            }
            Some(KeeperEvent::StdinClosed { .. }) => {}
        }
        true
    }

    pub(crate) async fn exit_of(&mut self, process: ProcessId) -> (ProcessExit, u64) {
        loop {
            if let Some(exit) = self.exits.get(&process) {
                return *exit;
            }
            assert!(
                self.next().await,
                "the keeper went away without telling of the exit"
            );
        }
    }

    pub(crate) async fn wait_gone(&mut self) {
        while self.next().await {}
    }
}

pub(crate) fn container_id(name: &str) -> ContainerId {
    let mut bytes = [0xcc; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    ContainerId::from_bytes(bytes)
}

pub(crate) fn command(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        args: args.iter().map(|&one| one.to_owned()).collect(),
        env: Vec::new(),
        cwd: PathBuf::new(),
        user: String::new(),
        tty: None,
        open_stdin: false,
        reader: None,
        timeout_ms: None,
        init: false,
    }
}

pub(crate) fn sh(script: &str) -> ProcessPlan {
    command(&["sh", "-c", script])
}

pub(crate) fn read_log(dir: &Path, process: ProcessId) -> Vec<(Channel, Vec<u8>)> {
    let reader = LogReader::new(dir, process);
    let (mut spot, mut all) = (0.into(), Vec::new());
    loop {
        let chunk = reader.read(spot, 1 << 20).unwrap();
        if chunk.records.is_empty() {
            return all;
        }
        spot = chunk.next;
        all.extend(
            chunk
                .records
                .into_iter()
                .map(|one| (one.channel, one.bytes)),
        );
    }
}

fn walk(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries
        .flatten()
        .filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        let path = entry.path();
        if depth > 1 {
            found.extend(walk(&path, depth - 1));
        }
        found.push(path);
    }
    found
}

/// A line of a `/proc/<pid>/status`.
pub(crate) fn status_field(pid: i32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')
                .map(|one| one.trim().to_owned())
        })
        .unwrap()
}

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + *PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
