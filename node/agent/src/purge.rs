//! Removing all that a stopped node has left on its machine.
//!
//! Owner: `teu-node purge`. Invariant: refuses while an agent runs; afterwards no process, cgroup,
//! interface or rule of the instance is left, and no file or loop device unless its data are kept.

mod mounts;

use std::{io, net::Ipv4Addr, path::Path};

use teu_node_core::firewall::Ipv4Subnet;

use crate::{
    containers::find,
    keeper,
    link::chain,
    state::{DataDir, StateError},
    sys::{
        cgroup::{Cgroup, CgroupError, Hierarchies},
        names::InstanceName,
        net::{NetConfig, NetError, NetworkHandle},
    },
    volumes::pool::PoolChoice,
};

/// Stands in for addresses that are not known any more.
const UNKNOWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Files, or an agent runs.
    #[error(transparent)]
    State(#[from] StateError),
    /// Processes or cgroups.
    #[error("the node's cgroup cannot be removed")]
    Cgroup(#[from] CgroupError),
    /// The network.
    #[error("the node's network cannot be removed")]
    Network(#[from] NetError),
    /// The recorded addresses make no network.
    #[error("the node's record of its addresses is damaged")]
    NoAddresses,
    /// A pool is still mounted below the data directory: removing that would destroy volumes.
    #[error("cannot unmount the volumes at {path}, so nothing is removed there")]
    Unmount {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory.
    #[error("cannot remove {path}")]
    Remove {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What becomes of the node's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// They stay, and so does the pool as it is mounted: the node can be started again.
    Keep,
    /// They go. Of a pool elsewhere only the loop device is given back.
    Remove {
        /// Where the pool lies.
        pool: PoolChoice,
    },
}

/// Ends and removes all that the node has left.
///
/// # Errors
/// [`PurgeError`]; what comes before it in the order of the code is removed.
pub async fn run(instance: &InstanceName, root: &Path, kept: &Data) -> Result<(), PurgeError> {
    let data = DataDir::open(root)?;
    let lock = data.lock()?;
    let run_dir = Path::new("/run").join(instance.as_str());
    // Ends what nobody owns; what has an owner ends with it below.
    let found = find(&data, &run_dir, instance.as_str()).await?;
    for one in &found {
        if let Some((keeper, _)) = &one.keeper
            && let Err(error) = keeper.destroy().await
        {
            tracing::warn!("{}", chain(&error));
        }
    }
    for slot in keeper::slots(&run_dir).unwrap_or_default() {
        if let Err(error) = keeper::sweep(&run_dir, instance.as_str(), &slot) {
            tracing::warn!("{}", chain(&error));
        }
    }
    if let Ok(hierarchies) = Hierarchies::detect() {
        let all = Cgroup::named(&hierarchies, "", instance.as_str());
        all.kill_all()?;
        all.remove()?;
    }
    let (subnet, range) = addresses(&data)?;
    NetworkHandle::open(NetConfig::new(instance.clone(), subnet, range), Vec::new())
        .await?
        .close()
        .await?;
    // What containers wrote has ended with them; the next start makes room for others.
    mounts::unmount(&data.path().join("scratch"))?;
    let scratch = data.path().join("scratch.btrfs");
    mounts::detach_files(|file| file == scratch);
    let Data::Remove { pool } = kept else {
        return remove(&[&run_dir]);
    };
    // Volumes stay where they are, unless their file is in the data directory and goes with it.
    mounts::unmount(&data.path().join("volumes"))?;
    let elsewhere = match pool {
        PoolChoice::Loop(file) => Some(file.as_path()),
        _ => None,
    };
    // Also those that an agent which was killed had attached and not mounted yet.
    mounts::detach_files(|file| file.starts_with(data.path()) || Some(file) == elsewhere);
    drop(lock);
    remove(&[&run_dir, root])
}

fn remove(paths: &[&Path]) -> Result<(), PurgeError> {
    for path in paths {
        match std::fs::remove_dir_all(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(PurgeError::Remove {
                    path: path.to_path_buf(),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The node's addresses. A node whose data are lost has left its bridge and tables all the same: they
/// are found by the instance's name, so any addresses do for taking them over and down.
fn addresses(data: &DataDir) -> Result<(Ipv4Subnet, Ipv4Subnet), PurgeError> {
    let subnet = |(base, prefix)| Ipv4Subnet::new(base, prefix).ok();
    let known = data
        .topology()?
        .and_then(|topology| subnet(topology.subnet).zip(subnet(topology.range)));
    let any = || subnet((UNKNOWN, 24)).zip(subnet((UNKNOWN, 16)));
    known.or_else(any).ok_or(PurgeError::NoAddresses)
}
