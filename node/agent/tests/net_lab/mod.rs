//! A small world for the network tests: a "host" in a network namespace of its own, with a "lan",
//! an "internet" and containers around it, each a namespace as well. The machine's own network is
//! neither used nor touched.
//!
//! Owned by one test each, gone with it. Next: `net.rs`, `net_life.rs`.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use teu_node::sys::names::SlotName;
use teu_node::sys::net::{NetConfig, NetworkHandle};

/// How long something that must arrive may take.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    // An emulated guest is many times slower (deploy/vm).
    let slowness = std::env::var("TEU_TEST_PATIENCE").map_or(1, |times| times.parse().unwrap());
    Duration::from_secs(5) * slowness
});
/// How long to wait for something that must not arrive. A dropped packet has no other sign.
pub const SILENCE: Duration = Duration::from_millis(250);

pub const INTERNET: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
pub const HOST_PUBLIC: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 1);
pub const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 9);
pub const HOST_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

/// A network namespace, alive as long as this value.
#[derive(Debug)]
pub struct Ns {
    child: Child,
}

impl Ns {
    pub fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn enter(&self) {
        let file = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `inside` on a thread in this namespace.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                inside()
            });
            thread.join().unwrap()
        })
    }

    /// Runs a command line in this namespace; it must succeed.
    pub fn sh(&self, line: &str) -> String {
        self.run(|| sh(line))
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        self.run(|| bound(|| TcpListener::bind(address)))
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        self.run(|| bound(|| UdpSocket::bind(address)))
    }

    pub fn connect(&self, to: (impl Into<IpAddr>, u16)) -> io::Result<TcpStream> {
        self.connect_within(to, *PATIENCE)
    }

    pub fn connect_within(
        &self,
        (ip, port): (impl Into<IpAddr>, u16),
        patience: Duration,
    ) -> io::Result<TcpStream> {
        let address = SocketAddr::new(ip.into(), port);
        self.run(|| TcpStream::connect_timeout(&address, patience))
    }

    /// Whether a connection attempt meets silence (dropped), as opposed to success or refusal.
    pub fn is_denied(&self, to: (impl Into<IpAddr>, u16)) -> bool {
        match self.connect_within(to, SILENCE) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::TimedOut,
        }
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds. A closed socket's address may stay in use for a moment: another test's child process,
/// between fork and exec, still holds all descriptors.
fn bound<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < *PATIENCE =>
            {
                std::thread::yield_now();
            }
            outcome => return outcome.unwrap(),
        }
    }
}

/// Runs a command line here; it must succeed.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The host's surroundings.
#[derive(Debug)]
pub struct Lab {
    pub host: Ns,
    pub lan: Ns,
    pub internet: Ns,
}

impl Lab {
    fn new() -> Self {
        let lab = Self {
            host: Ns::new(),
            lan: Ns::new(),
            internet: Ns::new(),
        };
        lab.host.sh("ip link set lo up");
        lab.join(&lab.lan, "lan0", &HOST_LAN.to_string(), &LAN.to_string());
        lab.join(
            &lab.internet,
            "up0",
            &HOST_PUBLIC.to_string(),
            &INTERNET.to_string(),
        );
        // Hostile neighbours: both know a way to the containers.
        lab.lan
            .sh(&format!("ip route add 10.77.0.0/16 via {HOST_LAN}"));
        lab.host.sh(&format!("ip route add default via {INTERNET}"));
        lab
    }

    fn join(&self, other: &Ns, name: &str, here: &str, there: &str) {
        let pid = other.pid();
        self.host.sh(&format!(
            "ip link add {name} type veth peer name eth0 netns {pid}; ip addr add {here}/24 dev \
             {name}; ip link set {name} up"
        ));
        other.sh(&format!(
            "ip link set lo up; ip addr add {there}/24 dev eth0; ip link set eth0 up"
        ));
    }
}

/// Runs `test` with a lab, on a thread and a single-threaded runtime inside the lab's host.
/// Without root there is nothing to test; says so.
pub fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Arc<Lab>) -> F + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    // Kept here: a test that does not use its lab would drop it at once.
    let lab = Arc::new(Lab::new());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lab.host.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(test(Arc::clone(&lab)));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub fn config() -> NetConfig {
    config_of("teu", "10.77.1.0/24")
}

pub fn config_of(instance: &str, subnet: &str) -> NetConfig {
    let location = "10.77.0.0/16".parse().unwrap();
    let mut config = NetConfig::new(instance.parse().unwrap(), subnet.parse().unwrap(), location);
    config.address_rest = Duration::from_millis(100);
    config
}

/// A container: a namespace with what the network gave it.
#[derive(Debug)]
pub struct Box {
    pub ns: Ns,
    pub slot: SlotName,
    pub ip: Ipv4Addr,
    pub veth: String,
}

pub fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

pub async fn spawn(net: &NetworkHandle, name: &str) -> Box {
    let ns = Ns::new();
    let prepared = net.prepare(vec![(slot(name), ns.pid())]).await.unwrap();
    let net = prepared.into_iter().next().unwrap();
    Box {
        ns,
        slot: net.slot,
        ip: net.ip,
        veth: net.veth,
    }
}

/// Sends `bytes` one way and says whether they arrived within `patience`.
pub fn passes(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8], patience: Duration) -> bool {
    from.write_all(bytes).unwrap();
    to.set_read_timeout(Some(patience)).unwrap();
    let mut got = vec![0; bytes.len()];
    match to.read_exact(&mut got) {
        Ok(()) => {
            assert_eq!(got, bytes);
            true
        }
        Err(error) => {
            assert!(
                matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ),
                "{error}"
            );
            false
        }
    }
}

/// Whether a datagram from `from` to `to` arrives at `receiver`.
pub fn datagram_arrives(
    from: &UdpSocket,
    to: SocketAddr,
    receiver: &UdpSocket,
    patience: Duration,
) -> bool {
    // A local refusal (no route, ICMP) is a way of not arriving.
    let _ = from.send_to(b"hello", to);
    receiver.set_read_timeout(Some(patience)).unwrap();
    receiver.recv(&mut [0; 16]).is_ok()
}

/// Waits until `true`; fails after `PATIENCE`.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < *PATIENCE,
            "not within {:?}: {what}",
            *PATIENCE
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

/// Loads an nft script here, as somebody else would.
pub fn nft(script: &str) {
    sh(&format!("nft -f - <<'END'\n{script}\nEND"));
}

/// Everything of the namespace that a network program might change, without what comes and goes
/// by itself (carrier, neighbours in use).
pub fn state_of_host() -> String {
    let state = sh(
        "ip -o link | sed 's/^[0-9]*: //; s/ state .*//; s/ master .*//'
        ip -4 addr | grep inet; ip route; ip rule; ip neigh show nud permanent
        nft -s list ruleset",
    );
    state
        .replace("NO-CARRIER,", "")
        .replace(",LOWER_UP", "")
        .replace(" linkdown", "")
}
