//! Volumes at a container's start.
//!
//! Owner: the stub. The agent opened the trees (detached mounts), for the stub's mount namespace is
//! older than the volumes. They are attached in the container's own namespace, after it was made and
//! before its program runs: mounts that it was made with would be locked there, and could never be
//! exchanged. Invariants: what the image or another volume has at a target is never followed out of the
//! container's root; a tree's rights are set before anything of the container can see it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Dir, Mode, OFlags, Stat};

use teu_protocol::image_config::user::Owner;

use super::plan::{IdRange, VolumeMountPlan};
use crate::sys::{
    idmap::{self, MountRights},
    mount_ns,
    rootfs::Root,
};

/// Where nothing may be mounted: the container's root itself, and what the kernel shows it.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A container's volumes, not attached yet.
#[derive(Debug)]
pub(super) struct Volumes {
    ids: IdRange,
    /// Outer ones first.
    volumes: Vec<Volume>,
    /// Secret files to be mounted in volumes.
    secrets: Vec<(PathBuf, OwnedFd)>,
}

#[derive(Debug)]
struct Volume {
    target: PathBuf,
    /// The target with links resolved.
    real: PathBuf,
    tree: Root,
}

impl Volumes {
    /// Makes the targets in `root`, sets the trees' rights, and gives fresh volumes the look of the
    /// directories that they cover.
    pub(super) fn prepare(
        root: &Root,
        ids: IdRange,
        plans: &[VolumeMountPlan],
        trees: Vec<OwnedFd>,
        userns: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let mut made = Self {
            ids,
            volumes: Vec::new(),
            secrets: Vec::new(),
        };
        if plans.len() != trees.len() {
            return Err(io::Error::other("the volumes' trees did not come"));
        }
        let mut all: Vec<_> = plans.iter().zip(trees).collect();
        all.sort_by_key(|(plan, _)| plan.target.components().count());
        for (plan, tree) in all {
            let covered = root.make_dirs(&plan.target, Owner::ROOT)?;
            let volume = made
                .prepare_one(root, plan, tree, covered, userns)
                .map_err(|error| {
                    let text = format!("{}: {error}", plan.target.display());
                    io::Error::new(error.kind(), text)
                })?;
            made.volumes.push(volume);
        }
        Ok(made)
    }

    fn prepare_one(
        &self,
        root: &Root,
        plan: &VolumeMountPlan,
        tree: OwnedFd,
        mut covered: OwnedFd,
        userns: BorrowedFd<'_>,
    ) -> io::Result<Volume> {
        let real = root.path_of(&covered)?;
        let reserved = RESERVED.iter().any(|one| real.starts_with(one));
        if reserved || real == Path::new("/") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a volume cannot be mounted there",
            ));
        }
        if self.volumes.iter().any(|other| other.real == real) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "two volumes cannot be mounted at the same place",
            ));
        }
        if let Some((outer, below)) = self.covering(&real) {
            covered = outer.tree.make_dirs(&below, Owner::ROOT)?;
        }
        let mut rights = MountRights {
            read_only: false,
            idmap: plan.idmapped.then_some(userns),
        };
        idmap::restrict(&tree, rights)?;
        if plan.read_only {
            rights = MountRights {
                read_only: true,
                idmap: None,
            };
            idmap::restrict(&tree, rights)?;
        } else {
            self.adopt_look(&tree, &covered)?;
        }
        Ok(Volume {
            target: plan.target.clone(),
            real,
            tree: Root::of(tree, self.ids),
        })
    }

    /// A fresh volume (empty, root's) looks like the directory that it is first mounted on, so that a
    /// program which owns that one in its image can write.
    fn adopt_look(&self, tree: &OwnedFd, covered: &OwnedFd) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(tree, ".", flags, Mode::empty())?;
        let (is, wanted) = (rustix::fs::fstat(&dir)?, rustix::fs::fstat(covered)?);
        // Unmapped, a tree that nobody touched is the host's root's.
        let fresh = [0, self.ids.base];
        if !fresh.contains(&is.st_uid) || !fresh.contains(&is.st_gid) || !is_empty(&dir)? {
            return Ok(());
        }
        let (uid, gid) = self.owner_inside(&wanted);
        rustix::fs::fchown(&dir, Some(uid), Some(gid))?;
        let mode = Mode::from_raw_mode(wanted.st_mode & 0o7777);
        Ok(rustix::fs::fchmod(&dir, mode)?)
    }

    /// Owners that the account's range does not have become its root.
    fn owner_inside(&self, look: &Stat) -> (rustix::fs::Uid, rustix::fs::Gid) {
        let kept = |id: u32| {
            let inside = id
                .checked_sub(self.ids.base)
                .is_some_and(|own| own < self.ids.count);
            if inside { id } else { self.ids.base }
        };
        (
            rustix::fs::Uid::from_raw(kept(look.st_uid)),
            rustix::fs::Gid::from_raw(kept(look.st_gid)),
        )
    }

    /// The innermost volume that `real` lies in, and the path in it.
    fn covering(&self, real: &Path) -> Option<(&Volume, PathBuf)> {
        let covers = |one: &&Volume| real.starts_with(&one.real);
        let volume = self
            .volumes
            .iter()
            .filter(covers)
            .max_by_key(|one| one.real.components().count())?;
        let below = real.strip_prefix(&volume.real).ok()?;
        Some((volume, below.to_owned()))
    }

    /// Where a file at `path` really goes: into `root`, or into a volume.
    pub(super) fn locate<'a>(
        &'a self,
        root: &'a Root,
        path: &Path,
    ) -> io::Result<(&'a Root, PathBuf, bool)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok((root, path.to_owned(), false));
        };
        if self.volumes.is_empty() {
            return Ok((root, path.to_owned(), false));
        }
        let dir = root.make_dirs(parent, Owner::ROOT)?;
        let real = root.path_of(&dir)?;
        Ok(match self.covering(&real) {
            Some((volume, below)) => (&volume.tree, below.join(name), true),
            None => (root, path.to_owned(), false),
        })
    }

    /// A secret that lies in a volume is mounted there when the volume is.
    pub(super) fn add_secret(&mut self, path: PathBuf, tree: OwnedFd) {
        self.secrets.push((path, tree));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Attaches everything in the mount namespace of the container's process, which waits.
    pub(super) fn attach(&self, pid: i32) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let trees = self
            .volumes
            .iter()
            .map(|one| (&one.target, one.tree.as_fd()))
            .chain(self.secrets.iter().map(|(path, tree)| (path, tree.as_fd())));
        let trees: Vec<_> = trees.collect();
        mount_ns::inside(pid, |_| {
            let root = Root::open(Path::new("/"), self.ids)?;
            for (target, tree) in trees {
                root.attach(tree, target)?;
            }
            Ok(())
        })
    }
}

fn is_empty(dir: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            return Ok(false);
        }
    }
    Ok(true)
}
