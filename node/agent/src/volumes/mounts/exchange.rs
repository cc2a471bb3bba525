//! Finding a volume's mounts in a container, wherever it has moved them, and replacing them.
//!
//! Owner: `volumes::mounts`; the container stands still. Invariant: what tells a volume is the `st_dev`
//! that is really seen at a mount point (`mountinfo` has only the whole file system's), and a mount is
//! touched only if it is the one that is seen there. Mounts in the volume (other volumes, secrets) are put
//! back into the new tree.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, statx},
    mount::{UnmountFlags, unmount},
};

use teu_protocol::image_config::user::Owner;

use super::{ContainerMounts, device};
use crate::sys::{
    idmap::{self, MountRights},
    mount_ns::{self, Inside},
    mount_table::{self, MountEntry},
    open_in_root::open_in_root,
    rootfs::{FileLook, Root},
};

/// How a mount of the old tree is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stale<'a> {
    /// The old tree's `st_dev` is known.
    Device(u64),
    /// It is not (another agent rolled back): anything of the pool's file system that is none of the
    /// current trees.
    NotOneOf(&'a [u64]),
}

/// A mount that can be seen at its place.
struct Seen {
    entry: MountEntry,
    device: u64,
    is_dir: bool,
    fd: OwnedFd,
}

pub(super) fn shows(container: &ContainerMounts, tree: &Path) -> io::Result<bool> {
    let wanted = plans(container, tree).count();
    let current = device(tree)?;
    let shown = mount_ns::inside(container.init_pid, |inside| {
        Ok(shown(&seen(inside)?, current))
    })?;
    Ok(shown >= wanted)
}

fn shown(all: &[Seen], current: u64) -> usize {
    all.iter().filter(|one| one.device == current).count()
}

fn plans<'a>(
    container: &'a ContainerMounts,
    tree: &'a Path,
) -> impl Iterator<Item = &'a crate::keeper::VolumeMountPlan> {
    container
        .mounts
        .iter()
        .filter(move |plan| plan.source == tree)
}

/// Replaces every mount of the old tree. `true` if there was something to do.
pub(super) fn exchange(
    container: &ContainerMounts,
    tree: &Path,
    stale: Stale<'_>,
) -> io::Result<bool> {
    let current = device(tree)?;
    let superblock = superblock(tree)?;
    // The container's own user namespace maps exactly its account's range.
    let userns = File::open(format!("/proc/{}/ns/user", container.init_pid))?;
    // Cloned here: inside, the tree has no path.
    let mut fresh = Vec::new();
    for plan in plans(container, tree) {
        let rights = MountRights {
            read_only: false,
            idmap: plan.idmapped.then_some(userns.as_fd()),
        };
        fresh.push(idmap::clone_mount(tree, rights)?);
    }
    let is_stale = |one: &Seen| match stale {
        Stale::Device(old) => one.device == old && old != current,
        Stale::NotOneOf(known) => {
            one.entry.superblock == superblock && !known.contains(&one.device)
        }
    };
    mount_ns::inside(container.init_pid, |inside| {
        let root = Root::open(Path::new("/"), container.ids)?;
        let mut work = Exchange {
            inside,
            root,
            fresh,
            did: false,
        };
        work.replace(container, tree, &is_stale)?;
        work.restore(container, tree, current)?;
        Ok(work.did)
    })
}

/// The device number by which the file system that has `tree` is known in tables of mounts.
fn superblock(tree: &Path) -> io::Result<u64> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::open(tree, flags, Mode::empty())?;
    let looked = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    // All threads of the agent but those made to enter a container have the same table.
    let table = mount_table::parse(&std::fs::read("/proc/thread-self/mountinfo")?);
    table
        .iter()
        .find(|entry| entry.id == looked.stx_mnt_id)
        .map(|entry| entry.superblock)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the volume is not mounted"))
}

/// All mounts of the namespace that are not covered by others.
fn seen(inside: &Inside) -> io::Result<Vec<Seen>> {
    let root = rustix::fs::open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mounts = inside.mounts()?;
    Ok(mounts
        .into_iter()
        .filter_map(|entry| look(&root, entry).ok().flatten())
        .collect())
}

fn look(root: &OwnedFd, entry: MountEntry) -> io::Result<Option<Seen>> {
    let below = entry.point.strip_prefix("/").unwrap_or(&entry.point);
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let fd = open_in_root(root, below, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let looked = statx(&fd, "", AtFlags::EMPTY_PATH, wanted)?;
    let is_dir = FileType::from_raw_mode(looked.stx_mode.into()) == FileType::Directory;
    let device = rustix::fs::makedev(looked.stx_dev_major, looked.stx_dev_minor);
    Ok((looked.stx_mnt_id == entry.id).then_some(Seen {
        entry,
        device,
        is_dir,
        fd,
    }))
}

/// What is under way in the container's namespace.
struct Exchange<'a> {
    inside: &'a Inside,
    root: Root,
    /// Clones of the new tree, one for each mount of the volume.
    fresh: Vec<OwnedFd>,
    did: bool,
}

impl Exchange<'_> {
    /// One at a time, for each changes what is where.
    fn replace(
        &mut self,
        container: &ContainerMounts,
        tree: &Path,
        is_stale: &dyn Fn(&Seen) -> bool,
    ) -> io::Result<()> {
        // At their planned places first, in case that two volumes are stale and cannot be told apart.
        let planned: Vec<&PathBuf> = plans(container, tree).map(|plan| &plan.target).collect();
        while !self.fresh.is_empty() {
            let all = seen(self.inside)?;
            let mut stale: Vec<&Seen> = all.iter().filter(|one| is_stale(one)).collect();
            stale.sort_by_key(|one| !planned.contains(&&one.entry.point));
            let Some(one) = stale.first() else {
                return Ok(());
            };
            self.replace_one(one, &all)?;
        }
        Ok(())
    }

    fn replace_one(&mut self, old: &Seen, all: &[Seen]) -> io::Result<()> {
        let inner = inner_mounts(old, all)
            .into_iter()
            .map(|one| Ok((one, idmap::clone_open(&one.fd)?)))
            .collect::<io::Result<Vec<_>>>()?;
        unmount(
            &old.entry.point,
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        )?;
        self.attach_fresh(&old.entry.point, old.entry.read_only)?;
        for (one, clone) in inner {
            self.put_back(&one.entry.point, one.is_dir, clone)?;
        }
        Ok(())
    }

    fn attach_fresh(&mut self, at: &Path, read_only: bool) -> io::Result<()> {
        let Some(tree) = self.fresh.pop() else {
            return Err(io::Error::other("the volume has more mounts than planned"));
        };
        if read_only {
            let rights = MountRights {
                read_only,
                idmap: None,
            };
            idmap::restrict(&tree, rights)?;
        }
        self.root.attach(tree, at)?;
        self.did = true;
        Ok(())
    }

    /// The new tree may lack the place of a mount that was in the old one.
    fn put_back(&self, at: &Path, is_dir: bool, mount: OwnedFd) -> io::Result<()> {
        if self.root.open_at(at, OFlags::PATH, 0).is_err() {
            if is_dir {
                self.root.make_dirs(at, Owner::ROOT)?;
            } else {
                let look = FileLook {
                    mode: 0,
                    owner: Owner::ROOT,
                };
                self.root.write_file(at, b"", look)?;
            }
        }
        self.root.attach(mount, at)
    }

    /// An agent that died between unmounting and mounting left nothing at the place.
    fn restore(
        &mut self,
        container: &ContainerMounts,
        tree: &Path,
        current: u64,
    ) -> io::Result<()> {
        let all = seen(self.inside)?;
        let mut missing = plans(container, tree)
            .count()
            .saturating_sub(shown(&all, current));
        for plan in plans(container, tree) {
            let shown = all
                .iter()
                .any(|one| one.device == current && one.entry.point == plan.target);
            if missing > 0 && !shown {
                self.attach_fresh(&plan.target, plan.read_only)?;
                missing -= 1;
            }
        }
        Ok(())
    }
}

/// Mounts that go with `outer` when it is unmounted, outer ones first.
fn inner_mounts<'a>(outer: &Seen, all: &'a [Seen]) -> Vec<&'a Seen> {
    let mut within = vec![outer.entry.id];
    let mut found: Vec<&Seen> = Vec::new();
    loop {
        let next = all
            .iter()
            .find(|one| within.contains(&one.entry.parent) && !within.contains(&one.entry.id));
        let Some(one) = next else { return found };
        within.push(one.entry.id);
        found.push(one);
    }
}
