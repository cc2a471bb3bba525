//! How nodes are ranked.

use std::net::Ipv4Addr;

use teu_protocol::message::{NodeCapacity, NodeUsage};

use super::*;

fn node(state: NodeState, cpu_used: u64, memory_free: u64, promised: u64) -> NodeOffer {
    NodeOffer {
        id: NodeId::from_bytes([1; 16]),
        name: "n".into(),
        state,
        platform: "linux/amd64".into(),
        subnet: (Ipv4Addr::new(10, 0, 0, 0), 24),
        containers_max: 253,
        capacity: NodeCapacity {
            cpu_millis: 2000,
            memory_bytes: 1000,
            disk_bytes: 10,
            pool_bytes: 0,
        },
        usage: NodeUsage {
            cpu_used_millis: cpu_used,
            memory_free_bytes: memory_free,
            memory_promised_bytes: promised,
            disk_free_bytes: 5,
            ..NodeUsage::default()
        },
    }
}

#[test]
fn the_scarcer_resource_decides_and_lost_nodes_come_last() {
    let idle = node(NodeState::Up, 0, 900, 0);
    let busy = node(NodeState::Up, 1900, 900, 0);
    let promised = node(NodeState::Up, 0, 900, 800);
    let full = node(NodeState::Up, 2000, 0, 1000);
    let lost = node(NodeState::Lost, 0, 1000, 0);
    let order = [&idle, &promised, &busy, &full, &lost];
    assert!(order.is_sorted_by(|a, b| rank(a) > rank(b)));
}

#[test]
fn a_node_without_capacity_has_a_rank() {
    let mut node = node(NodeState::Up, 0, 0, 0);
    node.capacity = NodeCapacity::default();
    assert!(rank(&node).is_finite());
}
