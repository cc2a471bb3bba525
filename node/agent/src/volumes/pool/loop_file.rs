//! A file with a btrfs in it: made, attached, mounted, grown; and mounted anew after a failure.
//!
//! Owner: the btrfs pool, and the scratch file system of containers. Invariants: a file that is there is
//! never made anew, shortened or formatted; every block of it is allocated on the host before the btrfs
//! in it may write there (`reserve`), so that the btrfs never meets a full host, which would turn it
//! read-only for good. It grows only by what the host's file system can still hold.
//! Next: `btrfs.rs`, `loop_file/revive.rs`.

mod revive;

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statfs, statvfs},
    mount::{MountFlags, mount},
};

use super::{
    PoolError,
    command::{Tools, failed_io},
};
use crate::sys::btrfs;

const MIB: u64 = 1 << 20;
/// Growing by less is not worth its commit.
const STEP: u64 = 64 * MIB;
/// The least size of a new file: `mkfs.btrfs` refuses less than 109 MiB.
const SMALLEST: u64 = 128 * MIB;
/// A file takes at most this part of the host's room ahead of need.
const HEADROOM_SHARE: i128 = 16;
/// Growing waits until this part of the headroom is gone.
const WORTH: u64 = 8;

/// How far a loop file may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopLimits {
    /// The size it is made with, if the host has the room: at least 128 MiB.
    pub initial: u64,
    /// How much free room growing aims to keep in it; less on a host that has little.
    pub headroom: u64,
    /// The size it may grow to.
    pub max: u64,
    /// What is left free on the host's file system.
    pub host_reserve: u64,
}

impl Default for LoopLimits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            initial: GIB,
            headroom: 2 * GIB,
            max: 1 << 50,
            host_reserve: 2 * GIB,
        }
    }
}

/// What it takes, and the package that has it.
pub(super) const PROGRAMS: [(&str, &str); 3] = [
    ("btrfs", "btrfs-progs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("losetup", "mount"),
];

/// The file and where it is mounted.
#[derive(Debug)]
pub(crate) struct LoopFile {
    pub(crate) file: PathBuf,
    pub(crate) mount_dir: PathBuf,
    pub(crate) limits: LoopLimits,
}

/// A block of the file system's trees. Smaller than usual: with quotas, the first write behind a snapshot
/// accounts for all that the blocks it copies refer to (decision 0014).
const NODE_BYTES: usize = 4_096;

impl LoopFile {
    /// Makes the file, if there is none, with an empty btrfs.
    pub(crate) fn make(&self, tools: &Tools) -> Result<(), PoolError> {
        if self.file.exists() {
            return Ok(());
        }
        let unfinished = self.file.with_extension("making");
        let failed = || failed_io(format!("make {}", unfinished.display()));
        let file = File::create(&unfinished).map_err(failed())?;
        let host = statvfs(&unfinished).map_err(|errno| failed()(errno.into()))?;
        let room = (host.f_bavail * host.f_frsize).saturating_sub(self.limits.host_reserve);
        let size = self.limits.initial.min((room / MIB * MIB).max(SMALLEST));
        extend(&file, 0, size).map_err(failed())?;
        let node = rustix::param::page_size().max(NODE_BYTES).to_string();
        let args = [
            "-q".as_ref(),
            "-f".as_ref(),
            "--nodesize".as_ref(),
            node.as_ref(),
            unfinished.as_os_str(),
        ];
        tools.run("mkfs.btrfs", &args)?;
        file.sync_all().map_err(failed())?;
        fs::rename(&unfinished, &self.file).map_err(failed())?;
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed())
    }

    /// Whether it is mounted where it should be.
    pub(crate) fn is_mounted(&self) -> bool {
        let is_btrfs = statfs(&self.mount_dir).is_ok_and(|found| found.f_type == btrfs::MAGIC);
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        is_btrfs && device(&self.mount_dir) != self.mount_dir.parent().and_then(device)
    }

    /// Attaches and mounts it, if it is not.
    pub(crate) fn mount(&self, tools: &Tools) -> Result<(), PoolError> {
        if self.is_mounted() {
            return Ok(());
        }
        let length = self.length()?;
        self.reserve()?;
        let made = fs::create_dir_all(&self.mount_dir);
        made.map_err(failed_io(format!("make {}", self.mount_dir.display())))?;
        let device = match self.device(tools)? {
            Some(device) => device,
            None => {
                let args = ["--find".as_ref(), "--show".as_ref(), self.file.as_os_str()];
                tools.run("losetup", &args)?.trim().to_owned()
            }
        };
        // Without: what is freed in it would be given back to the host, and missing later.
        let mounted = mount(
            &device,
            &self.mount_dir,
            "btrfs",
            MountFlags::NOATIME,
            c"nodiscard",
        );
        mounted.map_err(|errno| {
            PoolError::Faulted(format!(
                "cannot mount the pool's file {} ({} MiB long) through {device}: {errno}; `dmesg` says why. If it was cut short, \
                 restore it from a copy; what was cut is lost",
                self.file.display(),
                length / MIB,
            ))
        })
    }

    /// The loop device that shows the file.
    fn device(&self, tools: &Tools) -> Result<Option<String>, PoolError> {
        let args = [
            "--noheadings".as_ref(),
            "--output".as_ref(),
            "NAME".as_ref(),
            "--associated".as_ref(),
            self.file.as_os_str(),
        ];
        let shown = tools.run("losetup", &args)?;
        Ok(shown
            .lines()
            .next()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty()))
    }

    /// How long the file is.
    pub(crate) fn length(&self) -> Result<u64, PoolError> {
        match fs::metadata(&self.file) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(PoolError::Faulted(format!(
                    "the pool's file {} is gone; put it back",
                    self.file.display()
                )))
            }
            Err(error) => Err(failed_io(format!("look at {}", self.file.display()))(error)),
        }
    }

    /// What the host can still give the file, beyond what the file may already take by being filled.
    fn host_room(&self) -> Result<i128, PoolError> {
        let failed = || failed_io(format!("look at {}", self.file.display()));
        let host = statvfs(&self.file).map_err(|errno| failed()(std::io::Error::from(errno)))?;
        let free = host.f_bavail * host.f_frsize;
        let promised = self.unreserved()?;
        Ok(i128::from(free) - i128::from(promised) - i128::from(self.limits.host_reserve))
    }

    /// Bytes of the file that the host has no blocks for yet.
    fn unreserved(&self) -> Result<u64, PoolError> {
        let found = fs::metadata(&self.file)
            .map_err(failed_io(format!("look at {}", self.file.display())))?;
        Ok(found.len().saturating_sub(found.blocks() * 512))
    }

    /// Allocates what the host has no blocks for (the file of an earlier version, which was sparse), if the host
    /// has the room.
    pub(crate) fn reserve(&self) -> Result<(), PoolError> {
        if self.unreserved()? == 0 || self.host_room()? < 0 {
            return Ok(());
        }
        let failed = || failed_io(format!("reserve room for {}", self.file.display()));
        let file = File::options().write(true).open(&self.file);
        let length = self.length()?;
        match fallocate(
            file.map_err(failed())?,
            FallocateFlags::KEEP_SIZE,
            0,
            length,
        ) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(failed()(errno.into())),
        }
    }

    /// The free room to aim at.
    fn headroom(&self) -> Result<u64, PoolError> {
        let share = u64::try_from((self.host_room()? / HEADROOM_SHARE).max(0)).unwrap_or(u64::MAX);
        Ok(self.limits.headroom.min(share.max(STEP)))
    }

    /// By how much it may still grow.
    pub(crate) fn growable(&self) -> Result<u64, PoolError> {
        let room = u64::try_from(self.host_room()?.max(0)).unwrap_or(u64::MAX);
        Ok(self.limits.max.saturating_sub(self.length()?).min(room))
    }

    /// What it lacks to its headroom, if that is worth growing for.
    fn wanted(&self, free: u64) -> Result<u64, PoolError> {
        let headroom = self.headroom()?;
        let missing = headroom.saturating_sub(free);
        Ok(match missing < headroom / WORTH {
            true => 0,
            false => missing.next_multiple_of(STEP),
        })
    }

    /// Whether [`Self::grow`] has something to do. Starts no program.
    pub(crate) fn should_grow(&self, free: u64) -> Result<bool, PoolError> {
        Ok(self.wanted(free)? > 0 && self.growable()? >= STEP)
    }

    /// Grows it if little is free in it. Each step may be repeated, so a kill between them is mended by
    /// the next call.
    pub(crate) fn grow(&self, tools: &Tools, free: u64) -> Result<(), PoolError> {
        self.reserve()?;
        let wanted = self.wanted(free)?;
        let step = wanted.min(self.growable()?);
        let length = self.length()?;
        let is_last = step > 0 && length + step == self.limits.max;
        if step >= STEP || is_last {
            let failed = || failed_io(format!("grow {}", self.file.display()));
            let file = File::options()
                .write(true)
                .open(&self.file)
                .map_err(failed())?;
            extend(&file, length, step).map_err(failed())?;
            file.sync_all().map_err(failed())?;
        } else if self.device_length(tools)? >= length {
            return Ok(());
        }
        fail::fail_point!("volume-btrfs-grow-file");
        if let Some(device) = self.device(tools)? {
            tools.run("losetup", &["--set-capacity", &device])?;
        }
        fail::fail_point!("volume-btrfs-grow-device");
        let args: [&std::ffi::OsStr; 4] = [
            "filesystem".as_ref(),
            "resize".as_ref(),
            "max".as_ref(),
            self.mount_dir.as_ref(),
        ];
        tools.run("btrfs", &args)?;
        Ok(())
    }

    /// How long the kernel takes the file to be.
    fn device_length(&self, tools: &Tools) -> Result<u64, PoolError> {
        let Some(device) = self.device(tools)? else {
            return Ok(0);
        };
        let name = device.trim_start_matches("/dev/");
        let sectors = fs::read_to_string(format!("/sys/block/{name}/size")).unwrap_or_default();
        Ok(sectors.trim().parse::<u64>().unwrap_or(0) * 512)
    }

    /// What a person should know.
    pub(crate) fn warnings(&self, tools: &Tools) -> Vec<String> {
        let mut warnings = Vec::new();
        let file = self.file.display();
        match (self.length(), self.device_length(tools)) {
            (Ok(length), Ok(device)) if length < device => warnings.push(format!(
                "the pool's file {file} is {} MiB long and was {} MiB: somebody cut it short; copy what can still be read, then restore it",
                length / MIB,
                device / MIB
            )),
            (Err(error), _) | (_, Err(error)) => warnings.push(error.to_string()),
            _ => {}
        }
        let unreserved = self.unreserved().unwrap_or(0);
        if unreserved > 0 {
            warnings.push(format!(
                "the host's file system has no room for {} MiB that {file} may be filled with, and the pool turns read-only when it \
                 meets that; free some room there",
                unreserved / MIB
            ));
        } else if self.host_room().is_ok_and(|room| room < 0) {
            warnings.push(format!(
                "the host's file system is nearly full: {file} cannot grow; free some room there"
            ));
        }
        warnings
    }
}

/// Lengthens the file by `step` bytes that the host has blocks for. A file system that cannot reserve gives a hole.
fn extend(file: &File, length: u64, step: u64) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), length, step) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(length + step),
        Err(errno) => {
            // What was allocated before it failed is given back.
            let _ = file.set_len(length);
            Err(errno.into())
        }
    }
}
