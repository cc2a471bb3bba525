//! Subvolumes of a btrfs pool, their qgroups, and the removal of directories that hold some.
//!
//! Owner: the btrfs pool. Invariant: only what lies below the paths given is touched. A deleted
//! subvolume's qgroup goes with it: the kernel removes it since 6.13 or so; else it is destroyed here,
//! as soon as the kernel has cleaned up behind the subvolume.
//!
//! Containers cannot make subvolumes in their volumes (`sys::seccomp`), but an administrator may, and they
//! are not to keep a volume. They are found and deleted by their numbers: a path below a tree is never
//! walked, because a container that still has the tree may put links in the way.

use std::{ffi::OsStr, fs, io, path::Path};

use rustix::fs::lstat;

use super::{
    super::{
        PoolError,
        command::{Failed, Tools, failed_io},
    },
    layout::entries,
};
use crate::sys::btrfs::{self, Subvolume, is_subvolume};

/// What a subvolume takes and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) referenced: u64,
    pub(super) exclusive: u64,
    pub(super) quota: Option<u64>,
}

/// Works on subvolumes.
#[derive(Debug, Clone)]
pub(super) struct Subvolumes {
    pub(super) tools: Tools,
}

impl Subvolumes {
    fn btrfs(&self, args: &[&OsStr]) -> Result<String, Failed> {
        self.tools.run("btrfs", args)
    }

    pub(super) fn create(&self, path: &Path) -> Result<(), PoolError> {
        self.btrfs(&["subvolume".as_ref(), "create".as_ref(), path.as_ref()])?;
        Ok(())
    }

    /// Also writes out what is cached of the origin and commits (create_snapshot in the kernel's
    /// fs/btrfs/ioctl.c ends with btrfs_commit_transaction).
    pub(super) fn snapshot(
        &self,
        from: &Path,
        to: &Path,
        read_only: bool,
    ) -> Result<(), PoolError> {
        let mut args: Vec<&OsStr> = vec!["subvolume".as_ref(), "snapshot".as_ref()];
        if read_only {
            args.push("-r".as_ref());
        }
        args.extend([from.as_os_str(), to.as_os_str()]);
        self.btrfs(&args)?;
        Ok(())
    }

    /// Deletes a subvolume, durably, with all that were made inside of it.
    pub(super) fn delete(&self, path: &Path) -> Result<(), PoolError> {
        let info = self.info(path)?;
        let args: [&OsStr; 4] = [
            "subvolume".as_ref(),
            "delete".as_ref(),
            "--commit-after".as_ref(),
            path.as_ref(),
        ];
        let dir = path.parent().unwrap_or(path);
        if let Err(failed) = self.btrfs(&args) {
            match failed {
                Failed::Said { said, .. } if said.contains("Directory not empty") => {
                    self.delete_inner(path, info.id)?;
                    self.btrfs(&args)?;
                }
                Failed::Said { said, .. } if said.contains("Operation not permitted") => {
                    return Err(PoolError::Busy("it is being sent".to_owned()));
                }
                failed => return Err(failed.into()),
            }
        }
        self.forget_group(dir, info.id);
        Ok(())
    }

    /// Deletes what lies in a subvolume, and what lies in that.
    fn delete_inner(&self, outermost: &Path, id: u64) -> Result<(), PoolError> {
        // An inner one always comes after the one that it is in.
        let mut all = vec![id];
        let mut looked_at = 0;
        while let Some(&outer) = all.get(looked_at) {
            let inner = btrfs::nested(outermost, outer)
                .map_err(failed_io(format!("list what is in subvolume {outer}")))?;
            all.extend(inner);
            looked_at += 1;
        }
        for id in all[1..].iter().rev() {
            let number = id.to_string();
            self.btrfs(&[
                "subvolume".as_ref(),
                "delete".as_ref(),
                "--commit-after".as_ref(),
                "--subvolid".as_ref(),
                number.as_ref(),
                // The command wants the root of a subvolume, whichever.
                outermost.as_ref(),
            ])?;
            tracing::info!(subvolume = id, "was in a volume, and is deleted with it");
            self.forget_group(outermost, *id);
        }
        Ok(())
    }

    fn forget_group(&self, dir: &Path, id: u64) {
        let group = format!("0/{id}");
        // Gone by itself, or not yet to be had: see this file's top.
        let _ = self.btrfs(&[
            "qgroup".as_ref(),
            "destroy".as_ref(),
            group.as_ref(),
            dir.as_ref(),
        ]);
    }

    /// Makes a read-only one writable: it cannot be moved to another directory before.
    pub(super) fn unlock(&self, path: &Path) -> Result<(), PoolError> {
        self.btrfs(&[
            "property".as_ref(),
            "set".as_ref(),
            "-f".as_ref(),
            "-ts".as_ref(),
            path.as_ref(),
            "ro".as_ref(),
            "false".as_ref(),
        ])?;
        Ok(())
    }

    /// Removes what is at a path, with all subvolumes below. `Ok` if there is nothing.
    pub(super) fn remove(&self, path: &Path) -> Result<(), PoolError> {
        let failed = |action: &str| failed_io::<io::Error>(format!("{action} {}", path.display()));
        let stat = match lstat(path) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            stat => stat.map_err(|errno| failed("look at")(errno.into()))?,
        };
        if is_subvolume(&stat) {
            return self.delete(path);
        }
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return fs::remove_file(path).map_err(failed("remove"));
        }
        for entry in entries(path).map_err(failed("list"))? {
            self.remove(&entry)?;
        }
        fs::remove_dir(path).map_err(failed("remove"))
    }

    pub(super) fn info(&self, path: &Path) -> Result<Subvolume, PoolError> {
        btrfs::subvolume(path).map_err(failed_io(format!(
            "look at the subvolume {}",
            path.display()
        )))
    }

    /// Bounds what a subvolume refers to. The group is named and the path is the directory above: the
    /// kernel begins a transaction in the subvolume of the path, which one that is over its bound
    /// refuses with EDQUOT, and it could never be given more.
    pub(super) fn limit(&self, path: &Path, quota: Option<u64>) -> Result<(), PoolError> {
        let size = quota.map_or_else(|| "none".to_owned(), |quota| quota.to_string());
        let group = format!("0/{}", self.info(path)?.id);
        self.btrfs(&[
            "qgroup".as_ref(),
            "limit".as_ref(),
            size.as_ref(),
            group.as_ref(),
            path.parent().unwrap_or(path).as_ref(),
        ])?;
        Ok(())
    }

    /// Counts, without writing out what is cached.
    pub(super) fn taken(&self, pool: &Path) -> Result<Counts, PoolError> {
        let args: [&OsStr; 5] = [
            "qgroup".as_ref(),
            "show".as_ref(),
            "--raw".as_ref(),
            "-re".as_ref(),
            pool.as_ref(),
        ];
        Ok(Counts(self.btrfs(&args)?))
    }

    /// Turns accounting on; a scan of what is there follows by itself.
    pub(super) fn enable_quotas(&self, pool: &Path) -> Result<(), PoolError> {
        self.btrfs(&["quota".as_ref(), "enable".as_ref(), pool.as_ref()])?;
        Ok(())
    }

    /// Has the room of deleted ones given back soon: the kernel's cleaner thread looks every half minute
    /// only, unless it is woken, which syncfs(2) does not do (btrfs_ioctl_sync in fs/btrfs/ioctl.c does).
    pub(super) fn reclaim(&self, pool: &Path) {
        let _ = self.btrfs(&["filesystem".as_ref(), "sync".as_ref(), pool.as_ref()]);
    }

    /// Counts again, in the background.
    pub(super) fn rescan(&self, pool: &Path) {
        let _ = self.btrfs(&["quota".as_ref(), "rescan".as_ref(), pool.as_ref()]);
    }
}

/// What `btrfs qgroup show --raw -re` printed.
#[derive(Debug)]
pub(super) struct Counts(String);

impl Counts {
    /// Of one subvolume.
    pub(super) fn of(&self, subvolume: &Subvolume) -> Option<Taken> {
        let group = format!("0/{}", subvolume.id);
        self.0.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            if fields.next()? != group {
                return None;
            }
            Some(Taken {
                referenced: fields.next()?.parse().ok()?,
                exclusive: fields.next()?.parse().ok()?,
                quota: fields.next()?.parse().ok(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "Qgroupid    Referenced    Exclusive  Max referenced  Max exclusive   Path \n\
        --------    ----------    ---------  --------------  -------------   ---- \n\
        0/25             16384        16384            none           none   a b\n\
        0/256         20987904        16384        52428800           none   volumes/x/tree\n";

    #[test]
    fn counts_are_read() {
        let counts = Counts(SHOWN.to_owned());
        let of = |id| {
            counts.of(&Subvolume {
                id,
                read_only: false,
                uuid: [0; 16],
                parent: [0; 16],
                received: [0; 16],
                created_ms: 0,
            })
        };
        assert_eq!(
            of(25),
            Some(Taken {
                referenced: 16384,
                exclusive: 16384,
                quota: None
            })
        );
        assert_eq!(
            of(256),
            Some(Taken {
                referenced: 20_987_904,
                exclusive: 16384,
                quota: Some(52_428_800)
            })
        );
        assert_eq!(of(2), None);
    }
}
