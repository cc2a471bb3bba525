//! Published ports: how they are written, and who holds those of background containers.
//!
//! `teu run -d -p` ends at once, so a `teu tunnel --hold` process of its own holds the listeners
//! until the container ends. Each leaves a record `~/.teu/tunnels/<pid>.json`; a record whose process
//! is gone does not count.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    task::Poll,
};

use serde::{Deserialize, Serialize};
use teu::{Container, ContainerId, Tunnel};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::{args::Globals, failure::Failure};

/// Different reasons for reset connections that one command tells.
const REASONS_TOLD: usize = 16;

/// `[[IP:]LOCAL:]CONTAINER`; without LOCAL, any free port; without IP, both addresses of `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortSpec {
    ip: Option<IpAddr>,
    local: u16,
    pub(crate) container: u16,
}

impl PortSpec {
    /// Where to listen. On this machine only, unless told.
    pub(crate) const fn listen_address(&self) -> SocketAddr {
        let ip = match self.ip {
            Some(ip) => ip,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        SocketAddr::new(ip, self.local)
    }

    /// The other address of `localhost`, which many clients try first; `port` is that of the first.
    fn beside(&self, port: u16) -> Option<SocketAddr> {
        let also = self.ip.is_none() && port != 0;
        also.then(|| SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port))
    }

    /// Whether the system chooses the local port.
    pub(crate) const fn is_any(&self) -> bool {
        self.local == 0
    }

    fn to_argument(self) -> String {
        match (self.ip, self.local) {
            (Some(_), _) => format!("{}:{}", self.listen_address(), self.container),
            (None, 0) => self.container.to_string(),
            (None, local) => format!("{local}:{}", self.container),
        }
    }
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "LOCAL:CONTAINER is expected, such as 8080:80";
        let (before, container) = text
            .rsplit_once(':')
            .map_or((None, text), |(b, c)| (Some(b), c));
        let container: u16 = container
            .trim_end_matches("/tcp")
            .parse()
            .map_err(|_| EXPECTED)?;
        if container == 0 {
            return Err("port 0 of a container cannot be reached".to_owned());
        }
        let (ip, local) = match before {
            None => (None, 0),
            Some(before) => match before.rsplit_once(':') {
                Some((ip, local)) => {
                    let ip = ip.trim_start_matches('[').trim_end_matches(']');
                    let ip = ip
                        .parse()
                        .map_err(|_| format!("`{ip}` is not an IP address"))?;
                    // As Docker has it: `127.0.0.1::80` is any port of that address.
                    let local = if local.is_empty() { "0" } else { local };
                    (Some(ip), local.parse().map_err(|_| EXPECTED)?)
                }
                None => (None, before.parse().map_err(|_| EXPECTED)?),
            },
        };
        Ok(Self {
            ip,
            local,
            container,
        })
    }
}

/// A connection is a file: the soft limit is often 1024, less than two tunnels carry.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Else fewer connections are carried, and each that is not is told.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Listeners for one port of a container.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The one that people are told of.
    pub(crate) tunnel: Tunnel,
    beside: Option<Tunnel>,
}

impl Listening {
    /// Every listener.
    fn tunnels(&mut self) -> impl Iterator<Item = &mut Tunnel> {
        std::iter::once(&mut self.tunnel).chain(&mut self.beside)
    }
}

/// Listens for a container's port.
pub(crate) async fn listen(container: &Container, port: &PortSpec) -> Result<Listening, Failure> {
    let tunnel = listen_at(container, port.listen_address(), port.container).await?;
    let beside = match port.beside(tunnel.local_addr().port()) {
        None => None,
        Some(address) => match listen_at(container, address, port.container).await {
            Ok(tunnel) => Some(tunnel),
            Err(failure) if port.is_any() || has_no_ipv6(&failure) => None,
            Err(failure) => return Err(failure),
        },
    };
    Ok(Listening { tunnel, beside })
}

async fn listen_at(
    container: &Container,
    address: SocketAddr,
    port: u16,
) -> Result<Tunnel, Failure> {
    match container.tunnel_at(address, port).await {
        Err(teu::Error::Io { source, .. }) => Err(cannot_listen(address, source)),
        listening => Ok(listening?),
    }
}

/// Says on stderr why connections cannot be carried, each reason once. Does not end.
pub(crate) async fn tell_refusals<'a>(
    listening: impl Iterator<Item = &'a mut Listening>,
) -> std::convert::Infallible {
    let mut tunnels: Vec<&mut Tunnel> = listening.flat_map(Listening::tunnels).collect();
    let mut told: Vec<String> = Vec::new();
    loop {
        let why = std::future::poll_fn(|context| {
            let refused = |tunnel: &mut &mut Tunnel| {
                let asking = std::pin::pin!(tunnel.refused());
                match asking.poll(context) {
                    Poll::Ready(why) => Some(why.to_string()),
                    Poll::Pending => None,
                }
            };
            let why = tunnels.iter_mut().find_map(refused);
            why.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        if told.len() < REASONS_TOLD && !told.contains(&why) {
            crate::output::note(&format!("teu: {why}; the connection was reset"));
            told.push(why);
        }
    }
}

/// Whether the address is none of this machine's, as `::1` is without IPv6.
fn has_no_ipv6(failure: &Failure) -> bool {
    matches!(failure, Failure::Listen { source, .. } if no_such_address(source))
}

fn no_such_address(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Says now that a port is taken, not when the container is there.
pub(crate) fn check(ports: &[PortSpec]) -> Result<(), Failure> {
    let mut held = Vec::new();
    for port in ports {
        let address = port.listen_address();
        held.push(TcpListener::bind(address).map_err(|source| cannot_listen(address, source))?);
        if let Some(beside) = port.beside(port.local) {
            match TcpListener::bind(beside) {
                Ok(listener) => held.push(listener),
                Err(error) if no_such_address(&error) => {}
                Err(error) => return Err(cannot_listen(beside, error)),
            }
        }
    }
    Ok(())
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> Failure {
    let help = match source.kind() {
        io::ErrorKind::AddrInUse => "choose another local port, or leave it out for any free one",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "the address must be one of this machine",
        _ => "choose another local address",
    };
    Failure::Listen {
        address,
        help,
        source,
    }
}

/// One published port of a background container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) container: ContainerId,
    pub(crate) local: SocketAddr,
    pub(crate) port: u16,
}

/// A holder's record, removed when it ends.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

impl Record {
    /// Writes the record of this process.
    pub(crate) fn write(
        globals: &Globals,
        container: ContainerId,
        tunnels: &[(Listening, u16)],
    ) -> Result<Self, Failure> {
        let published: Vec<Published> = tunnels
            .iter()
            .map(|(listening, port)| Published {
                container,
                local: listening.tunnel.local_addr(),
                port: *port,
            })
            .collect();
        let directory = directory(globals);
        let path = directory.join(format!("{}.json", std::process::id()));
        let text = serde_json::to_vec(&published)?;
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| Failure::File {
                what: format!("cannot write {}", path.display()),
                source,
            })?;
        Ok(Self(path))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The published ports of this user's background containers.
pub(crate) fn all(globals: &Globals) -> Vec<Published> {
    let Ok(entries) = fs::read_dir(directory(globals)) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| read(&entry.path()))
        .flatten()
        .collect()
}

fn read(path: &Path) -> Option<Vec<Published>> {
    let pid = path.file_stem()?.to_str()?;
    let alive = fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"--hold"));
    if !alive {
        let _ = fs::remove_file(path);
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn directory(globals: &Globals) -> PathBuf {
    teu::config::home(globals.home.as_deref()).join("tunnels")
}

/// Starts a holder for these ports and waits until it listens.
pub(crate) async fn hold_in_background(
    globals: &Globals,
    container: &Container,
    ports: &[PortSpec],
) -> Result<(), Failure> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut holder = holder(globals, container, ports)
        .spawn()
        .map_err(|error| Failure::Background(error.to_string()))?;
    let Some(stdout) = holder.stdout.take() else {
        return Ok(());
    };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "ready" {
            return Ok(());
        }
        crate::output::note(&line);
    }
    let mut said = String::new();
    if let Some(mut stderr) = holder.stderr.take() {
        let _ = stderr.read_to_string(&mut said).await;
    }
    let said = said.trim();
    let said = said.strip_prefix("teu: ").unwrap_or(said);
    Err(Failure::Background(said.to_owned()))
}

fn holder(globals: &Globals, container: &Container, ports: &[PortSpec]) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "teu".into());
    let mut command = Command::new(program);
    command.args(["--session", &globals.session]);
    if let Some(home) = &globals.home {
        command.arg("--home").arg(home);
    }
    if let Some(location) = &globals.location {
        command.args(["--location", location]);
    }
    command.args(["tunnel", "--hold", &container.id().to_string()]);
    command.args(ports.iter().map(|port| port.to_argument()));
    // A process group of its own: Ctrl-C at our terminal is not meant for it.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_docker_users_do() {
        let parsed = |text: &str| {
            let port: PortSpec = text.parse().unwrap();
            (port.listen_address().to_string(), port.container)
        };
        assert_eq!(parsed("8080:80"), ("127.0.0.1:8080".into(), 80));
        assert_eq!(parsed("80"), ("127.0.0.1:0".into(), 80));
        assert_eq!(parsed("8080:80/tcp"), ("127.0.0.1:8080".into(), 80));
        assert_eq!(parsed("0.0.0.0:8080:80"), ("0.0.0.0:8080".into(), 80));
        assert_eq!(parsed("[::1]:8080:80"), ("[::1]:8080".into(), 80));
        assert_eq!(parsed("127.0.0.1::80"), ("127.0.0.1:0".into(), 80));
        for bad in ["", "x", "8080:", ":80", "70000:80", "8080:0", "a:1:2"] {
            assert!(bad.parse::<PortSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn both_addresses_of_localhost_are_listened_on_unless_one_is_named() {
        let beside = |text: &str| {
            let port: PortSpec = text.parse().unwrap();
            port.beside(port.local).map(|address| address.to_string())
        };
        assert_eq!(beside("8080:80").as_deref(), Some("[::1]:8080"));
        assert_eq!(beside("127.0.0.1:8080:80"), None);
        assert_eq!(beside("0.0.0.0:8080:80"), None);
        let any: PortSpec = "80".parse().unwrap();
        assert_eq!(any.beside(4321).unwrap().to_string(), "[::1]:4321");
    }

    #[test]
    fn a_port_that_is_taken_on_the_other_address_of_localhost_is_refused() {
        let Ok(somebody) = TcpListener::bind("[::1]:0") else {
            return;
        };
        let port = somebody.local_addr().unwrap().port();
        let wanted: PortSpec = format!("{port}:80").parse().unwrap();
        let refused = check(&[wanted]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("cannot listen at [::1]:{port}")
        );
    }

    #[test]
    fn a_port_survives_being_an_argument() {
        for text in ["80", "8080:80", "0.0.0.0:1:2", "[::1]:3:4"] {
            let port: PortSpec = text.parse().unwrap();
            assert_eq!(port.to_argument().parse(), Ok(port));
        }
    }
}
