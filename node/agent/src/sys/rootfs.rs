//! A container's root: overlay over id-mapped layers, and files written into it safely.
//!
//! Owner: the stub, in a mount namespace of its own, so whatever is mounted here disappears with
//! the container. Invariant: no path that a layer or a container chose is ever followed outside
//! of the root: every access goes through `open_in_root`.

mod walk;

use std::{
    fs, io,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid},
    mount::{MountFlags, mount},
};

use teu_protocol::image_config::user::Owner;

use self::walk::{Found, named};
use crate::{
    keeper::{IdRange, RootPlan},
    sys::{
        fs_user,
        idmap::{self, MountRights},
        open_in_root::open_in_root,
    },
};

/// The tmpfs that everything is assembled on holds mount points, specs and secret files.
const SCRATCH_OPTIONS: &str = "mode=0755,size=32m,nr_inodes=4096";
/// overlayfs stacks at most this many layers (its own limit is 500; a mount's data is one page,
/// which the short relative names here never fill).
pub const MAX_LAYERS: usize = 128;

/// The private file system on which one container's root is put together.
#[derive(Debug)]
pub struct Scratch {
    pub dir: PathBuf,
}

impl Scratch {
    /// Mounts a fresh tmpfs over `dir`, seen by this mount namespace only.
    ///
    /// # Errors
    /// What mount(2) or mkdir(2) said.
    pub fn mount(dir: &Path) -> io::Result<Self> {
        // Secrets must not reach a disk: `noswap` where the kernel knows it (6.4).
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let with_noswap = std::ffi::CString::new(format!("{SCRATCH_OPTIONS},noswap"))?;
        let plain = std::ffi::CString::new(SCRATCH_OPTIONS)?;
        mount("tmpfs", dir, "tmpfs", flags, with_noswap.as_c_str())
            .or_else(|_| mount("tmpfs", dir, "tmpfs", flags, plain.as_c_str()))?;
        let scratch = Self {
            dir: dir.to_owned(),
        };
        for name in ["l", "e", "root", "secrets", "sys", "bundle", "state"] {
            fs::create_dir(dir.join(name))?;
        }
        Ok(scratch)
    }

    /// Where the container's root is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Mounts the overlay; layers are given lowest first. Owners in layers are mapped through
    /// `userns`; the upper directory holds mapped owners as they are.
    ///
    /// # Errors
    /// What the mount calls said; too many layers are `InvalidInput`.
    pub fn mount_root(&self, plan: &RootPlan, userns: BorrowedFd<'_>) -> io::Result<()> {
        if plan.layers.len() > MAX_LAYERS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} layers, at most {MAX_LAYERS} can be stacked",
                    plan.layers.len()
                ),
            ));
        }
        let layers = self.dir.join("l");
        let mut names = Vec::with_capacity(plan.layers.len().max(1));
        // overlayfs wants the top layer first.
        for (index, layer) in plan.layers.iter().rev().enumerate() {
            let name = index.to_string();
            let target = layers.join(&name);
            fs::create_dir(&target)?;
            let rights = MountRights {
                read_only: true,
                idmap: Some(userns),
            };
            idmap::attach(idmap::clone_mount(layer, rights)?, &target)?;
            names.push(name);
        }
        if names.is_empty() {
            names.push("../e".to_owned());
        }
        let before = std::env::current_dir()?;
        std::env::set_current_dir(&layers)?;
        let outcome = overlay(&names.join(":"), plan, &self.root());
        std::env::set_current_dir(before)?;
        outcome
    }

    /// Opens the mounted root.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn open_root(&self, ids: IdRange) -> io::Result<Root> {
        Root::open(&self.root(), ids)
    }
}

fn overlay(lower: &str, plan: &RootPlan, target: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut data = format!("lowerdir={lower},upperdir=").into_bytes();
    data.extend(escaped(plan.upper.as_os_str().as_bytes()));
    data.extend(b",workdir=");
    data.extend(escaped(plan.work.as_os_str().as_bytes()));
    let data = std::ffi::CString::new(data)?;
    Ok(mount(
        "overlay",
        target,
        "overlay",
        MountFlags::NODEV,
        data.as_c_str(),
    )?)
}

/// Commas end an option and backslashes escape.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if matches!(byte, b',' | b'\\' | b':') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

/// An open container root, and the ids that its files belong to.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    ids: IdRange,
    /// A container's whole root, rather than a tree that is seen somewhere in it.
    is_whole: bool,
}

/// What a file written into a root looks like.
#[derive(Debug, Clone, Copy)]
pub struct FileLook {
    pub mode: u32,
    pub owner: Owner,
}

/// Directories made on the way to a file.
const DIR_MODE: u32 = 0o755;

impl Root {
    /// Opens `path` as a root.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn open(path: &Path, ids: IdRange) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: rustix::fs::open(path, flags, Mode::empty())?,
            ids,
            is_whole: true,
        })
    }

    /// The root of the calling process, which is in the container: ids are what they are there.
    ///
    /// # Errors
    /// What open(2) said.
    pub fn own() -> io::Result<Self> {
        Self::open(Path::new("/"), IdRange::INSIDE)
    }

    /// A directory that is open already, such as the root of a detached mount.
    #[must_use]
    pub const fn of(fd: OwnedFd, ids: IdRange) -> Self {
        Self {
            fd,
            ids,
            is_whole: false,
        }
    }

    /// The path of something open below this root, as the container would name it (`/...`).
    ///
    /// # Errors
    /// It is not below.
    pub fn path_of(&self, inner: impl AsFd) -> io::Result<PathBuf> {
        let name_of =
            |fd: BorrowedFd<'_>| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let (root, inner) = (name_of(self.fd.as_fd())?, name_of(inner.as_fd())?);
        let below = inner
            .strip_prefix(&root)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not below the root"))?;
        Ok(Path::new("/").join(below))
    }

    /// Opens a path as the container would see it.
    ///
    /// # Errors
    /// What openat2(2) said; the path is named.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        self.open_inside(path, flags, mode)
            .map_err(|error| named(path, &error))
    }

    /// Does what may make a file: on a mount with mapped owners as the container's root, because the
    /// host's owns nothing there.
    fn making<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if error.raw_os_error() == Some(libc::EOVERFLOW) => {
                let (uid, gid) = self.owners(Owner::ROOT);
                fs_user::making_as(uid.as_raw(), gid.as_raw(), work)
            }
            done => done,
        }
    }

    /// Reads a regular file of at most `limit` bytes; a missing one is empty text.
    ///
    /// # Errors
    /// Not a regular file, too long, or not readable.
    pub fn read_text(&self, path: &str, limit: u64) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let path = Path::new(path);
        let read = |fd| {
            let mut text = Vec::new();
            regular(fd)?.take(limit + 1).read_to_end(&mut text)?;
            if text.len() as u64 > limit {
                let text = format!("is longer than {limit} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        match self.open_inside(path, flags, 0).and_then(read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            done => done.map_err(|error| named(path, &error)),
        }
    }

    fn owners(&self, owner: Owner) -> (Uid, Gid) {
        (
            Uid::from_raw(self.ids.host(owner.uid)),
            Gid::from_raw(self.ids.host(owner.gid)),
        )
    }

    /// Writes a file, replacing what was there; directories above it are made.
    ///
    /// # Errors
    /// What the calls said; a path that is a directory or a device, or in /proc, /sys or /dev, is
    /// refused. The path is named.
    pub fn write_file(&self, path: &Path, contents: &[u8], look: FileLook) -> io::Result<()> {
        self.create(path, look)
            .and_then(|mut file| file.write_all(contents))
            .map_err(|error| named(path, &error))
    }

    fn create(&self, path: &Path, look: FileLook) -> io::Result<fs::File> {
        let place = self.place_of_file(path)?;
        let (Some(name), is_there) = (place.name, place.found) else {
            return Err(rustix::io::Errno::ISDIR.into());
        };
        // NONBLOCK: a FIFO in the image must not hold the spawn up.
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (flags, mode) = match is_there {
            None => (flags | OFlags::CREATE | OFlags::EXCL, 0o600),
            Some(Found::File) => (flags, 0),
            Some(Found::Directory(_)) => return Err(rustix::io::Errno::ISDIR.into()),
            Some(Found::Other) => return Err(not_regular()),
        };
        let opened = self.making(|| {
            let (mode, resolve) = (Mode::from_raw_mode(mode), ResolveFlags::NO_SYMLINKS);
            Ok(open_in_root(&place.parent, &*name, flags, mode, resolve)?)
        });
        let file = regular(opened?)?;
        file.set_len(0)?;
        let (uid, gid) = self.owners(look.owner);
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(look.mode & 0o7777))?;
        Ok(file)
    }

    /// Writes a secret: the bytes go to `store`, a directory on tmpfs, and the file in the root
    /// is only what the tmpfs file is to be mounted on. Returns that detached mount.
    ///
    /// # Errors
    /// What the calls said.
    pub fn make_secret(
        &self,
        store: &Path,
        number: usize,
        path: &Path,
        contents: &[u8],
        look: FileLook,
    ) -> io::Result<OwnedFd> {
        let kept = store.join(number.to_string());
        fs::write(&kept, contents)?;
        let (uid, gid) = self.owners(look.owner);
        rustix::fs::chownat(CWD, &kept, Some(uid), Some(gid), AtFlags::empty())?;
        rustix::fs::chmod(&kept, Mode::from_raw_mode(look.mode & 0o7777))?;
        self.write_file(path, b"", FileLook { mode: 0, ..look })?;
        idmap::clone_mount(&kept, MountRights::default())
    }

    /// Attaches a detached mount at a path of this root, which is attached itself.
    ///
    /// # Errors
    /// What the mount calls said; the path is named.
    pub fn attach(&self, tree: impl AsFd, path: &Path) -> io::Result<()> {
        let at = self.open_at(path, OFlags::PATH, 0)?;
        idmap::attach_on(tree, at).map_err(|error| named(path, &error))
    }

    /// The open root directory.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// File systems whose files are the kernel's: reading or owning one is an act on the host.
const KERNELS_OWN: [libc::c_long; 4] = [
    libc::PROC_SUPER_MAGIC,
    0x6265_6572, // SYSFS_MAGIC
    libc::CGROUP_SUPER_MAGIC,
    libc::CGROUP2_SUPER_MAGIC,
];

/// A file that holds what was written to it, and is nothing else. A link in the container may lead
/// to its `/proc`, where the host's root could do what the container cannot: read `/proc/kmsg`
/// empty, or give `/proc/vmallocinfo` away.
fn regular(fd: OwnedFd) -> io::Result<fs::File> {
    let file = fs::File::from(fd);
    let lies_on = rustix::fs::fstatfs(&file)?.f_type;
    if file.metadata()?.is_file() && !KERNELS_OWN.contains(&lies_on) {
        return Ok(file);
    }
    Err(not_regular())
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// A path below the root, without its leading slashes; empty becomes `.`.
fn relative(path: &Path) -> &Path {
    let stripped = path.strip_prefix("/").unwrap_or(path);
    if stripped.as_os_str().is_empty() {
        Path::new(".")
    } else {
        stripped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(dir: &Path) -> Root {
        // Ids as they are: the test may run without privilege.
        let uid = rustix::process::geteuid().as_raw();
        Root::open(
            dir,
            IdRange {
                base: uid,
                count: 1,
            },
        )
        .unwrap()
    }

    const LOOK: FileLook = FileLook {
        mode: 0o640,
        owner: Owner::ROOT,
    };

    #[test]
    fn the_kernels_own_files_are_neither_read_nor_written() {
        // The container's root as it is later, with /proc and /sys in it.
        let root = root(Path::new("/"));
        for path in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
            let error = root.read_text(path, 1 << 20).unwrap_err().to_string();
            assert_eq!(error, format!("{path}: not a regular file"));
        }
        let own = Path::new("/proc/self/comm");
        let before = fs::read(own).unwrap();
        assert!(root.write_file(own, b"x", LOOK).is_err());
        assert_eq!(fs::read(own).unwrap(), before);
    }

    #[test]
    fn writes_replace_and_make_directories() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        root.write_file(Path::new("/deep/er/file"), b"long contents", LOOK)
            .unwrap();
        root.write_file(Path::new("/deep/er/file"), b"short", LOOK)
            .unwrap();
        assert_eq!(root.read_text("/deep/er/file", 100).unwrap(), "short");
        let mode = fs::metadata(dir.path().join("deep/er/file"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert!(root.read_text("/deep/er/file", 4).is_err());
        assert_eq!(root.read_text("/none", 4).unwrap(), "");
        assert!(root.read_text("/deep", 4).is_err());
    }

    #[test]
    fn option_values_are_escaped() {
        assert_eq!(escaped(b"/a,b:c\\d"), b"/a\\,b\\:c\\\\d");
    }
}
