//! Which pool a node has: parsed from `--pool`, opened at start.
//!
//! Owner: the agent's configuration. Invariant: what a person asked for by name is opened or an
//! error says why not; only `auto` may end without a pool, and then it keeps the reason.
//! Next: `btrfs.rs`, `zfs.rs`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use super::{BtrfsPool, LoopLimits, Pool, PoolError, ZfsPool, command, loop_file};

/// What `--pool` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PoolChoice {
    /// A loop file in the data directory, if the machine has what that takes.
    #[default]
    Auto,
    /// No volumes on this node.
    None,
    /// An existing directory on a btrfs.
    Dir(PathBuf),
    /// A loop file with a btrfs in it; made if missing.
    Loop(PathBuf),
    /// A ZFS dataset, below which all volumes lie; made if missing, its pool must exist.
    Zfs(String),
}

/// Text that names no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no pool: write `auto`, `none`, a directory on a btrfs (an absolute path), \
     `loop:/absolute/path/of/a/file`, or `zfs:pool/dataset`"
)]
pub struct ParsePoolChoiceError(String);

impl FromStr for PoolChoice {
    type Err = ParsePoolChoiceError;

    fn from_str(text: &str) -> Result<Self, ParsePoolChoiceError> {
        let refuse = || ParsePoolChoiceError(text.chars().take(200).collect());
        if let Some(file) = text.strip_prefix("loop:") {
            return absolute(file).map(Self::Loop).ok_or_else(refuse);
        }
        if let Some(dataset) = text.strip_prefix("zfs:") {
            return match is_dataset(dataset) {
                true => Ok(Self::Zfs(dataset.to_owned())),
                false => Err(refuse()),
            };
        }
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            dir => absolute(dir).map(Self::Dir).ok_or_else(refuse),
        }
    }
}

impl fmt::Display for PoolChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Dir(dir) => write!(f, "{}", dir.display()),
            Self::Loop(file) => write!(f, "loop:{}", file.display()),
            Self::Zfs(dataset) => write!(f, "zfs:{dataset}"),
        }
    }
}

fn absolute(path: &str) -> Option<PathBuf> {
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// `pool/dataset…`: the pool's own root dataset is not ours to fill (zfsprops(7) for the letters).
fn is_dataset(name: &str) -> bool {
    let fits = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    // The volume's id, a hidden prefix and a snapshot's name follow; all fit in 255 bytes.
    name.len() <= 100 && name.contains('/') && name.split('/').all(fits)
}

/// What came of opening.
#[derive(Debug, Clone)]
pub enum Opened {
    /// A pool. It may be faulted now; its methods and `doctor` say so, and [`Pool::maintain`] mends
    /// it when that can be done.
    Pool(Arc<dyn Pool>),
    /// None, and why, for `doctor`.
    Nothing(String),
}

/// Opens what was chosen. `data_dir` is the agent's own.
///
/// # Errors
///
/// What was named cannot be a pool: a tool is missing, the directory is not on a btrfs, or another
/// agent has it ([`PoolError::Busy`]).
pub fn open(choice: &PoolChoice, data_dir: &Path) -> Result<Opened, PoolError> {
    let mounts = data_dir.join("volumes");
    Ok(Opened::Pool(match choice {
        PoolChoice::None => return Ok(Opened::Nothing("turned off (`--pool none`)".to_owned())),
        PoolChoice::Auto => {
            if let Some(reason) = no_embedded_pool() {
                return Ok(Opened::Nothing(reason));
            }
            let file = data_dir.join("pool.btrfs");
            Arc::new(BtrfsPool::open_loop(&file, &mounts, LoopLimits::default())?)
        }
        PoolChoice::Loop(file) => {
            Arc::new(BtrfsPool::open_loop(file, &mounts, LoopLimits::default())?)
        }
        PoolChoice::Dir(dir) => Arc::new(BtrfsPool::open_dir(dir)?),
        PoolChoice::Zfs(dataset) => Arc::new(ZfsPool::open(dataset, &mounts)?),
    }))
}

/// Why this machine cannot have a btrfs in a loop file.
pub(crate) fn no_embedded_pool() -> Option<String> {
    let missing = command::missing(&loop_file::PROGRAMS);
    if !missing.is_empty() {
        return Some(format!(
            "`{}` is missing: install btrfs-progs and mount to have volumes",
            missing.join("`, `")
        ));
    }
    let kernel = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let loaded = kernel.lines().any(|line| line.trim() == "btrfs");
    // Not loaded yet is fine: mount(2) loads the module.
    (!loaded && !has_module("btrfs"))
        .then(|| "the kernel has no btrfs: load or install its module to have volumes".to_owned())
}

fn has_module(name: &str) -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let listing = Path::new("/lib/modules").join(release).join("modules.dep");
    std::fs::read_to_string(listing).is_ok_and(|modules| modules.contains(&format!("/{name}.ko")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::PoolChoice;

    #[test]
    fn every_choice_reads_back() {
        for text in [
            "auto",
            "none",
            "/srv/teu",
            "loop:/srv/teu.img",
            "zfs:tank/a/teu-1",
        ] {
            assert_eq!(text.parse::<PoolChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_a_pool_is_refused() {
        for text in [
            "",
            "srv",
            "loop:",
            "loop:a",
            "zfs:",
            "zfs:tank",
            "zfs:/tank/a",
            "zfs:tank/a@b",
            "zfs:tank//a",
            "zfs:tank/-a",
        ] {
            assert!(text.parse::<PoolChoice>().is_err(), "{text}");
        }
    }
}
