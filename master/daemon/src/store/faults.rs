//! Disks that fail once, or are full for a while: the store goes on as soon as they are well.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use redb::{Database, StorageBackend, backends::FileBackend};
use teu_master_core::record::{Account, StoreOp};
use teu_protocol::ids::PublicKey;

use super::{RedbStore, Store, StoreError};

/// A disk whose next writes or syncs fail with EIO.
#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    faults: Arc<AtomicUsize>,
}

impl Faulty {
    fn fault(&self) -> io::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        match self
            .faults
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => Err(io::Error::from_raw_os_error(5)),
            Err(_) => Ok(()),
        }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fault()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fault()?;
        self.file.write(offset, data)
    }
}

fn account(number: u8) -> StoreOp {
    StoreOp::PutAccount(Account {
        key: PublicKey::from_bytes([number; 32]),
        name: "x".repeat(60),
        admin: false,
    })
}

fn open_faulty(path: &Path, faults: &Arc<AtomicUsize>) -> Result<RedbStore, StoreError> {
    let faults = Arc::clone(faults);
    RedbStore::open_with(
        path,
        Box::new(move |path| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            let backend = Faulty {
                file: FileBackend::new(file).map_err(redb::Error::from)?,
                faults: Arc::clone(&faults),
            };
            let opened = Database::builder().create_with_backend(backend);
            opened.map_err(redb::Error::from)
        }),
    )
}

#[test]
fn one_error_of_the_disk_costs_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(AtomicUsize::new(0));
    let store = open_faulty(&dir.path().join("store.redb"), &faults).unwrap();
    store.commit(&[account(1)]).unwrap();
    for number in 2..6 {
        faults.store(1, Ordering::Relaxed);
        let failed = store.commit(&[account(number)]).unwrap_err();
        assert!(matches!(failed, StoreError::Write(_)), "{failed:?}");
        faults.store(0, Ordering::Relaxed);
        store.commit(&[account(number)]).unwrap();
        let kept = store.load().unwrap().accounts.len();
        assert_eq!(kept, usize::from(number));
    }
}

#[test]
fn a_disk_that_fails_while_the_file_is_opened_again_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(AtomicUsize::new(0));
    let store = open_faulty(&dir.path().join("store.redb"), &faults).unwrap();
    store.commit(&[account(1)]).unwrap();
    faults.store(1_000, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(store.commit(&[account(2)]).is_err());
    }
    faults.store(0, Ordering::Relaxed);
    store.commit(&[account(2)]).unwrap();
    assert_eq!(store.load().unwrap().accounts.len(), 2);
}

/// The directory of a small tmpfs, in which this program was started again (see below).
const SMALL_DISK: &str = "TEU_TEST_SMALL_DISK";

/// With a real ENOSPC: on a tmpfs of two megabytes in a mount namespace of its own, if this is root.
#[test]
fn a_full_disk_that_has_room_again_is_written_at_once() {
    if let Some(dir) = std::env::var_os(SMALL_DISK) {
        fill_and_free(Path::new(&dir));
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=2m none \"$TEU_TEST_SMALL_DISK\" && exec \"$0\" \
                  --exact store::faults::a_full_disk_that_has_room_again_is_written_at_once";
    let ended = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, dir.path())
        .output()
        .unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
}

fn fill_and_free(dir: &Path) {
    let store = RedbStore::open(&dir.join("store.redb")).unwrap();
    store.commit(&[account(1)]).unwrap();
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    let full = io::copy(&mut io::repeat(7), &mut file).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let records: Vec<_> = (2..=250).map(account).collect();
    let failed = (0..200).find_map(|_| {
        let all: Vec<_> = records.iter().cycle().take(20_000).cloned().collect();
        store.commit(&all).err()
    });
    let failed = failed.map(|error| format!("{error:?}"));
    assert!(
        failed.is_some_and(|text| text.contains("StorageFull")),
        "a full disk"
    );
    drop(file);
    std::fs::remove_file(ballast).unwrap();
    store.commit(&records).unwrap();
    assert_eq!(store.load().unwrap().accounts.len(), 250);
}
