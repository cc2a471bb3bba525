//! All that can be seen of a location's volumes, at every place where something of them is kept, so
//! that "done or not begun, and nothing left" is one comparison.
//!
//! Invariant: for volumes in the node's own btrfs file; who looks waits until nothing moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use teu::{Location, VolumeInfo, VolumeState};
use teu_integration::world::{World, eventually, loop_devices};
use teu_master::Store as _;

/// A volume, as its owner sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) quota: Option<u64>,
    pub(super) snapshots: Vec<String>,
    /// What the file `mark` in it says.
    pub(super) mark: Option<String>,
}

/// All volumes by name.
pub(super) type Picture = BTreeMap<String, Seen>;

/// The node's own pool.
pub(super) fn pool(world: &World) -> PathBuf {
    world.data().join("node/volumes")
}

/// The volume's tree on the host.
pub(super) fn tree(world: &World, info: &VolumeInfo) -> PathBuf {
    pool(world).join(format!("volumes/{}/tree", info.id))
}

pub(super) fn write_mark(world: &World, info: &VolumeInfo, mark: &str) {
    let file = tree(world, info).join("mark");
    fs::write(file, mark).expect("the tree can be written");
}

/// What the pool's directories show, however far it is.
pub(super) fn on_disk(world: &World) -> String {
    let volumes = pool(world).join("volumes");
    let of = |name: String| {
        let dir = volumes.join(&name);
        let mark = fs::read_to_string(dir.join("tree/mark")).ok();
        format!("{name} {:?} {mark:?}\n", entries(&dir.join("snapshots")))
    };
    entries(&volumes).into_iter().map(of).collect()
}

/// Waits until what was destroyed is removed: nobody may ask for anything meanwhile.
pub(super) fn nothing_gone(world: &World) {
    eventually("what was destroyed is removed", || {
        let left = subvolumes_of(world).unwrap_or_default();
        let is_gone = |path: &String| path.starts_with("gone/");
        entries(&pool(world).join("gone")).is_empty() && !left.iter().any(is_gone)
    });
}

/// What there is. An error: something is half done, left over, or told otherwise elsewhere.
pub(super) async fn look(world: &World, watcher: &Location) -> Result<Picture, String> {
    let fresh = world.connect().await.map_err(|error| error.to_string())?;
    let looked = look_at(world, watcher, &fresh).await;
    fresh.close().await;
    looked
}

async fn look_at(world: &World, watcher: &Location, fresh: &Location) -> Result<Picture, String> {
    let infos = sorted(fresh.volumes());
    let told = sorted(watcher.volumes());
    same("an older session is offered", &told, &infos)?;
    let mut picture = Picture::new();
    let mut subvolumes = BTreeSet::new();
    for info in &infos {
        let volume = fresh.volume(&info.id.to_string()).await;
        let volume = volume.map_err(|error| error.to_string())?;
        let usage = volume.usage().await.map_err(|error| error.to_string())?;
        let all = volume
            .snapshots()
            .await
            .map_err(|error| error.to_string())?;
        let snapshots: Vec<_> = all.into_iter().map(|one| one.name.to_string()).collect();
        let name = info.spec.tag.as_ref().ok_or("a volume lost its name")?;
        same("state", &info.state, &VolumeState::Ready)?;
        same(
            "its pool bounds it by",
            &usage.quota_bytes,
            &info.spec.quota_bytes,
        )?;
        let dir = format!("volumes/{}", info.id);
        subvolumes.insert(format!("{dir}/tree"));
        subvolumes.extend(snapshots.iter().map(|one| format!("{dir}/snapshots/{one}")));
        let there = entries(&pool(world).join(&dir));
        same(
            "in its directory",
            &there,
            &set(["record", "snapshots", "tree"]),
        )?;
        let seen = Seen {
            quota: info.spec.quota_bytes,
            snapshots,
            mark: fs::read_to_string(tree(world, info).join("mark")).ok(),
        };
        picture.insert(name.to_string(), seen);
    }
    let ids: BTreeSet<_> = infos.iter().map(|info| info.id.to_string()).collect();
    same("in the pool", &entries(&pool(world).join("volumes")), &ids)?;
    same(
        "being made",
        &entries(&pool(world).join("making")),
        &set([]),
    )?;
    // What is gone for everybody is removed when nobody waits for the pool: see `nothing_gone`.
    let mut there = subvolumes_of(world)?;
    there.retain(|path| !path.starts_with("gone/"));
    same("subvolumes", &there, &subvolumes)?;
    same("in the store", &stored(world)?, &ids)?;
    nothing_else(world)?;
    Ok(picture)
}

fn sorted(mut infos: Vec<VolumeInfo>) -> Vec<VolumeInfo> {
    infos.sort_by_key(|info| info.id);
    infos
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what}: {found:?} instead of {wanted:?}")),
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn entries(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn subvolumes_of(world: &World) -> Result<BTreeSet<String>, String> {
    let listed = Command::new("btrfs")
        .args(["subvolume", "list"])
        .arg(pool(world))
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let path = |line: &str| line.split_once(" path ").map(|(_, path)| path.to_owned());
    Ok(text.lines().filter_map(path).collect())
}

/// What a master that starts now would know. Read from a copy: the master has the store open.
fn stored(world: &World) -> Result<BTreeSet<String>, String> {
    let copy = world.scratch().join("store.copy");
    let copied = fs::copy(world.data().join("master/store.redb"), &copy);
    copied.map_err(|error| error.to_string())?;
    let store = teu_master::RedbStore::open(&copy).map_err(|error| error.to_string())?;
    let volumes = store.load().map_err(|error| error.to_string())?.volumes;
    match volumes.iter().find(|volume| volume.destroying) {
        Some(marked) => Err(format!("{} is being destroyed", marked.record.id)),
        None => Ok(volumes
            .iter()
            .map(|one| one.record.id.to_string())
            .collect()),
    }
}

/// One loop device, one mount of it, a whole journal, no frozen container.
fn nothing_else(world: &World) -> Result<(), String> {
    same(
        "loop devices",
        &loop_devices(&world.data().join("node/pool.btrfs")).len(),
        &1,
    )?;
    let point = pool(world).display().to_string();
    let census = world.census();
    let below = census.mounts.iter().filter(|at| at.starts_with(&point));
    same("mounts", &below.cloned().collect(), &vec![point])?;
    let journal = fs::metadata(world.data().join("node/volumes.journal"));
    same(
        "a torn end",
        &journal.map_or(0, |found| found.len() % 16),
        &0,
    )?;
    let frozen = frozen(Path::new("/sys/fs/cgroup"), world.instance());
    same("frozen", &frozen, &Vec::new())
}

/// Control groups of the instance that stand still, in either version's words.
fn frozen(root: &Path, instance: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.join("freezer").join(instance), root.join(instance)];
    while let Some(directory) = left.pop() {
        let says = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let state = says("freezer.state");
        if state.starts_with("FR") || says("cgroup.freeze").trim() == "1" {
            found.push(directory.clone());
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let inside = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(inside.map(|entry| entry.path()));
    }
    found
}
