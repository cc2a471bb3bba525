//! ZFS through the `zfs` and `zpool` commands, of OpenZFS 2.x or zfs-fuse 0.7.
//!
//! Owner: the ZFS pool. Invariants: only options that both know; of the commands of all agents on a machine, at most
//! one makes zfs-fuse mount something at a time (see [`FUSE_LOCK`]). zfs-fuse lets go of an unmounted dataset a
//! moment after `zfs unmount` has returned, so with it a busy dataset is asked for again.

use std::{
    ffi::OsStr,
    fs,
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        PoolError,
        command::{Failed, Stream, Tools},
        patience::Patience,
    },
    driver::{Driver, Property},
};

/// How long zfs-fuse may take to let go (seen: 20 ms).
const LET_GO: Duration = Duration::from_secs(5);

/// Held, by the command itself and so also if its agent is killed, while zfs-fuse mounts something. zfs-fuse 0.7 tells
/// its listener of a new mount in two writes to one pipe (zfsfuse_newfs in its src/zfs-fuse/fuse_listener.c). Those of
/// two mounts at once get mixed: the listener then waits for ever for a path of hundreds of megabytes, or crashes,
/// and with it all mounts (four loops of `zfs mount` beside each other: at the tenth or so; with this lock 600 mounts
/// went well). The daemon locks this file of its own with lockf(3), which flock(2) does not meet.
const FUSE_LOCK: &str = "/var/lock/zfs/zfs_lock";

/// Whether a command may mount something: clones of a snapshot are mounted anew when it is renamed.
fn may_mount(args: &[&str]) -> bool {
    match args {
        ["mount" | "create" | "clone" | "rename" | "rollback", ..] => true,
        ["set", value, ..] => value.starts_with("mountpoint="),
        _ => false,
    }
}

/// The commands.
#[derive(Debug, Clone)]
pub(super) struct ZfsCommand {
    tools: Tools,
    fuse: bool,
}

impl ZfsCommand {
    pub(super) fn new(tools: Tools) -> Self {
        let fuse = !Path::new("/dev/zfs").exists();
        Self { tools, fuse }
    }

    /// Whether ZFS is not in the kernel but in zfs-fuse.
    pub(super) fn is_fuse(&self) -> bool {
        self.fuse
    }

    /// How long it waits for what may hang.
    pub(super) fn patience(&self) -> &Patience {
        self.tools.patience()
    }

    /// OpenZFS's version, such as (2, 3).
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let text = fs::read_to_string("/sys/module/zfs/version").ok()?;
        let mut parts = text.trim().split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    pub(super) fn zfs(&self, args: &[&str]) -> Result<String, PoolError> {
        if self.fuse && may_mount(args) && Path::new(FUSE_LOCK).exists() {
            let locked = [&["--no-fork", FUSE_LOCK, "zfs"], args].concat();
            return self.tools.run("flock", &locked).map_err(named);
        }
        self.tools.run("zfs", args).map_err(named)
    }

    pub(super) fn zpool(&self, args: &[&str]) -> Result<String, PoolError> {
        self.tools.run("zpool", args).map_err(named)
    }

    /// A change that zfs-fuse may refuse for a moment after an unmount.
    pub(super) fn after_unmount(&self, args: &[&str]) -> Result<(), PoolError> {
        let end = Instant::now() + LET_GO;
        loop {
            match self.zfs(args) {
                Err(PoolError::Busy(_)) if self.fuse && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(20));
                }
                done => return done.map(drop),
            }
        }
    }

    /// One property of one dataset or snapshot; `None` if there is no such dataset.
    pub(super) fn get(&self, name: &str, property: &str) -> Result<Option<String>, PoolError> {
        match self.zfs(&["get", "-Hp", "-o", "value", property, name]) {
            Ok(value) => Ok(Some(value.trim_end_matches('\n').to_owned())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn exists(&self, name: &str) -> Result<bool, PoolError> {
        Ok(self.get(name, "type")?.is_some())
    }

    pub(super) fn set(&self, dataset: &str, property: &str, value: &str) -> Result<(), PoolError> {
        self.zfs(&["set", &format!("{property}={value}"), dataset])
            .map(drop)
    }

    /// Takes a property of ours away.
    pub(super) fn unset(&self, dataset: &str, property: &str) -> Result<(), PoolError> {
        self.zfs(&["inherit", property, dataset]).map(drop)
    }

    /// Lines of tab-separated columns; none if there is no such dataset.
    pub(super) fn list(&self, args: &[&str]) -> Result<Vec<Vec<String>>, PoolError> {
        let shown = match self.zfs(args) {
            Err(error) if is_missing(&error) => String::new(),
            shown => shown?,
        };
        let columns = |line: &str| line.split('\t').map(str::to_owned).collect();
        Ok(shown.lines().map(columns).collect())
    }

    /// Destroys a snapshot once its last clone is gone.
    pub(super) fn destroy_later(&self, snapshot: &str) -> Result<(), PoolError> {
        self.zfs(&["destroy", "-d", snapshot]).map(drop)
    }

    /// Destroys a dataset that was never anybody's, with its snapshots.
    pub(super) fn destroy_whole(&self, dataset: &str) -> Result<(), PoolError> {
        match self.after_unmount(&["destroy", "-r", dataset]) {
            Err(error) if is_missing(&error) => Ok(()),
            done => done,
        }
    }

    pub(super) fn send(
        &self,
        snapshot: &str,
        base: Option<&str>,
        out: OwnedFd,
    ) -> Result<(), PoolError> {
        let mut args = vec!["send"];
        args.extend(base.iter().flat_map(|base| ["-i", *base]));
        args.push(snapshot);
        self.tools
            .stream("zfs", &args, Stream::To(out))
            .map_err(named)
    }

    pub(super) fn receive(
        &self,
        options: &[&str],
        snapshot: &str,
        input: OwnedFd,
    ) -> Result<(), PoolError> {
        let mut args = vec!["receive"];
        args.extend(options);
        args.push(snapshot);
        match self
            .tools
            .stream("zfs", &args, Stream::From(input))
            .map_err(named)
        {
            Err(PoolError::Tool { said, .. }) => Err(PoolError::BadStream(said)),
            done => done,
        }
    }
}

impl Driver for ZfsCommand {
    fn describe(&self) -> String {
        match self.fuse {
            true => "the zfs command and zfs-fuse".to_owned(),
            false => "the zfs command".to_owned(),
        }
    }

    fn create(&self, dataset: &str, properties: &[Property<'_>]) -> Result<(), PoolError> {
        self.with_properties(&["create"], properties, &[dataset])
    }

    fn clone_snapshot(
        &self,
        snapshot: &str,
        dataset: &str,
        properties: &[Property<'_>],
    ) -> Result<(), PoolError> {
        match self.with_properties(&["clone"], properties, &[snapshot, dataset]) {
            // zfs-fuse's command mounts it as well, whatever `canmount` says, and at times cannot at
            // once. The clone is made; the pool mounts it.
            Err(PoolError::Busy(said)) if self.fuse && said.contains("cannot mount") => Ok(()),
            done => done,
        }
    }

    fn snapshot(&self, snapshot: &str) -> Result<(), PoolError> {
        self.zfs(&["snapshot", snapshot]).map(drop)
    }

    fn roll_back(&self, snapshot: &str) -> Result<(), PoolError> {
        self.zfs(&["rollback", snapshot]).map(drop)
    }

    fn destroy(&self, name: &str) -> Result<(), PoolError> {
        self.after_unmount(&["destroy", name])
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), PoolError> {
        self.after_unmount(&["rename", from, to])
    }
}

impl ZfsCommand {
    fn with_properties(
        &self,
        verb: &[&str],
        properties: &[Property<'_>],
        names: &[&str],
    ) -> Result<(), PoolError> {
        let set: Vec<String> = properties
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut args = verb.to_vec();
        args.extend(set.iter().flat_map(|set| ["-o", set.as_str()]));
        args.extend(names);
        self.zfs(&args).map(drop)
    }
}

/// Whether what was asked about does not exist.
pub(super) fn is_missing(error: &PoolError) -> bool {
    matches!(error, PoolError::Tool { said, .. } if said.contains("does not exist") || said.contains("could not find any snapshots"))
}

/// Gives what the commands say its name.
fn named(failed: Failed) -> PoolError {
    const FAULTED: [&str; 7] = [
        "I/O is currently suspended",
        "no such pool",
        "failed to initialize ZFS library",
        "zfs-fuse daemon is running",
        "ZFS modules",
        "pool is unavailable",
        "I/O error",
    ];
    let Failed::Said { command, said } = failed else {
        return failed.into();
    };
    let has = |words: &str| said.contains(words);
    if FAULTED.iter().any(|words| has(words)) {
        PoolError::Faulted(format!(
            "ZFS cannot be used now: {said}; see `zpool status`"
        ))
    } else if has("size is less than current used") {
        PoolError::QuotaTooSmall
    } else if has("out of space") {
        PoolError::Full
    } else if has("is busy")
        || has("pool or dataset is busy")
        || has("Device or resource busy")
        || has("cannot unmount")
    {
        PoolError::Busy(said)
    } else {
        Failed::Said { command, said }.into()
    }
}

/// A path as a property's value.
pub(super) fn path_text(path: &Path) -> Result<&str, PoolError> {
    let text = AsRef::<OsStr>::as_ref(path).to_str();
    text.ok_or_else(|| {
        PoolError::Faulted(format!(
            "{} is not UTF-8, which ZFS takes for mount points",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::may_mount;

    #[test]
    fn what_may_mount_is_known() {
        for args in [
            &["mount", "a/b"][..],
            &["clone", "-o", "canmount=noauto", "a/b@s", "a/c"],
            &["rename", "a/b@s", "a/b@t"],
            &["set", "mountpoint=/x", "a/b"],
        ] {
            assert!(may_mount(args), "{args:?}");
        }
        for args in [
            &["get", "-Hp", "-o", "value", "type", "a/b"][..],
            &["set", "refquota=none", "a/b"],
            &["destroy", "a/b"],
            &["snapshot", "a/b@s"],
        ] {
            assert!(!may_mount(args), "{args:?}");
        }
    }
}
