//! A sparse file with a btrfs in it: made, attached, mounted, grown.
//!
//! Owner: the btrfs pool. Invariants: a file that is there is never made anew, shortened or
//! formatted; it grows only by what the host's file system can still hold, so that a full host
//! does not surprise a writer in the pool. Next: `btrfs.rs`.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{statfs, statvfs},
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

/// How far a loop file may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopLimits {
    /// The size it is made with. At least 128 MiB, or `mkfs.btrfs` refuses.
    pub initial: u64,
    /// How much free room growing aims to keep in it.
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
            headroom: 4 * GIB,
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
pub(super) struct LoopFile {
    pub(super) file: PathBuf,
    pub(super) mount_dir: PathBuf,
    pub(super) limits: LoopLimits,
}

/// A block of the file system's trees. Smaller than usual: with quotas, the first write behind a snapshot
/// accounts for all that the blocks it copies refer to (decision 0014).
const NODE_BYTES: usize = 4_096;

impl LoopFile {
    /// Makes the file, if there is none, with an empty btrfs.
    pub(super) fn make(&self, tools: &Tools) -> Result<(), PoolError> {
        if self.file.exists() {
            return Ok(());
        }
        let unfinished = self.file.with_extension("making");
        let failed = || failed_io(format!("make {}", unfinished.display()));
        let file = File::create(&unfinished).map_err(failed())?;
        file.set_len(self.limits.initial).map_err(failed())?;
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
    pub(super) fn is_mounted(&self) -> bool {
        let is_btrfs = statfs(&self.mount_dir).is_ok_and(|found| found.f_type == btrfs::MAGIC);
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        is_btrfs && device(&self.mount_dir) != self.mount_dir.parent().and_then(device)
    }

    /// Attaches and mounts it, if it is not.
    pub(super) fn mount(&self, tools: &Tools) -> Result<(), PoolError> {
        if self.is_mounted() {
            return Ok(());
        }
        let length = self.length()?;
        let made = fs::create_dir_all(&self.mount_dir);
        made.map_err(failed_io(format!("make {}", self.mount_dir.display())))?;
        let device = match self.device(tools)? {
            Some(device) => device,
            None => {
                let args = ["--find".as_ref(), "--show".as_ref(), self.file.as_os_str()];
                tools.run("losetup", &args)?.trim().to_owned()
            }
        };
        let mounted = mount(&device, &self.mount_dir, "btrfs", MountFlags::NOATIME, None);
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
    pub(super) fn length(&self) -> Result<u64, PoolError> {
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
        let found = fs::metadata(&self.file).map_err(failed())?;
        let promised = found.len().saturating_sub(found.blocks() * 512);
        let free = host.f_bavail * host.f_frsize;
        Ok(i128::from(free) - i128::from(promised) - i128::from(self.limits.host_reserve))
    }

    /// By how much it may still grow.
    pub(super) fn growable(&self) -> Result<u64, PoolError> {
        let room = u64::try_from(self.host_room()?.max(0)).unwrap_or(u64::MAX);
        Ok(self.limits.max.saturating_sub(self.length()?).min(room))
    }

    /// Grows it if little is free in it. Each step may be repeated, so a kill between them is mended by
    /// the next call.
    pub(super) fn grow(&self, tools: &Tools, free: u64) -> Result<(), PoolError> {
        let wanted = self
            .limits
            .headroom
            .saturating_sub(free)
            .next_multiple_of(STEP);
        let step = wanted.min(self.growable()?);
        let length = self.length()?;
        let is_last = step > 0 && length + step == self.limits.max;
        if step >= STEP || is_last {
            let failed = || failed_io(format!("grow {}", self.file.display()));
            let file = File::options()
                .write(true)
                .open(&self.file)
                .map_err(failed())?;
            file.set_len(length + step).map_err(failed())?;
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
    pub(super) fn warnings(&self, tools: &Tools) -> Vec<String> {
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
        if self.host_room().is_ok_and(|room| room < 0) {
            warnings.push(format!(
                "the host's file system is nearly full: {file} cannot grow, and writing into it may fail; free some room there"
            ));
        }
        warnings
    }
}
