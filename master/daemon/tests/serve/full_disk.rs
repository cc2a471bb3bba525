//! The master's log lies on a full disk.

use std::{
    fs::{self, File, OpenOptions},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// All that is written there fails with ENOSPC.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

struct Master(Child);

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the ready file, as long as the master lives.
fn address(master: &mut Master, ready: &Path) -> SocketAddr {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert_eq!(master.0.try_wait().unwrap(), None, "the master has ended");
        assert!(Instant::now() < deadline, "the master is not ready");
        if let Ok(text) = fs::read_to_string(ready) {
            return text.trim().parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_master() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let master = Command::new(env!("CARGO_BIN_EXE_teu-master"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--fqdn",
            "full.localhost",
            "--data",
        ])
        .arg(dir.path().join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .env("TEU_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    let mut master = Master(master);
    let address = address(&mut master, &ready);
    for _ in 0..20 {
        // Each is a line in the log, and is closed by the master when it has read this.
        let mut peer = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut peer, &[b'x'; 100]).unwrap();
        let mut said = Vec::new();
        let _ = std::io::Read::read_to_end(&mut peer, &mut said);
    }
    assert_eq!(master.0.try_wait().unwrap(), None, "the master has ended");
}
