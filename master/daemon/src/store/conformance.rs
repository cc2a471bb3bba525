//! What every engine must do, run on the fake and on the real one; and what only a file can suffer.

use std::{io::Write as _, path::Path};

use teu_master_core::record::{
    Account, Destroyed, Image, Node, Possession, Restored, Session, StoreOp, Volume,
};
use teu_protocol::{
    ids::{Digest, NodeId, PublicKey, SessionId, VolumeId},
    message::{ImageManifest, SnapshotSchedule, VolumeOrigin, VolumeRecord, VolumeSpec},
};

use super::{MemoryStore, RedbStore, Store, StoreError};

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

fn account(byte: u8, name: &str) -> Account {
    Account {
        key: key(byte),
        name: name.into(),
        admin: byte == 1,
    }
}

fn session(byte: u8) -> Session {
    let id = SessionId::from_bytes([byte; 16]);
    Session {
        id,
        account: key(1),
        name: "default".parse().ok(),
        created_ms: 5,
    }
}

fn image(byte: u8) -> Image {
    let digest = Digest::of(&[byte]);
    Image {
        account: key(byte),
        manifest: ImageManifest {
            id: digest,
            config: vec![byte; 3],
            layers: Vec::new(),
        },
        names: ["nginx:latest".to_owned()].into(),
        platform: "linux/amd64".into(),
        added_ms: 7,
    }
}

fn destroyed(byte: u8) -> Destroyed {
    Destroyed {
        account: key(byte),
        volume: VolumeId::from_bytes([byte; 16]),
        at_ms: 9,
    }
}

fn volume(byte: u8, destroying: bool) -> Volume {
    Volume {
        node: NodeId::from_bytes([9; 16]),
        record: VolumeRecord {
            id: VolumeId::from_bytes([byte; 16]),
            account: key(1),
            created_ms: 6,
            spec: VolumeSpec {
                tag: "data".parse().ok(),
                quota_bytes: Some(1 << 20),
                schedule: Some(SnapshotSchedule {
                    every_s: 3_600,
                    keep: 24,
                }),
                labels: [("for".to_owned(), "tests".to_owned())].into(),
            },
            origin: Some(VolumeOrigin {
                volume: VolumeId::from_bytes([1; 16]),
                snapshot: "before".parse().unwrap(),
            }),
        },
        destroying,
    }
}

fn one_of_each() -> Vec<StoreOp> {
    let node = Node {
        id: NodeId::from_bytes([9; 16]),
        key: key(9),
        name: "n".into(),
        subnet: 3,
        prefix: 20,
    };
    let possession = Possession {
        account: key(1),
        digest: Digest::of(b"x"),
        size: 1,
    };
    vec![
        StoreOp::PutAccount(account(1, "ann")),
        StoreOp::PutNode(node),
        StoreOp::PutSession(session(2)),
        StoreOp::PutImage(image(1)),
        StoreOp::PutPossession(possession),
        StoreOp::PutVolume(volume(4, false)),
        StoreOp::PutDestroyed(destroyed(6)),
    ]
}

fn conforms(store: &dyn Store) {
    assert_eq!(store.load().unwrap(), Restored::default());
    store.commit(&one_of_each()).unwrap();
    let all = store.load().unwrap();
    assert_eq!(all.accounts, [account(1, "ann")]);
    assert_eq!((all.nodes.len(), all.sessions.len()), (1, 1));
    assert_eq!(all.images, [image(1)]);
    assert_eq!(all.possessions.len(), 1);
    assert_eq!(all.volumes, [volume(4, false)]);
    assert_eq!(all.destroyed, [destroyed(6)]);

    store
        .commit(&[StoreOp::PutVolume(volume(4, true))])
        .unwrap();
    assert_eq!(store.load().unwrap().volumes, [volume(4, true)]);

    store
        .commit(&[StoreOp::PutAccount(account(1, "anna"))])
        .unwrap();
    assert_eq!(
        store.load().unwrap().accounts,
        [account(1, "anna")],
        "a put replaces"
    );

    // The same image and blob of two accounts are two records.
    let other = Image {
        account: key(8),
        ..image(1)
    };
    store.commit(&[StoreOp::PutImage(other.clone())]).unwrap();
    let (id, account) = (other.manifest.id, key(1));
    store
        .commit(&[StoreOp::RemoveImage { account, id }])
        .unwrap();
    assert_eq!(store.load().unwrap().images, std::slice::from_ref(&other));

    let (put, id) = (session(3), session(3).id);
    store
        .commit(&[StoreOp::PutSession(put.clone()), StoreOp::RemoveSession(id)])
        .unwrap();
    assert_eq!(
        store.load().unwrap().sessions,
        [session(2)],
        "in order within a commit"
    );
    store
        .commit(&[StoreOp::RemoveSession(id), StoreOp::PutSession(put)])
        .unwrap();
    assert_eq!(store.load().unwrap().sessions.len(), 2);

    store
        .commit(&[
            StoreOp::RemoveAccount(key(1)),
            StoreOp::RemoveVolume(volume(4, false).record.id),
            StoreOp::RemoveDestroyed(destroyed(6).volume),
            StoreOp::RemoveSession(session(2).id),
            StoreOp::RemoveSession(session(3).id),
            StoreOp::RemoveImage {
                account: key(8),
                id: other.manifest.id,
            },
            StoreOp::RemovePossession {
                account: key(1),
                digest: Digest::of(b"x"),
            },
        ])
        .unwrap();
    let left = store.load().unwrap();
    assert_eq!(
        (left.accounts.len(), left.nodes.len()),
        (0, 1),
        "nodes are never removed"
    );
    assert!(left.sessions.is_empty() && left.images.is_empty() && left.possessions.is_empty());
    assert!(left.volumes.is_empty() && left.destroyed.is_empty());
    store.commit(&[StoreOp::RemoveAccount(key(1))]).unwrap();
}

#[test]
fn the_fake_conforms() {
    conforms(&MemoryStore::default());
}

#[test]
fn redb_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(&RedbStore::open(&directory.path().join("store")).unwrap());
}

fn filled(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    store.commit(&one_of_each()).unwrap();
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    filled(&path);
    assert_eq!(
        RedbStore::open(&path).unwrap().load().unwrap().accounts,
        [account(1, "ann")]
    );
}

#[test]
fn a_file_in_use_is_not_opened_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let _held = RedbStore::open(&path).unwrap();
    assert!(matches!(
        RedbStore::open(&path),
        Err(StoreError::Open { .. })
    ));
}

#[test]
fn a_store_of_before_volumes_is_opened_and_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    filled(&path);
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("volumes");
        assert!(write.delete_table(table).unwrap(), "it was there");
        write.commit().unwrap();
    }
    let store = RedbStore::open(&path).unwrap();
    let all = store.load().unwrap();
    assert_eq!(all.accounts, [account(1, "ann")]);
    assert_eq!(all.volumes, []);
    store
        .commit(&[StoreOp::PutVolume(volume(5, false))])
        .unwrap();
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.load().unwrap().volumes, [volume(5, false)]);
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    filled(&path);
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("format");
        write
            .open_table(table)
            .unwrap()
            .insert("format", 2)
            .unwrap();
        write.commit().unwrap();
    }
    let refused = RedbStore::open(&path).unwrap_err();
    assert!(
        matches!(
            refused,
            StoreError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_damaged_file_gives_an_error_and_not_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::write(
        &path,
        b"this is not a database, and long enough to be read as one",
    )
    .unwrap();
    assert!(matches!(
        RedbStore::open(&path),
        Err(StoreError::Open { .. })
    ));
    std::fs::remove_file(&path).unwrap();
    filled(&path);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(&[0xff; 512]).unwrap();
    drop(file);
    let error = RedbStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("store"), "{error}");
}
