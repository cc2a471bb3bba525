//! ZFS through `libzfs_core`: one ioctl for what the `zfs` command starts a process for.
//!
//! Owner: the ZFS pool, which asks here first and, if this fails for whatever reason, says the same to
//! the command, whose words it understands. That is sound because each call here is one transaction
//! of the kernel: it is done, or nothing is. Invariants: every call may be given up (`../patience.rs`; the
//! command then fails at once); only parts of the crate `zfs-core` are called that
//! docs/decisions/0012-zfs-core.md found sound.
//! Next: `driver.rs` for the seam, `command.rs` for the commands.

use std::{ffi::CString, io, sync::Arc};

use nvpair::NvList;
use zfs_core::{DataSetType, Zfs};

use super::{
    super::{PoolError, patience::Patience},
    driver::{Driver, Property},
};
use crate::sys::nvlist;

/// The library before the command, or the command alone where the kernel has no OpenZFS.
pub(super) fn before(command: Box<dyn Driver>, patience: &Patience) -> Box<dyn Driver> {
    match Core::open(patience.clone()) {
        Ok(library) => Box::new(LibraryFirst { library, command }),
        Err(error) => {
            tracing::debug!(%error, "libzfs_core does not open /dev/zfs; the zfs command is used alone");
            command
        }
    }
}

/// Asks the library, and the command if that did not do it.
#[derive(Debug)]
struct LibraryFirst {
    library: Core,
    command: Box<dyn Driver>,
}

impl Driver for LibraryFirst {
    fn describe(&self) -> String {
        format!("libzfs_core, with {} behind it", self.command.describe())
    }

    fn create(&self, dataset: &str, properties: &[Property<'_>]) -> Result<(), PoolError> {
        let done = self.library.create(dataset, properties);
        done.or_else(|error| {
            refused("create", dataset, &error);
            self.command.create(dataset, properties)
        })
    }

    fn clone_snapshot(
        &self,
        snapshot: &str,
        dataset: &str,
        properties: &[Property<'_>],
    ) -> Result<(), PoolError> {
        let done = self.library.clone_snapshot(snapshot, dataset, properties);
        done.or_else(|error| {
            refused("clone", snapshot, &error);
            self.command.clone_snapshot(snapshot, dataset, properties)
        })
    }

    fn snapshot(&self, snapshot: &str) -> Result<(), PoolError> {
        self.library.snapshot(snapshot).or_else(|error| {
            refused("snapshot", snapshot, &error);
            self.command.snapshot(snapshot)
        })
    }

    fn roll_back(&self, snapshot: &str) -> Result<(), PoolError> {
        self.library.roll_back(snapshot).or_else(|error| {
            refused("rollback", snapshot, &error);
            self.command.roll_back(snapshot)
        })
    }

    fn destroy(&self, name: &str) -> Result<(), PoolError> {
        self.library.destroy(name).or_else(|error| {
            refused("destroy", name, &error);
            self.command.destroy(name)
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), PoolError> {
        self.library.rename(from, to).or_else(|error| {
            refused("rename", from, &error);
            self.command.rename(from, to)
        })
    }
}

fn refused(what: &str, name: &str, error: &io::Error) {
    tracing::debug!(what, name, %error, "libzfs_core refused; asking the zfs command");
}

/// The library, with `/dev/zfs` open.
#[derive(Debug, Clone)]
struct Core {
    zfs: Arc<Zfs>,
    patience: Patience,
}

impl Core {
    /// Opens it. Fails if the kernel has no OpenZFS.
    fn open(patience: Patience) -> io::Result<Self> {
        Ok(Self {
            zfs: Arc::new(Zfs::new()?),
            patience,
        })
    }

    /// `zfs create -o … dataset`, not mounted.
    fn create(&self, dataset: &str, properties: &[Property<'_>]) -> io::Result<()> {
        let (dataset, properties) = (text(dataset)?, Values::read(properties)?);
        self.call(move |zfs| zfs.create(&*dataset, DataSetType::Zfs, &properties.list()?))
    }

    /// `zfs clone -o … snapshot dataset`, not mounted.
    fn clone_snapshot(
        &self,
        snapshot: &str,
        dataset: &str,
        properties: &[Property<'_>],
    ) -> io::Result<()> {
        let (snapshot, dataset) = (text(snapshot)?, text(dataset)?);
        let properties = Values::read(properties)?;
        self.call(move |zfs| {
            let mut properties = properties.list()?;
            zfs.clone_dataset(&*dataset, &*snapshot, &mut properties)
        })
    }

    /// `zfs snapshot dataset@name`.
    fn snapshot(&self, snapshot: &str) -> io::Result<()> {
        let snapshot = text(snapshot)?;
        self.call(move |zfs| {
            // Only its being there is looked at: reading such a list of errors may panic.
            let done = zfs.snapshot([&*snapshot]);
            done.map_err(|error| match error {
                zfs_core::Error::Io { source } => source,
                zfs_core::Error::List { .. } => io::Error::other("the snapshot was refused"),
            })
        })
    }

    /// `zfs rollback snapshot`: refused if there are younger ones. Mounts stay and show the old tree.
    fn roll_back(&self, snapshot: &str) -> io::Result<()> {
        let dataset = snapshot.split('@').next().unwrap_or_default();
        let (dataset, snapshot) = (text(dataset)?, text(snapshot)?);
        self.call(move |zfs| zfs.rollback_to(&*dataset, &*snapshot))
    }

    /// `zfs destroy name` of a dataset that is not mounted and has nothing below it, or of a snapshot
    /// without clones. Whatever else is refused.
    fn destroy(&self, name: &str) -> io::Result<()> {
        let name = text(name)?;
        self.call(move |zfs| zfs.destroy(&*name))
    }

    /// `zfs rename from to` of a dataset that is not mounted.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (text(from)?, text(to)?);
        self.call(move |zfs| zfs.rename(&*from, &*to))
    }

    fn call<F>(&self, run: F) -> io::Result<()>
    where
        F: FnOnce(&Zfs) -> io::Result<()> + Send + 'static,
    {
        let zfs = Arc::clone(&self.zfs);
        let done = self.patience.call("libzfs_core", move || run(&zfs));
        done.map_err(io::Error::other)?
    }
}

fn text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::other)
}

/// Properties as the kernel takes them. Lists of the library cannot go to another thread, these can.
#[derive(Debug)]
struct Values(Vec<(CString, Value)>);

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(CString),
    Number(u64),
}

impl Values {
    fn read(properties: &[Property<'_>]) -> io::Result<Self> {
        let one = |&(name, value): &Property<'_>| Ok((text(name)?, Value::read(name, value)?));
        properties
            .iter()
            .map(one)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    fn list(&self) -> io::Result<NvList> {
        let mut list = NvList::try_new()?;
        for (name, value) in &self.0 {
            match value {
                Value::Text(value) => list.insert(&**name, &**value)?,
                Value::Number(value) => nvlist::add_number(&mut list, name, *value)?,
            }
        }
        Ok(list)
    }
}

impl Value {
    /// What a property's words mean to the kernel, for those that volumes have.
    fn read(name: &str, value: &str) -> io::Result<Self> {
        let unknown = || io::Error::from(io::ErrorKind::Unsupported);
        Ok(match (name, value) {
            ("mountpoint", _) => Self::Text(text(value)?),
            // A property of a user's own making has a colon in its name.
            _ if name.contains(':') => Self::Text(text(value)?),
            ("refquota" | "quota", "none") => Self::Number(0),
            ("refquota" | "quota", _) => Self::Number(value.parse().map_err(|_| unknown())?),
            ("canmount", "off") => Self::Number(0),
            ("canmount", "on") => Self::Number(1),
            ("canmount", "noauto") => Self::Number(2),
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn properties_are_read_as_the_kernel_takes_them() {
        assert_eq!(Value::read("canmount", "noauto").unwrap(), Value::Number(2));
        assert_eq!(Value::read("refquota", "none").unwrap(), Value::Number(0));
        assert_eq!(
            Value::read("refquota", "4096").unwrap(),
            Value::Number(4096)
        );
        assert_eq!(
            Value::read("teu:record", "x").unwrap(),
            Value::Text(text("x").unwrap())
        );
        for (name, value) in [
            ("refquota", "4K"),
            ("canmount", "maybe"),
            ("compression", "lz4"),
        ] {
            assert!(Value::read(name, value).is_err(), "{name}={value}");
        }
    }

    /// Runs where there is OpenZFS: `TEU_TEST_POOL=zfs:<dataset>`, as in the guest of deploy/vm.
    #[test]
    fn the_library_does_what_the_command_would() {
        let Ok(pool) = std::env::var("TEU_TEST_POOL") else {
            eprintln!("skipped: TEU_TEST_POOL names no ZFS dataset");
            return;
        };
        let core = Core::open(Patience::default()).unwrap();
        let parent = pool.strip_prefix("zfs:").unwrap();
        let name = |end: &str| format!("{parent}/core-{}{end}", std::process::id());
        let zfs = |arguments: &[&str]| {
            let done = std::process::Command::new("zfs")
                .args(arguments)
                .output()
                .unwrap();
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        let errno = |done: io::Result<()>| done.unwrap_err().raw_os_error();
        let properties = [
            ("mountpoint", "none"),
            ("canmount", "noauto"),
            ("refquota", "4194304"),
            ("teu:record", "r"),
        ];

        core.create(&name(""), &properties).unwrap();
        let get = |property: &str| zfs(&["get", "-Hpo", "value", property, &name("")]);
        assert_eq!(
            [get("canmount"), get("refquota"), get("teu:record")],
            ["noauto", "4194304", "r"]
        );
        assert_eq!(errno(core.create(&name(""), &[])), Some(libc::EEXIST));

        let asked = Arc::new(AtomicUsize::new(0));
        let both = LibraryFirst {
            library: core.clone(),
            command: Box::new(Asked(Arc::clone(&asked))),
        };
        both.snapshot(&name("@one")).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the library did it");
        assert!(core.snapshot(&name("@one")).is_err());
        both.snapshot(&name("@one")).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1, "the library refused");
        assert!(core.snapshot(&name("-none@one")).is_err());
        core.roll_back(&name("@one")).unwrap();
        core.snapshot(&name("@two")).unwrap();
        assert_eq!(errno(core.roll_back(&name("@one"))), Some(libc::EEXIST));

        core.clone_snapshot(&name("@one"), &name("-clone"), &properties)
            .unwrap();
        assert_eq!(
            zfs(&["get", "-Hpo", "value", "origin", &name("-clone")]),
            name("@one")
        );
        assert!(core.destroy(&name("@one")).is_err(), "it has a clone");
        assert!(core.destroy(&name("")).is_err(), "it has snapshots");
        core.rename(&name("-clone"), &name("-gone")).unwrap();
        for end in ["-gone", "@one", "@two", ""] {
            core.destroy(&name(end)).unwrap();
        }
        assert_eq!(errno(core.destroy(&name(""))), Some(libc::ENOENT));
        assert_eq!(zfs(&["list", "-H", &name("")]), "");
    }

    /// A command that does nothing, and counts how often it was asked for a snapshot.
    #[derive(Debug)]
    struct Asked(Arc<AtomicUsize>);

    impl Driver for Asked {
        fn describe(&self) -> String {
            "a count".to_owned()
        }
        fn create(&self, _: &str, _: &[Property<'_>]) -> Result<(), PoolError> {
            unreachable!()
        }
        fn clone_snapshot(&self, _: &str, _: &str, _: &[Property<'_>]) -> Result<(), PoolError> {
            unreachable!()
        }
        fn snapshot(&self, _: &str) -> Result<(), PoolError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn roll_back(&self, _: &str) -> Result<(), PoolError> {
            unreachable!()
        }
        fn destroy(&self, _: &str) -> Result<(), PoolError> {
            unreachable!()
        }
        fn rename(&self, _: &str, _: &str) -> Result<(), PoolError> {
            unreachable!()
        }
    }
}
