//! The indexes agree with the table whatever is done to it.

use super::*;
use proptest::prelude::*;
use teu_protocol::message::{VolumeRecord, VolumeSpec};

fn volume(n: u8, node: u8, tagged: bool, making: bool) -> Volume {
    let kept = record::Volume {
        node: NodeId::from_bytes([node; 16]),
        record: VolumeRecord {
            id: VolumeId::from_bytes([n; 16]),
            account: PublicKey::from_bytes([n % 2; 32]),
            created_ms: 0,
            spec: VolumeSpec {
                tag: tagged.then(|| format!("tag{}", n % 3).parse().unwrap()),
                ..VolumeSpec::default()
            },
            origin: None,
        },
        destroying: false,
    };
    Volume::new(kept, making.then_some(u64::from(n)))
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, u8, bool, bool),
    Remove(u8),
    Move(u8, u8),
    Made(u8),
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = 0u8..6;
    prop_oneof![
        (n.clone(), 0u8..3, any::<bool>(), any::<bool>())
            .prop_map(|(n, node, tag, making)| Op::Insert(n, node, tag, making)),
        n.clone().prop_map(Op::Remove),
        (n.clone(), 0u8..3).prop_map(|(n, node)| Op::Move(n, node)),
        n.prop_map(Op::Made),
    ]
}

proptest! {
    #[test]
    fn the_indexes_agree(ops in proptest::collection::vec(any_op(), 0..60)) {
        let mut volumes = Volumes::default();
        let id = |n: u8| VolumeId::from_bytes([n; 16]);
        for op in ops {
            match op {
                Op::Insert(n, node, tag, making) => volumes.insert(volume(n, node, tag, making)),
                Op::Remove(n) => drop(volumes.remove(&id(n))),
                Op::Move(n, node) => {
                    volumes.update(&id(n), |v| v.kept.node = NodeId::from_bytes([node; 16]));
                }
                Op::Made(n) => {
                    volumes.update(&id(n), |v| v.making_until_ms = None);
                }
            }
            for v in volumes.by_id.values() {
                prop_assert!(volumes.by_account[&v.account()].contains(&v.id()));
                prop_assert!(volumes.by_node[&v.kept.node].contains(&v.id()));
                prop_assert_eq!(volumes.making.contains(&v.id()), !v.is_made());
                let listed = volumes.listed(&v.account()).iter().any(|l| l.id() == v.id());
                prop_assert_eq!(listed, v.is_made());
            }
            let count = volumes.by_id.len();
            prop_assert_eq!(volumes.by_account.values().map(BTreeSet::len).sum::<usize>(), count);
            prop_assert_eq!(volumes.by_node.values().map(BTreeSet::len).sum::<usize>(), count);
            for ((account, tag), holder) in &volumes.by_tag {
                let v = &volumes.by_id[holder];
                prop_assert_eq!((v.account(), v.tag()), (*account, Some(tag)));
            }
        }
    }
}

#[test]
fn what_sessions_know_is_not_told_again() {
    let mut volumes = Volumes::default();
    volumes.insert(volume(1, 1, true, false));
    let id = VolumeId::from_bytes([1; 16]);
    assert_eq!(volumes.take_touched(), [id].into());
    let found = volumes.get(&id).unwrap().kept.clone();
    let info = VolumeInfo {
        id,
        node: found.node,
        created_ms: 0,
        spec: found.record.spec,
        origin: None,
        state: VolumeState::Ready,
        used_by: Vec::new(),
    };
    assert!(volumes.tell(&id, &info));
    assert!(!volumes.tell(&id, &info));
    let lost = VolumeInfo {
        state: VolumeState::NodeLost,
        ..info
    };
    assert!(volumes.tell(&id, &lost));
}
