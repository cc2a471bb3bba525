//! Finding and making paths inside a root as other engines do: links are followed inside of it, also
//! those that lead to what is not there yet, and what is missing is made there.
//!
//! Owner: [`Root`]. Invariants: each step opens one name below a directory that is open, without
//! following a link; a link's text is walked here, from the root or from where it lies; nothing is
//! made in `/proc`, `/sys` and `/dev`, which are the kernel's; an error names the path that was asked
//! for. Next: `open_in_root` for the system call.
#![allow(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use teu_protocol::image_config::user::Owner;

use super::{DIR_MODE, KERNELS_OWN, Root, relative};
use crate::sys::open_in_root::open_in_root;

/// Links on one way, as in Linux (MAXSYMLINKS).
const LINKS_MAX: u32 = 40;
/// Steps on one way: a path of 4096 bytes has at most 2048 names, and links may add some.
const STEPS_MAX: u32 = 8_192;
/// The names in a container's root that the kernel's own file systems cover.
const RESERVED: [&str; 3] = ["proc", "sys", "dev"];

/// Where a path ends.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory that it lies in.
    pub(super) parent: OwnedFd,
    /// Its name there; none for the root itself.
    pub(super) name: Option<OsString>,
    /// The same from the root, without links.
    real: PathBuf,
    /// What is there.
    pub(super) found: Option<Found>,
}

#[derive(Debug)]
pub(super) enum Found {
    Directory(OwnedFd),
    File,
    /// A device, a FIFO, a socket.
    Other,
}

/// One name in a directory.
enum Step {
    Missing,
    Link(PathBuf),
    Is(Found),
}

impl Root {
    /// As [`Root::open_at`], for whoever names the path in an error by itself.
    pub(super) fn open_inside(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        self.making(|| {
            let (path, mode) = (relative(path), Mode::from_raw_mode(mode));
            let opened = open_in_root(&self.fd, path, flags, mode, ResolveFlags::empty());
            Ok(opened?)
        })
    }

    /// Opens a directory; what is missing on the way to it is made, for `owner`.
    ///
    /// # Errors
    /// What openat2(2) or mkdirat(2) said; a part of the path that is no directory; a place where nothing
    /// is made. The path is named.
    pub fn make_dirs(&self, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
        self.making_dirs(path, owner)
            .map_err(|error| named(path, &error))
    }

    fn making_dirs(&self, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
        // The kernel knows best; only what is not there is walked by hand.
        match self.open_inside(path, OFlags::PATH | OFlags::DIRECTORY, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let place = self.walk(path, owner)?;
        match (place.found, place.name) {
            (Some(Found::Directory(dir)), _) => Ok(dir),
            (None, Some(name)) => self.make_dir(&place.parent, &name, &place.real, owner),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Makes the working directory of the calling process, whose root this is, if it is missing, and enters it.
    ///
    /// # Errors
    /// As [`Root::make_dirs`]; a directory that the kernel does not find below the process's root.
    pub fn enter(&self, path: &Path, owner: Owner) -> io::Result<()> {
        let dir = self.make_dirs(path, owner)?;
        rustix::process::fchdir(&dir)
            .map_err(io::Error::from)
            .and_then(|()| must_stand_in_root())
            .map_err(|error| named(path, &error))
    }

    /// Where a file's path ends; the directories on the way to it are made, for the container's root.
    pub(super) fn place_of_file(&self, path: &Path) -> io::Result<Place> {
        let place = self.walk(path, Owner::ROOT)?;
        self.may_make(&place.parent, &place.real)?;
        Ok(place)
    }

    /// Makes sure that `name` in the root is a directory of its own: whatever else is there is replaced,
    /// as in Docker, for the kernel's file systems can be mounted on directories only.
    ///
    /// # Errors
    /// What the calls said.
    pub fn make_mount_point(&self, name: &str) -> io::Result<()> {
        let path = Path::new("/").join(name);
        let making = || -> io::Result<()> {
            let top = self.top()?;
            let name = OsStr::new(name);
            match look(&top, name)? {
                Step::Is(Found::Directory(_)) => return Ok(()),
                Step::Missing => {}
                Step::Link(_) | Step::Is(_) => {
                    rustix::fs::unlinkat(&top, name, AtFlags::empty())?;
                }
            }
            self.new_dir(&top, name, Owner::ROOT).map(drop)
        };
        making().map_err(|error| named(&path, &error))
    }

    /// Removes the file or link at `path` itself, if there is one.
    ///
    /// # Errors
    /// What the calls said; the path is named.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(named(path, &Errno::ISDIR.into()));
        };
        let parent = self.make_dirs(parent, Owner::ROOT)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(named(path, &error.into())),
        }
    }

    fn walk(&self, path: &Path, owner: Owner) -> io::Result<Place> {
        // The next one is the last.
        let mut todo = Vec::new();
        let mut real = PathBuf::new();
        push_parts(&mut todo, path);
        let (mut dir, mut links, mut steps) = (self.top()?, 0, 0);
        while let Some(part) = todo.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(Errno::LOOP.into());
            }
            if part == ".." {
                real.pop();
                dir = self.open_inside(&real, OFlags::PATH | OFlags::DIRECTORY, 0)?;
                continue;
            }
            let next = real.join(&part);
            let found = match look(&dir, &part)? {
                Step::Link(target) => {
                    links += 1;
                    // What /proc's links say is not where they lead.
                    if links > LINKS_MAX || is_the_kernels(&dir)? {
                        return Err(Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        real = PathBuf::new();
                        dir = self.top()?;
                    }
                    push_parts(&mut todo, &target);
                    continue;
                }
                Step::Is(Found::Directory(fd)) if !todo.is_empty() => {
                    (real, dir) = (next, fd);
                    continue;
                }
                Step::Missing if !todo.is_empty() => {
                    let made = self.make_dir(&dir, &part, &next, owner)?;
                    (real, dir) = (next, made);
                    continue;
                }
                Step::Is(_) if !todo.is_empty() => return Err(Errno::NOTDIR.into()),
                Step::Is(found) => Some(found),
                Step::Missing => None,
            };
            return Ok(Place {
                parent: dir,
                name: Some(part),
                real: next,
                found,
            });
        }
        // It ended with `..`, or was the root.
        let here = self.open_inside(&real, OFlags::PATH | OFlags::DIRECTORY, 0)?;
        Ok(Place {
            parent: dir,
            name: None,
            real,
            found: Some(Found::Directory(here)),
        })
    }

    fn top(&self) -> io::Result<OwnedFd> {
        self.open_inside(Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)
    }

    /// Makes one directory of the container; one that somebody else just made is as good.
    fn make_dir(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        real: &Path,
        owner: Owner,
    ) -> io::Result<OwnedFd> {
        self.may_make(parent, real)?;
        self.new_dir(parent, name, owner)
    }

    fn new_dir(&self, parent: &OwnedFd, name: &OsStr, owner: Owner) -> io::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(DIR_MODE);
        let made = self.making(|| match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let dir = one_name(parent, name, flags)?;
        if made {
            let (uid, gid) = self.owners(owner);
            rustix::fs::chownat(&dir, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        Ok(dir)
    }

    /// Nothing is made where the kernel's file systems are, or will be.
    fn may_make(&self, parent: &OwnedFd, real: &Path) -> io::Result<()> {
        let reserved = self.is_whole && RESERVED.iter().any(|name| real.starts_with(name))
            || is_the_kernels(parent)?;
        if !reserved {
            return Ok(());
        }
        let text = "nothing can be made in /proc, /sys and /dev";
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// A process whose working directory lies outside of its root is told so by the system call only: the C
/// library then looks for a way up by names, and may find one that is none.
fn must_stand_in_root() -> io::Result<()> {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    if path[0] == b'/' {
        Ok(())
    } else {
        Err(io::Error::other("lies outside of the container"))
    }
}

/// Names yet to be walked, the next one last.
fn push_parts(todo: &mut Vec<OsString>, path: &Path) {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    todo.extend(names.into_iter().rev());
}

fn look(dir: &OwnedFd, name: &OsStr) -> io::Result<Step> {
    let fd = match one_name(dir, name, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Step::Missing),
        opened => opened?,
    };
    Ok(
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                Step::Link(OsString::from_vec(target.into_bytes()).into())
            }
            FileType::Directory => Step::Is(Found::Directory(fd)),
            FileType::RegularFile => Step::Is(Found::File),
            _ => Step::Is(Found::Other),
        },
    )
}

/// Opens `name` in `dir` and nothing else.
pub(super) fn one_name(dir: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS;
    Ok(open_in_root(dir, name, flags, Mode::empty(), resolve)?)
}

fn is_the_kernels(dir: impl AsFd) -> io::Result<bool> {
    Ok(KERNELS_OWN.contains(&rustix::fs::fstatfs(dir)?.f_type))
}

/// What happened at which path, for a person. Paths come from strangers: nothing that a terminal would
/// obey.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    let said = match error.raw_os_error() {
        Some(libc::ELOOP) => {
            "leads through a loop of links, or through a link of /proc that leads out of the container"
                .to_owned()
        }
        Some(libc::ENOTDIR) => "goes through something that is not a directory".to_owned(),
        Some(libc::EISDIR) => "is a directory".to_owned(),
        _ => error.to_string(),
    };
    let path = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    let path: String = path.chars().flat_map(char::escape_debug).collect();
    io::Error::new(error.kind(), format!("{path}: {said}"))
}

#[cfg(test)]
mod tests;
