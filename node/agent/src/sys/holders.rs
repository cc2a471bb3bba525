//! Which processes have something of a file system open, from `/proc`.
//!
//! Owner: the volume worker; the processes stand still while it looks. Invariants: names come from
//! containers, so they are made printable and short; a process that ends meanwhile holds nothing.
//! Not seen: descriptors on their way over a socket that nobody has received yet.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Whoever refuses because of holders names a few; nobody reads more.
const HOLDERS_MAX: usize = 32;
/// Characters of a name that are shown.
const NAME_MAX: usize = 256;

/// Something that a process has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process's name, made printable.
    pub program: String,
    /// Its pid as its container sees it.
    pub pid_in_container: i32,
    /// What it holds.
    pub what: Held,
}

/// What a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// An open file or directory: its path in the container, made printable.
    File(String),
    /// Its working directory.
    WorkingDirectory,
    /// Its root directory.
    Root,
    /// A file that is mapped into its memory (also a program that it executes).
    Mapping(String),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}) ", self.program, self.pid_in_container)?;
        match &self.what {
            Held::File(path) => write!(f, "has {path} open"),
            Held::WorkingDirectory => f.write_str("works in it"),
            Held::Root => f.write_str("has its root in it"),
            Held::Mapping(path) => write!(f, "has {path} mapped into its memory"),
        }
    }
}

/// Who of `pids` has something of the file system `device` (a file's `st_dev`) open; not all, if there
/// are many. Each thing is told once for each process.
///
/// # Errors
/// `/proc` cannot be read for another reason than the process's end.
pub fn holders(pids: &[i32], device: u64) -> io::Result<Vec<Holder>> {
    let mut found = Vec::new();
    for &pid in pids {
        let held = match held_by(pid, device) {
            Err(error) if has_ended(&error) => continue,
            held => held?,
        };
        if held.is_empty() {
            continue;
        }
        let (program, pid_in_container) = (program(pid), pid_in_container(pid));
        for what in held {
            if found.len() >= HOLDERS_MAX {
                return Ok(found);
            }
            found.push(Holder {
                program: program.clone(),
                pid_in_container,
                what,
            });
        }
    }
    Ok(found)
}

/// A thing that ended, or a process without memory or files any more (it is about to end).
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL))
}

fn held_by(pid: i32, device: u64) -> io::Result<Vec<Held>> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut held = Vec::new();
    let mut add = |what: Held| {
        if !held.contains(&what) {
            held.push(what);
        }
    };
    if lies_on(&process.join("cwd"), device)? {
        add(Held::WorkingDirectory);
    }
    if lies_on(&process.join("root"), device)? {
        add(Held::Root);
    }
    // Every thread of a container shares these unless it was made not to.
    for task in entries(&process.join("task"))? {
        if lies_on(&task.join("cwd"), device)? {
            add(Held::WorkingDirectory);
        }
        for link in entries(&task.join("fd"))? {
            if lies_on(&link, device)? {
                add(Held::File(target(&link)));
            }
        }
    }
    for link in entries(&process.join("map_files"))? {
        if lies_on(&link, device)? {
            add(Held::Mapping(target(&link)));
        }
    }
    if lies_on(&process.join("exe"), device)? {
        add(Held::Mapping(target(&process.join("exe"))));
    }
    Ok(held)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir).and_then(|list| {
        list.map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Err(error) if has_ended(&error) => Ok(Vec::new()),
        listed => listed,
    }
}

/// The link leads to the open thing itself, not to what has its name now.
fn lies_on(link: &Path, device: u64) -> io::Result<bool> {
    match fs::metadata(link) {
        Ok(data) => Ok(data.dev() == device),
        Err(error) if has_ended(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn target(link: &Path) -> String {
    fs::read_link(link).map_or_else(
        |_| "a file".to_owned(),
        |path| printable(path.as_os_str().as_encoded_bytes()),
    )
}

fn program(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    printable(name.strip_suffix(b"\n").unwrap_or(&name))
}

fn pid_in_container(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("NSpid:")?
                .split_whitespace()
                .last()?
                .parse()
                .ok()
        })
        .unwrap_or(pid)
}

/// No control characters, nothing that a terminal obeys, and not endless.
fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let shown = text.chars().flat_map(|one| {
        let kept = (!one.is_control() && one != '\\').then_some(one);
        kept.into_iter().chain(
            kept.is_none()
                .then(|| one.escape_default())
                .into_iter()
                .flatten(),
        )
    });
    shown.take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_trick_a_terminal() {
        assert_eq!(
            printable(b"a\x1b[2J\nb\xff\\"),
            "a\\u{1b}[2J\\nb\u{fffd}\\\\"
        );
        assert_eq!(printable(&[b'x'; 5000]).len(), NAME_MAX);
    }

    #[test]
    fn an_open_file_and_its_end_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("open\nfile");
        let file = fs::File::create(&path).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let device = file.metadata().unwrap().dev();
        // Other tests of this process may have many files open on the same device.
        let seen = || {
            let held = held_by(own, device).unwrap();
            held.iter()
                .any(|what| matches!(what, Held::File(name) if name.ends_with("open\\nfile")))
        };
        assert!(seen());
        drop(file);
        assert!(!seen());
        assert_eq!(holders(&[i32::MAX], device).unwrap(), Vec::new());
    }
}
