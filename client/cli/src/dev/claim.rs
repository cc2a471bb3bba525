//! Before a start: the directory becomes the location's, or is refused.
//!
//! Invariant: when a claim is given, the mark is on disk, the registry has the location, and no other
//! living location has its name, instance, range or port. A start that fails takes back what it claimed.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use teu::config::Config;

use super::{
    DevError, Layout,
    choose::{self, Machine, Wanted},
    error::file_error,
    layout::{LEGACY, command},
    mark::Mark,
    processes,
    registry::Registry,
    values::{Instance, LocationName, Range},
};
use crate::failure::Failure;

/// What a mount point has in it when it is empty.
const LOST_AND_FOUND: &str = "lost+found";

/// A directory that is the location's.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) layout: Layout,
    /// The location was made by this claim.
    pub(super) is_new: bool,
    /// So was its directory.
    pub(super) made_directory: bool,
}

/// What a directory without a mark is.
enum Unmarked {
    Absent,
    Empty,
    /// The data of a location that was made before there were marks.
    Legacy,
}

/// Claims the directory for the location that is wanted there.
pub(super) fn claim(wanted: &Wanted, data: &Path, home: PathBuf) -> Result<Claim, Failure> {
    if let Some(pid) = processes::supervisor(data) {
        return Err(running(data, pid).into());
    }
    let mut registry = Registry::open()?;
    let others = registry.others(data);
    if let Some(mut mark) = Mark::read(data)? {
        choose::same(wanted, &mark, data, &[])?;
        mark.home = home;
        choose::check(&mark, data, &others)?;
        mark.write(data)?;
        registry.put(data)?;
        return Ok(Claim {
            layout: Layout::new(data.to_owned(), mark)?,
            is_new: false,
            made_directory: false,
        });
    }
    let unmarked = look(data)?;
    let mark = match unmarked {
        Unmarked::Legacy => choose::choose(wanted, data, &home, &others, &Anything)?,
        Unmarked::Absent | Unmarked::Empty => {
            let here = Here::look(&home)?;
            let mark = choose::choose(wanted, data, &home, &others, &here)?;
            pool_is_there(&mark.pool)?;
            mark
        }
    };
    // Whatever can be refused is refused before something is made.
    Layout::new(data.to_owned(), mark.clone())?;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data);
    made.map_err(file_error("make", data))?;
    let data = fs::canonicalize(data).map_err(file_error("find", data))?;
    mark.write(&data)?;
    registry.put(&data)?;
    Ok(Claim {
        layout: Layout::new(data, mark)?,
        is_new: !matches!(unmarked, Unmarked::Legacy),
        made_directory: matches!(unmarked, Unmarked::Absent),
    })
}

/// The location that is in the directory, for a supervisor whose starter has claimed it.
pub(super) fn claimed(data: &Path) -> Result<Claim, Failure> {
    let mark = Mark::read(data)?.ok_or_else(|| no_location(data))?;
    Ok(Claim {
        layout: Layout::new(data.to_owned(), mark)?,
        is_new: false,
        made_directory: false,
    })
}

pub(super) fn running(data: &Path, pid: u32) -> DevError {
    DevError::Running {
        data: data.to_owned(),
        pid,
        stop: command(data, &["--stop"]),
    }
}

pub(super) fn no_location(data: &Path) -> DevError {
    DevError::NoLocation {
        data: data.to_owned(),
        start: command(data, &[]),
    }
}

/// The same directory by one name, whatever it was called and whether or not it is there.
pub(super) fn resolved(data: &Path) -> Result<PathBuf, DevError> {
    let absolute = std::path::absolute(data).map_err(file_error("find", data))?;
    if let Ok(found) = fs::canonicalize(&absolute) {
        return Ok(found);
    }
    let parent = absolute
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    Ok(parent
        .zip(absolute.file_name())
        .map_or_else(|| absolute.clone(), |(parent, name)| parent.join(name)))
}

fn look(data: &Path) -> Result<Unmarked, DevError> {
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Unmarked::Absent),
        Err(error) => return Err(file_error("read", data)(error)),
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let has = |name: &&str| names.iter().any(|found| found == *name);
    if LEGACY.iter().all(has) {
        return Ok(Unmarked::Legacy);
    }
    if names.iter().all(|name| name == LOST_AND_FOUND) {
        return Ok(Unmarked::Empty);
    }
    Err(DevError::Foreign {
        data: data.to_owned(),
    })
}

/// Says now what the node would only write into its log.
fn pool_is_there(pool: &str) -> Result<(), DevError> {
    let refuse = |why: String| {
        Err(DevError::Pool {
            pool: pool.to_owned(),
            why,
        })
    };
    let directory = match pool.strip_prefix("loop:") {
        Some(file) => Path::new(file).parent().unwrap_or(Path::new("/")),
        None if pool.starts_with('/') => Path::new(pool),
        None => return Ok(()),
    };
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refuse(format!("{} is not a directory", directory.display())),
        Err(error) => refuse(format!("the directory {}: {error}", directory.display())),
    }
}

/// This machine, as the kernel and the client's list of locations tell.
struct Here {
    config: Config,
    routes: Vec<Range>,
}

impl Here {
    fn look(home: &Path) -> Result<Self, Failure> {
        let table = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
        Ok(Self {
            config: Config::load(home)?,
            routes: table.lines().skip(1).filter_map(route).collect(),
        })
    }
}

impl Machine for Here {
    fn port_is_free(&self, port: u16) -> bool {
        port_is_free(port)
    }

    fn instance_is_free(&self, instance: &Instance) -> bool {
        !processes::has_containers(instance)
    }

    fn is_routed(&self, range: Range) -> bool {
        self.routes.iter().any(|route| route.overlaps(range))
    }

    fn is_known_elsewhere(&self, name: &LocationName) -> bool {
        let Some(entry) = self.config.locations.get(name.as_str()) else {
            return false;
        };
        // Of a location of this machine that is no more, an entry may be left.
        let port = entry.endpoint.strip_prefix("127.0.0.1:");
        let left = port
            .filter(|_| entry.fqdn == format!("{name}.localhost"))
            .and_then(|port| port.parse().ok())
            .is_some_and(port_is_free);
        !left
    }
}

/// For the data of a location that was made before there were marks: its values are its own.
struct Anything;

impl Machine for Anything {
    fn port_is_free(&self, _: u16) -> bool {
        true
    }

    fn instance_is_free(&self, _: &Instance) -> bool {
        true
    }

    fn is_routed(&self, _: Range) -> bool {
        false
    }

    fn is_known_elsewhere(&self, _: &LocationName) -> bool {
        false
    }
}

/// Other troubles than that somebody has it are the master's to tell.
pub(super) fn port_is_free(port: u16) -> bool {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    !bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Destination and mask of a line of `/proc/net/route`, as hexadecimal numbers of this machine's byte
/// order; the default route is no destination.
fn route(line: &str) -> Option<Range> {
    let mut fields = line.split_whitespace();
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let destination = number(fields.nth(1)?)?;
    let mask = number(fields.nth(5)?)?;
    if mask == 0 {
        return None;
    }
    let base = Ipv4Addr::from(destination.to_ne_bytes());
    let prefix = u8::try_from(mask.count_ones()).ok()?;
    Range::new(base, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_has_is_not_free() {
        let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = somebody.local_addr().unwrap().port();
        assert!(!port_is_free(port));
        drop(somebody);
        assert!(port_is_free(port));
    }

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0";
        if cfg!(target_endian = "little") {
            assert_eq!(route(line).unwrap().to_string(), "10.77.0.0/16");
        }
        let default = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        assert!(route(default).is_none());
        assert!(route("broken").is_none());
    }

    #[test]
    fn only_an_empty_or_missing_directory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(look(&missing), Ok(Unmarked::Absent)));
        assert!(!missing.exists());
        assert!(matches!(look(dir.path()), Ok(Unmarked::Empty)));
        fs::create_dir(dir.path().join(LOST_AND_FOUND)).unwrap();
        assert!(matches!(look(dir.path()), Ok(Unmarked::Empty)));
        fs::write(dir.path().join("precious"), "mine").unwrap();
        assert!(matches!(look(dir.path()), Err(DevError::Foreign { .. })));
        for name in LEGACY {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(matches!(look(dir.path()), Ok(Unmarked::Legacy)));
    }

    #[test]
    fn a_pool_that_cannot_be_is_refused_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/f");
        let pool = format!("loop:{}", file.display());
        assert!(matches!(pool_is_there(&pool), Err(DevError::Pool { .. })));
        assert!(!dir.path().join("a").exists());
        assert!(pool_is_there("/nosuch").is_err());
        for good in ["auto", "none", "zfs:tank/teu", "/tmp", "loop:/tmp/f"] {
            assert!(pool_is_there(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn one_directory_has_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        let link = real.join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(resolved(&link).unwrap(), real);
        assert_eq!(resolved(&link.join("new")).unwrap(), real.join("new"));
    }
}
