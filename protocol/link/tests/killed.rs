//! A peer whose process is killed: noticed at once, whatever was under way.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod router;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use router::{Router, Said, key, location};
use teu_link::{Connection, Dialer, LinkError};
use tokio::time::timeout;

const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// Tells this program that it is the peer.
const IS_PEER: &str = "TEU_LINK_TEST_PEER";
const ADDRESS: &str = "peer at ";

/// The test program is its own peer: no harness, for it must start as either.
fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(IS_PEER).is_some() {
        runtime.block_on(peer());
        return;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let test = libtest_mimic::Trial::test("a_killed_peer_is_noticed_within_a_second", move || {
        runtime.block_on(a_killed_peer_is_noticed_within_a_second());
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![test]).exit();
}

/// The process that is killed.
async fn peer() {
    let router = Router::bind().await;
    eprintln!("{ADDRESS}{}", router.address());
    // It reads nothing after the handshake, so that bytes wait in its socket when it dies.
    let _peer = router.accept().await;
    std::future::pending::<()>().await;
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_peer() -> (Killed, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(IS_PEER, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let child = Killed(child);
    let mut lines = stderr.lines().map(Result::unwrap);
    let address = lines.find_map(|line| line.strip_prefix(ADDRESS).map(str::to_owned));
    (child, address.unwrap())
}

async fn a_killed_peer_is_noticed_within_a_second() {
    for bytes_under_way in [0, 10_000, 900_000] {
        let (mut child, address) = start_peer();
        let dialer = Dialer::new(address, location(), key(2));
        let connection: Connection<Said, Said> = dialer.dial(b"").await.unwrap();
        let (sender, mut receiver) = connection.split();
        if bytes_under_way > 0 {
            let bulk = Bytes::from(vec![7; bytes_under_way]);
            sender.send(Said::Number(1), vec![bulk]).await.unwrap();
        }
        let start = Instant::now();
        // SIGKILL.
        child.0.kill().unwrap();
        let error = timeout(20 * NOTICED_WITHIN, receiver.recv())
            .await
            .unwrap()
            .unwrap_err();
        let noticed = start.elapsed();
        assert!(matches!(error, LinkError::Closed), "{error:?}");
        assert!(noticed < NOTICED_WITHIN, "{noticed:?}");
        assert!(sender.is_closed());
    }
}
