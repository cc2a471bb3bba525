//! The indexes agree with the table whatever is done to it.

use super::*;
use proptest::prelude::*;
use teu_protocol::message::{ContainerInfo, Lifetime, ResourceLimits, VolumeMount};

use crate::container::Doom;

fn id(n: u8) -> ContainerId {
    ContainerId::from_bytes([n; 16])
}

fn container(n: u8, node: u8, tag: bool, memory: Option<u64>) -> Container {
    let info = ContainerInfo {
        id: id(n),
        tag: tag.then(|| format!("tag{}", n % 2).parse().unwrap()),
        node: NodeId::from_bytes([node; 16]),
        ip: None,
        image: teu_protocol::ids::Digest::of(b"i"),
        image_name: String::new(),
        command: Vec::new(),
        labels: BTreeMap::new(),
        created_ms: 0,
        state: ContainerState::Requested,
        tty: false,
        limits: ResourceLimits {
            memory_bytes: memory,
            ..ResourceLimits::default()
        },
        allowed_from: Vec::new(),
        volumes: mounts(n),
    };
    Container {
        info,
        session: SessionId::from_bytes([n % 3; 16]),
        attachment: teu_protocol::ids::AttachmentId::from_bytes([n; 16]),
        account: PublicKey::from_bytes([n % 2; 32]),
        lifetime: Lifetime::Session,
        layers: Vec::new(),
        processes: BTreeMap::new(),
        readers: std::collections::BTreeSet::new(),
        doom: None,
        unconfirmed: false,
        linger_until_ms: None,
    }
}

/// Every other container has the same volume, some twice.
fn mounts(n: u8) -> Vec<VolumeMount> {
    let mount = |path: &str| VolumeMount {
        volume: VolumeId::from_bytes([n % 2; 16]),
        path: path.into(),
        read_only: false,
    };
    match n % 3 {
        0 => Vec::new(),
        1 => vec![mount("/a")],
        _ => vec![mount("/a"), mount("/b")],
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, u8, bool, Option<u64>),
    Remove(u8),
    Address(u8, u8),
    Doom(u8),
    Move(u8, u8),
    Exit(u8),
}

fn any_op() -> impl Strategy<Value = Op> {
    let n = 0u8..6;
    prop_oneof![
        (
            n.clone(),
            0u8..2,
            any::<bool>(),
            proptest::option::of(1u64..9)
        )
            .prop_map(|(n, node, tag, memory)| Op::Insert(n, node, tag, memory)),
        n.clone().prop_map(Op::Remove),
        (n.clone(), 0u8..3).prop_map(|(n, ip)| Op::Address(n, ip)),
        n.clone().prop_map(Op::Doom),
        (n.clone(), 0u8..2).prop_map(|(n, node)| Op::Move(n, node)),
        n.prop_map(Op::Exit),
    ]
}

fn apply(containers: &mut Containers, op: Op) {
    match op {
        Op::Insert(n, node, tag, memory) => containers.insert(container(n, node, tag, memory)),
        Op::Remove(n) => drop(containers.remove(&id(n))),
        Op::Address(n, host) => {
            let ip = Ipv4Addr::new(10, 0, 0, host);
            if containers.at(&ip).is_none() {
                containers.update(&id(n), |c| c.info.ip = Some(ip));
            }
        }
        Op::Doom(n) => drop(containers.update(&id(n), |c| c.doom = Some(Doom::Ordered))),
        Op::Move(n, node) => {
            containers.update(&id(n), |c| c.info.node = NodeId::from_bytes([node; 16]));
        }
        Op::Exit(n) => {
            use teu_protocol::message::{Cause, ExitStatus, Termination};
            let termination = Termination {
                status: ExitStatus::Code(0),
                cause: Cause::Exited,
            };
            let state = ContainerState::Exited {
                termination,
                at_ms: 0,
            };
            containers.update(&id(n), |c| c.info.state = state);
        }
    }
}

proptest! {
    #[test]
    fn indexes_agree_with_the_table(ops in proptest::collection::vec(any_op(), 0..60)) {
        let mut containers = Containers::default();
        for op in ops {
            apply(&mut containers, op);
            let all: Vec<&Container> = containers.by_id.values().collect();
            for node in [0, 1].map(|n| NodeId::from_bytes([n; 16])) {
                let there: Vec<_> = all.iter().filter(|c| c.info.node == node).collect();
                prop_assert_eq!(containers.on_node(&node).count(), there.len());
                let mut promises = Promises::default();
                for c in there.iter().filter(|c| !c.has_exited()) {
                    promises.add(&c.info.limits);
                }
                prop_assert_eq!(containers.promises(&node), promises);
            }
            for n in 0..3 {
                let session = SessionId::from_bytes([n; 16]);
                let own = all.iter().filter(|c| c.session == session).count();
                prop_assert_eq!(containers.count_of(&session), own);
            }
            prop_assert_eq!(
                containers.doomed().count(),
                all.iter().filter(|c| c.is_doomed()).count()
            );
            let addresses: BTreeMap<_, _> =
                all.iter().filter_map(|c| Some((c.info.ip?, c.info.id))).collect();
            prop_assert_eq!(&containers.by_ip, &addresses);
            for (key, tagged) in &containers.by_tag {
                let holder = &containers.by_id[tagged];
                prop_assert!(!holder.is_doomed());
                prop_assert_eq!(holder.info.tag.as_ref(), Some(&key.1));
            }
            for c in &all {
                let owned = containers.owned(&c.session, &c.info.id);
                prop_assert_eq!(owned.is_ok(), !c.is_doomed());
                let other = SessionId::from_bytes([77; 16]);
                prop_assert!(containers.owned(&other, &c.info.id).is_err());
            }
        }
    }
}
