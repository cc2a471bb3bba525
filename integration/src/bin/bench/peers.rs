//! The peers: a Docker engine, an OpenSSH server, `btrfs` and `cp`, all real.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use teu_integration::world::{World, eventually, free_port, make_busybox, try_get};

use super::statistics::{Failure, Times};

/// Runs a program to its end; its output if it succeeded.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

/// Whether a Docker engine answers; gives it the busybox image if so.
pub(crate) fn docker(world: &World) -> bool {
    if output("docker", &["version"]).is_err() {
        return false;
    }
    let archive = world.scratch().join("docker-busybox.tar");
    make_busybox(&archive);
    output(
        "docker",
        &["load", "-q", "-i", &archive.display().to_string()],
    )
    .is_ok()
}

/// `docker run -d` until it returns.
pub(crate) fn docker_spawns(count: usize) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let id = output("docker", &["run", "-d", "busybox", "sleep", "1000"])?;
        times.push(started.elapsed());
        output("docker", &["rm", "-f", &id])?;
    }
    Ok(Times::new(times))
}

/// `docker run -d -p` until the first HTTP 200.
pub(crate) fn docker_first_page(count: usize) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..count {
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        let started = Instant::now();
        let server = [
            "run", "-d", "-p", &publish, "busybox", "httpd", "-f", "-p", "80", "-h", "/var/www",
        ];
        let id = output("docker", &server)?;
        while !try_get(("127.0.0.1", port), "/").is_ok_and(|(status, _)| status == 200) {
            std::thread::yield_now();
        }
        times.push(started.elapsed());
        output("docker", &["rm", "-f", &id])?;
    }
    Ok(Times::new(times))
}

/// So many `docker run -d` at once, until the last returns.
pub(crate) fn docker_parallel(count: usize) -> Result<Duration, Failure> {
    let started = Instant::now();
    let clients: Vec<Child> = (0..count)
        .map(|_| {
            Command::new("docker")
                .args(["run", "-d", "-l", "teu-bench", "busybox", "sleep", "1000"])
                .stdout(Stdio::null())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    for mut client in clients {
        client.wait()?;
    }
    let elapsed = started.elapsed();
    let ids = output("docker", &["ps", "-q", "--filter", "label=teu-bench"])?;
    let mut remove = vec!["rm", "-f"];
    remove.extend(ids.lines());
    output("docker", &remove)?;
    Ok(elapsed)
}

/// An SSH server of our own on loopback, with a key of our own.
pub(crate) struct Ssh {
    server: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Ssh {
    pub(crate) fn start() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "user"] {
            output(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)],
            )?;
        }
        fs::copy(path("user.pub"), path("authorized"))?;
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             PidFile none\nPermitRootLogin yes\nUsePAM no\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("config"), config)?;
        fs::create_dir_all("/run/sshd")?;
        let log = fs::File::create(path("log"))?;
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("config")])
            .stderr(log)
            .spawn()?;
        eventually("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Ok(Self {
            server,
            directory,
            port,
        })
    }

    /// `ssh -L`: the local port that leads to `to`.
    pub(crate) fn forward(&self, to: u16, cipher: &str) -> Result<(Child, u16), Failure> {
        let local = free_port();
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let child = Command::new("ssh")
            .args([
                "-N",
                "-p",
                &self.port.to_string(),
                "-i",
                &path("user"),
                "-c",
                cipher,
            ])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "LogLevel=ERROR",
                "-L",
                &format!("127.0.0.1:{local}:127.0.0.1:{to}"),
            ])
            .arg("127.0.0.1")
            .spawn()?;
        eventually("ssh forwards", || {
            std::net::TcpStream::connect(("127.0.0.1", local)).is_ok()
        });
        Ok((child, local))
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// `btrfs subvolume snapshot` of a tree by hand, until it is on the disk.
pub(crate) fn btrfs_snapshots(tree: &Path, count: usize) -> Result<Times, Failure> {
    beside(tree, count, |from, to| {
        output("btrfs", &["subvolume", "snapshot", "-r", from, to])?;
        output("btrfs", &["filesystem", "sync", to])?;
        Ok(())
    })
}

/// A copy of every file of a tree, until it is on the disk.
pub(crate) fn copies(tree: &Path, count: usize) -> Result<Times, Failure> {
    beside(tree, count, |from, to| {
        output("btrfs", &["subvolume", "create", to])?;
        let all = format!("{from}/.");
        output("cp", &["-a", "--reflink=never", &all, to])?;
        output("btrfs", &["filesystem", "sync", to])?;
        Ok(())
    })
}

/// How long it takes to make something of a tree beside it; it is deleted again, not counted.
fn beside(
    tree: &Path,
    count: usize,
    make: impl Fn(&str, &str) -> Result<(), Failure>,
) -> Result<Times, Failure> {
    let (from, to) = (
        tree.display().to_string(),
        tree.with_file_name("bench-peer"),
    );
    let to = to.display().to_string();
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        make(&from, &to)?;
        times.push(started.elapsed());
        output("btrfs", &["subvolume", "delete", "-c", &to])?;
    }
    Ok(Times::new(times))
}
