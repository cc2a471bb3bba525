//! Placement as tables: who wins, and what is said when nobody does.

use super::*;

fn node(id: u8, name: &str) -> Candidate<'_> {
    Candidate {
        id: NodeId::from_bytes([id; 16]),
        name,
        platform: "linux/amd64",
        capacity: NodeCapacity {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            disk_bytes: 100 << 30,
            pool_bytes: 0,
        },
        usage: NodeUsage {
            memory_free_bytes: 8 << 30,
            disk_free_bytes: 50 << 30,
            ..NodeUsage::default()
        },
        promises: Promises::default(),
        layers_present: 0,
        addresses: 200,
        share: None,
    }
}

const ANY: Wanted<'_> = Wanted {
    platform: "linux/amd64",
    limits: ResourceLimits {
        memory_bytes: None,
        cpu_millis: None,
        pids: None,
        storage_bytes: None,
    },
};

fn chosen(candidates: &[Candidate<'_>], wanted: Wanted<'_>) -> u8 {
    choose(candidates, wanted).unwrap().as_bytes()[0]
}

#[test]
fn the_freer_node_wins() {
    let (a, b) = (node(1, "a"), node(2, "b"));
    assert_eq!(
        chosen(&[a.clone(), b.clone()], ANY),
        1,
        "of equals the first"
    );

    let mut busy = a.clone();
    busy.usage.cpu_used_millis = 3_000;
    assert_eq!(chosen(&[busy, b.clone()], ANY), 2, "CPU in use");

    let mut full = a.clone();
    full.usage.memory_free_bytes = 1 << 30;
    assert_eq!(chosen(&[full, b.clone()], ANY), 2, "memory in use");

    let mut promised = a.clone();
    promised.promises.add(&ResourceLimits {
        memory_bytes: Some(4 << 30),
        ..ANY.limits
    });
    assert_eq!(chosen(&[promised, b.clone()], ANY), 2, "memory promised");

    let mut in_flight = a.clone();
    in_flight.promises.add(&ANY.limits);
    assert_eq!(
        chosen(&[in_flight, b.clone()], ANY),
        2,
        "even without limits"
    );

    let mut warm = a;
    warm.layers_present = 1_000;
    warm.usage.cpu_used_millis = 700;
    assert_eq!(
        chosen(&[warm.clone(), b.clone()], ANY),
        1,
        "layers that are there outweigh some load"
    );
    warm.usage.cpu_used_millis = 1_000;
    assert_eq!(chosen(&[warm, b], ANY), 2, "but not much");
}

#[test]
fn a_busy_node_that_has_the_layers_does_not_take_everything() {
    // Containers that idle: only what they are promised tells them from none.
    for (busy_millis, on_warm) in [(0, 8), (700, 8), (1_000, 2), (2_000, 0), (4_000, 0)] {
        let (mut warm, mut cold) = (node(1, "warm"), node(2, "cold"));
        warm.layers_present = 1_000;
        warm.usage.cpu_used_millis = busy_millis;
        let mut taken = [0, 0];
        for _ in 0..12 {
            let chosen = chosen(&[warm.clone(), cold.clone()], ANY);
            taken[usize::from(chosen) - 1] += 1;
            let winner = if chosen == 1 { &mut warm } else { &mut cold };
            winner.promises.add(&ANY.limits);
            winner.layers_present = 1_000;
        }
        assert_eq!(taken, [on_warm, 12 - on_warm], "{busy_millis} in use");
    }
}

#[test]
fn of_nodes_that_are_full_the_one_with_fewer_containers_wins() {
    let (mut a, mut b) = (node(1, "a"), node(2, "b"));
    for full in [&mut a, &mut b] {
        full.usage.cpu_used_millis = 4_000;
    }
    a.promises.add(&ANY.limits);
    assert_eq!(chosen(&[a, b], ANY), 2);
}

#[test]
fn who_cannot_take_it_says_why() {
    let memory = Wanted {
        limits: ResourceLimits {
            memory_bytes: Some(9 << 30),
            ..ANY.limits
        },
        ..ANY
    };
    let cpu = Wanted {
        limits: ResourceLimits {
            cpu_millis: Some(5_000),
            ..ANY.limits
        },
        ..ANY
    };
    let arm = Wanted {
        platform: "linux/arm64",
        ..ANY
    };
    let mut no_disk = node(1, "a");
    no_disk.usage.disk_free_bytes = 1 << 20;
    let mut no_address = node(1, "a");
    no_address.addresses = 0;
    let table = [
        (vec![], ANY, RefusalCode::NoCapacity, "no node is up"),
        (
            vec![node(1, "a")],
            memory,
            RefusalCode::NoCapacity,
            "9216 MiB were asked",
        ),
        (
            vec![node(1, "a")],
            cpu,
            RefusalCode::NoCapacity,
            "5000 were asked",
        ),
        (
            vec![node(1, "a")],
            arm,
            RefusalCode::WrongPlatform,
            "linux/arm64",
        ),
        (vec![no_disk], ANY, RefusalCode::NoCapacity, "disk"),
        (vec![no_address], ANY, RefusalCode::NoCapacity, "address"),
    ];
    for (candidates, wanted, code, text) in table {
        let refusal = choose(&candidates, wanted).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(text), "{refusal}");
    }
}

#[test]
fn an_image_runs_where_the_platform_matches() {
    let mut arm = node(2, "arm");
    arm.platform = "linux/arm64";
    let wanted = Wanted {
        platform: "linux/arm64/v8",
        ..ANY
    };
    assert_eq!(chosen(&[node(1, "amd"), arm], wanted), 2);
}

#[test]
fn what_is_added_is_subtracted() {
    let mut promises = Promises::default();
    let limited = ResourceLimits {
        storage_bytes: None,
        memory_bytes: Some(5),
        cpu_millis: None,
        pids: Some(1),
    };
    promises.add(&limited);
    promises.add(&ANY.limits);
    promises.subtract(&limited);
    promises.subtract(&ANY.limits);
    assert_eq!(promises, Promises::default());
}

#[test]
fn one_account_leaves_a_quarter_of_a_node_to_others() {
    let share = |containers: u64, memory: u64| {
        let mut promises = Promises::default();
        for _ in 0..containers {
            promises.add(&ANY.limits);
        }
        promises.add(&ResourceLimits {
            memory_bytes: Some(memory),
            ..ANY.limits
        });
        let mut one = node(1, "a");
        one.share = Some(Share {
            promises,
            containers_max: 253,
        });
        one
    };
    let wants = |memory_bytes| Wanted {
        limits: ResourceLimits {
            memory_bytes,
            ..ANY.limits
        },
        ..ANY
    };
    // 190 of 253, and 6 of 8 GiB.
    assert!(choose(&[share(188, 0)], ANY).is_ok());
    let refusal = choose(&[share(189, 0)], ANY).unwrap_err();
    assert!(
        refusal.message.contains("190 of 190 containers"),
        "{refusal}"
    );
    assert!(choose(&[share(0, 5 << 30)], wants(Some(1 << 30))).is_ok());
    assert!(choose(&[share(0, 6 << 30)], ANY).is_ok(), "without a limit");
    let refusal = choose(&[share(0, 5 << 30)], wants(Some(2 << 30))).unwrap_err();
    assert!(refusal.message.contains("5120 of 6144 MiB"), "{refusal}");
    let alone = node(1, "a");
    assert!(choose(&[alone], wants(Some(8 << 30))).is_ok());
}
