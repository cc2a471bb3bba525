//! What tests of volumes stand on: a btrfs of their own in a file, mounted where an agent mounts its
//! pool, with subvolumes for trees (each has an `st_dev` of its own, and one superblock for all).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use teu_node::{keeper::VolumeMountPlan, volumes::mounts::ContainerMounts};

use crate::rig::{BASE, Rig, Running};

pub(crate) struct Pool {
    pub(crate) dir: PathBuf,
    pub(crate) file: PathBuf,
    mounted: bool,
}

impl Pool {
    /// Mounts one at the instance's directory for volumes.
    pub(crate) fn new(rig: &Rig) -> Self {
        let file = rig.dir.path().join("pool.btrfs");
        let dir = rig.dir.path().join("volumes/pool");
        fs::create_dir_all(&dir).unwrap();
        fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.btrfs", &["-q", "-m", "single", text(&file)]);
        run("mount", &["-o", "loop", text(&file), text(&dir)]);
        Self {
            dir,
            file,
            mounted: true,
        }
    }

    /// A fresh tree with a file that tells its version.
    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        let tree = self.dir.join(name);
        run("btrfs", &["-q", "subvolume", "create", text(&tree)]);
        tree
    }

    pub(crate) fn versioned(&self, name: &str, version: &str) -> PathBuf {
        let tree = self.tree(name);
        fs::write(tree.join("version"), format!("{version}\n")).unwrap();
        tree
    }

    /// What a roll-back of a btrfs pool does: another tree takes the path.
    pub(crate) fn replace(&self, tree: &Path, by: &Path) {
        fs::rename(tree, tree.with_extension("gone")).unwrap();
        fs::rename(by, tree).unwrap();
    }

    pub(crate) fn unmount(&mut self) {
        run("umount", &[text(&self.dir)]);
        self.mounted = false;
    }

    /// Whether the kernel still has the file system.
    pub(crate) fn is_busy(&self) -> bool {
        let out = Command::new("losetup")
            .args(["-j", text(&self.file)])
            .output()
            .unwrap();
        !out.stdout.is_empty()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a test that failed may have left a container in it, which its rig ends.
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {out:?}");
}

pub(crate) fn mount(source: &Path, target: &str) -> VolumeMountPlan {
    VolumeMountPlan {
        source: source.to_owned(),
        target: target.into(),
        read_only: false,
        idmapped: true,
    }
}

/// As the volume worker makes it.
pub(crate) fn mounts_of(
    rig: &Rig,
    boxed: &Running,
    mounts: Vec<VolumeMountPlan>,
) -> ContainerMounts {
    let ids = teu_node::keeper::IdRange {
        base: BASE,
        count: 65536,
    };
    let place = (rig.parent.as_str(), &boxed.slot);
    ContainerMounts::new(boxed.container, &boxed.link, place, ids, mounts)
        .unwrap()
        .unwrap()
}
