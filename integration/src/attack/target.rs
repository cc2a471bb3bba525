//! The master under attack: this same test program, started again as a master.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use teu_master::{Bootstrap, BootstrapAccount, BootstrapNode, Config, Server};
use teu_protocol::noise::{LocationIdentity, StaticKey};

const FQDN: &str = "attack.localhost";
const DATA: &str = "TEU_ATTACK_MASTER_DATA";

/// An administrator's account.
pub const ANN: u8 = 1;
/// Another account.
pub const BOB: u8 = 2;
/// A node.
pub const NODE_1: u8 = 11;
/// Another node.
pub const NODE_2: u8 = 12;
/// A key that is not enrolled.
pub const STRANGER: u8 = 99;

/// The key of one of the above.
#[must_use]
#[allow(clippy::expect_used, reason = "32 bytes are always a key")]
pub fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).expect("a key")
}

/// Becomes the master, if this process was started to be one; never returns then.
#[allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test's own process"
)]
pub fn serve_if_asked() {
    let Some(data) = std::env::var_os(DATA) else {
        return;
    };
    let mut config = Config::new((Ipv4Addr::LOCALHOST, 0).into(), data, FQDN);
    let account = |byte, name: &str| BootstrapAccount {
        key: key(byte).public(),
        name: name.to_owned(),
        admin: byte == ANN,
    };
    let node = |byte, name: &str| BootstrapNode {
        key: key(byte).public(),
        name: name.to_owned(),
    };
    config.bootstrap = Bootstrap {
        accounts: vec![account(ANN, "ann"), account(BOB, "bob")],
        nodes: vec![node(NODE_1, "one"), node(NODE_2, "two")],
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let server = Box::pin(Server::start(config)).await.expect("a master");
        println!("{} {}", server.local_addr(), server.public_key());
        // The parent ends us by closing our standard input.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = ended.await;
        server.shutdown().await;
    });
    std::process::exit(0);
}

/// A running master.
#[derive(Debug)]
pub struct Target {
    process: Child,
    address: SocketAddr,
    location: LocationIdentity,
    _data: tempfile::TempDir,
}

impl Target {
    /// Starts a master with the accounts and nodes above, and waits until it is ready.
    #[must_use]
    #[allow(
        clippy::expect_used,
        clippy::panic,
        reason = "a test without its master has failed"
    )]
    pub fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let own = std::env::current_exe().expect("this program");
        let mut process = Command::new(own)
            .env(DATA, data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a master");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let parsed = line
            .trim()
            .split_once(' ')
            .and_then(|(address, key)| Some((address.parse().ok()?, key.parse().ok()?)));
        let Some((address, key)) = parsed else {
            panic!("the master said: {line:?}")
        };
        let location = LocationIdentity::new(FQDN, key, 1).expect("a location");
        Self {
            process,
            address,
            location,
            _data: data,
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What peers know of it.
    #[must_use]
    pub const fn location(&self) -> &LocationIdentity {
        &self.location
    }

    /// Bytes of memory that it has in use (`VmRSS`).
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most bytes of memory that it ever had in use (`VmHWM`).
    #[must_use]
    pub fn most_memory_bytes(&self) -> u64 {
        self.status("VmHWM:")
    }

    #[allow(clippy::panic, reason = "a master that is gone has failed the test")]
    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("the master has no {field}: is it gone?")) * 1024
    }

    /// Files and sockets that it has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    /// Waits until it has at most this many files open; `false` if that takes too long.
    pub async fn closes_down_to(&self, files: usize, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.open_files() > files {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
