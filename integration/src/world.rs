//! A real one-machine location for tests and benchmarks: `teu dev` with its own port, data,
//! bridge and firewall table, so that several can run at once; ended and purged when dropped.

mod census;
mod failpoints;
mod http;
mod machine;

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub use census::{Census, interfaces};
pub use failpoints::cannot_build as cannot_build_failpoints;
pub use http::{get, try_get};
pub use machine::{SecondNode, loop_devices};

/// How long anything may take that a test waits for: generous, for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running location.
#[derive(Debug)]
pub struct World {
    directory: tempfile::TempDir,
    instance: String,
    port: u16,
    second_octet: u8,
    pool: Option<String>,
    /// The `teu` that supervises.
    teu: PathBuf,
    supervisor: Child,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl World {
    /// Starts a location and waits until it takes containers.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(None, false)
    }

    /// The same with daemons that can be made to die at a named place: see [`World::arm`].
    #[must_use]
    pub fn start_with_failpoints() -> Self {
        Self::start_on(None, true)
    }

    /// The same with its volumes on a certain pool: `loop:<path>`, `zfs:<dataset>`, a btrfs directory.
    #[must_use]
    pub fn start_with_pool(pool: &str) -> Self {
        Self::start_on(Some(pool.to_owned()), false)
    }

    fn start_on(pool: Option<String>, failpoints: bool) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "end-to-end tests run real containers: run them as root"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id() % 4096;
        let directory = tempfile::Builder::new()
            .prefix("teu-e2e-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let port = free_port();
        let instance = format!("t{id:03x}{number:x}");
        let second_octet = 100 + u8::try_from((id + number) % 100).unwrap_or_default();
        let mut options = options(directory.path(), &instance, port, second_octet);
        options.extend(pool_option(pool.as_deref()));
        let teu = match failpoints {
            true => failpoints::programs(directory.path()),
            false => program("teu"),
        };
        let mut world = Self {
            supervisor: supervisor(&teu, directory.path(), &options),
            teu,
            directory,
            instance,
            port,
            second_octet,
            pool,
        };
        world.wait_ready();
        world
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + patience(PATIENCE) * 2;
        loop {
            if self.is_up() {
                return;
            }
            let ended = self.supervisor.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                panic!("the location did not start: {ended:?}\n{}", self.log());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn is_up(&self) -> bool {
        let up = self.teu(["resources", "--format", "json"]);
        String::from_utf8_lossy(&up.stdout).contains("\"up\"")
    }

    /// Waits until it takes containers again.
    pub fn wait_up(&self) {
        eventually("the location takes containers", || self.is_up());
    }

    /// What supervisor, master and node have said.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read(self.directory.path().join("dev.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Where this location's keys and client configuration are.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Where master and node keep their data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The master's TCP port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What `--pool` it was started with, if any.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.pool.as_deref()
    }

    /// The prefix of bridge, table and cgroups.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Addresses of its containers.
    #[must_use]
    pub fn range(&self) -> String {
        format!("10.{}.0.0/16", self.second_octet)
    }

    /// Ends the supervisor with SIGKILL: what it had started runs on.
    pub fn kill_supervisor(&self) {
        let pid = self.supervisor.id();
        kill(pid, rustix::process::Signal::KILL);
        eventually("the supervisor is dead", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| stat.contains(") Z"))
        });
    }

    /// What this location has on the machine now.
    #[must_use]
    pub fn census(&self) -> Census {
        Census::take(&self.instance, &self.data())
    }

    /// A `teu` command for this location.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(program("teu"));
        command
            .env("TEU_HOME", self.home())
            .env("NO_COLOR", "1")
            .args(arguments);
        command
    }

    /// Runs `teu` to its end.
    pub fn teu<I, S>(&self, arguments: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("teu is built")
    }

    /// Runs `teu`, expects success, gives its stdout without the last newline.
    pub fn ok<I, S>(&self, arguments: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = self.teu(arguments);
        assert!(
            output.status.success(),
            "teu failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Connects with the SDK, in a fresh session.
    ///
    /// # Errors
    /// Whatever the SDK says.
    pub async fn connect(&self) -> Result<teu::Location, teu::Error> {
        teu::Location::builder()
            .home(self.home())
            .name("test")
            .connect()
            .await
    }

    /// Imports the busybox image, once in a location's life.
    pub fn import_busybox(&self) {
        if self
            .ok(["images", "--format", "json"])
            .contains("busybox:latest")
        {
            return;
        }
        let archive = self.directory.path().join("busybox.tar");
        make_busybox(&archive);
        self.ok(["image".as_ref(), "import".as_ref(), archive.as_os_str()]);
    }

    /// The process of `teu-master` or `teu-node`.
    #[must_use]
    pub fn daemon(&self, name: &str) -> Option<u32> {
        let supervisor = self.supervisor.id();
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
        let threads = fs::read_dir(format!("/proc/{supervisor}/task")).ok()?;
        let mut pids = children.unwrap_or_default();
        for thread in threads.flatten() {
            let of_thread = fs::read_to_string(thread.path().join("children"));
            pids.push_str(&of_thread.unwrap_or_default());
            pids.push(' ');
        }
        pids.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .find(|pid: &u32| {
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|comm| comm.trim() == name)
            })
    }

    /// Ends a daemon with SIGKILL and waits until the supervisor has started it again.
    pub fn kill_daemon(&self, name: &str) {
        let before = self.daemon(name).expect("the daemon runs");
        kill(before, rustix::process::Signal::KILL);
        eventually("the daemon is started again", || {
            self.daemon(name).is_some_and(|now| now != before)
        });
    }
}

impl World {
    /// Stops the location and removes its data, as `teu dev --purge` does.
    pub fn purge(&self) {
        let mut purge = self.command(["dev", "--purge", "--yes"]);
        purge.args(options(
            self.directory.path(),
            &self.instance,
            self.port,
            self.second_octet,
        ));
        let done = purge.output().expect("teu is built");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the location's log:\n{}", self.log());
        }
        let mut purge = self.command(["dev", "--purge", "--yes"]);
        purge.args(options(
            self.directory.path(),
            &self.instance,
            self.port,
            self.second_octet,
        ));
        let _ = purge.output();
        kill(self.supervisor.id(), rustix::process::Signal::TERM);
        let _ = self.supervisor.wait();
    }
}

fn supervisor(teu: &Path, directory: &Path, options: &[String]) -> Child {
    let log = fs::File::options();
    let log = log
        .clone()
        .create(true)
        .append(true)
        .open(directory.join("dev.log"));
    let log = log.expect("a log file");
    Command::new(teu)
        .env("TEU_HOME", directory.join("home"))
        .arg("dev")
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .expect("teu is built")
}

fn options(directory: &Path, instance: &str, port: u16, second_octet: u8) -> Vec<String> {
    let data = directory.join("data").display().to_string();
    let range = format!("10.{second_octet}.0.0/16");
    [
        "--port",
        &port.to_string(),
        "--data",
        &data,
        "--instance",
        instance,
        "--range",
        &range,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn pool_option(pool: Option<&str>) -> Vec<String> {
    pool.map_or_else(Vec::new, |pool| vec!["--pool".to_owned(), pool.to_owned()])
}

/// A program of this workspace, built into the same directory as this test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .skip(1)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

/// Writes the busybox test image as a docker-archive.
pub fn make_busybox(archive: &Path) {
    make_image(archive, &[]);
}

/// Writes a test image as a docker-archive: busybox, or a name and further programs of this machine.
pub fn make_image(archive: &Path, name_and_programs: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/lib/busybox-image");
    let made = Command::new(script)
        .arg(archive)
        .args(name_and_programs)
        .output()
        .expect("the script runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// Waits until something holds; fails the test if it does not within [`PATIENCE`].
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// A time limit, for a machine that is `TEU_TEST_PATIENCE` times slower (an emulated guest: deploy/vm).
#[must_use]
pub fn patience(limit: Duration) -> Duration {
    let times = std::env::var("TEU_TEST_PATIENCE").ok();
    limit * times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Waits until something holds; fails the test if it does not in time.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let limit = patience(limit);
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Sends a signal to a process of ours.
pub fn kill(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// A TCP port that nobody listens on now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
