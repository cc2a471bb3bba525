//! Properties of the firewall: default deny, no inheritance by address, changes equal the state.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const SUBNET: &str = "10.77.1.0/28";
const LOCATION: &str = "10.77.0.0/16";

#[derive(Clone, Debug)]
enum Step {
    Attach(u8),
    Detach(u8),
    Allow(Pair),
    Disallow(Pair),
    Replace(Vec<Pair>),
}

fn local(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, host)
}

/// Mostly local addresses, now and then another node's, now and then nonsense.
fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        6 => (0u8..16).prop_map(local),
        2 => (0u8..6).prop_map(|host| Ipv4Addr::new(10, 77, 2, host)),
        1 => Just(Ipv4Addr::new(192, 168, 0, 1)),
    ]
}

fn pair() -> impl Strategy<Value = Pair> {
    (address(), address()).prop_map(|(from, to)| Pair { from, to })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..16).prop_map(Step::Attach),
        2 => (0u8..16).prop_map(Step::Detach),
        5 => pair().prop_map(Step::Allow),
        2 => pair().prop_map(Step::Disallow),
        1 => proptest::collection::vec(pair(), 0..6).prop_map(Step::Replace),
    ]
}

fn firewall() -> Firewall {
    Firewall::new(SUBNET.parse().unwrap(), LOCATION.parse().unwrap()).unwrap()
}

fn apply(firewall: &mut Firewall, step: &Step) -> Vec<Change> {
    match step {
        Step::Attach(host) => firewall.attach(local(*host)).unwrap_or_default(),
        Step::Detach(host) => firewall.detach(local(*host)),
        Step::Allow(pair) => firewall.allow(*pair).unwrap_or_default(),
        Step::Disallow(pair) => firewall.disallow(*pair),
        Step::Replace(pairs) => firewall.replace_allowed(pairs.iter().copied()),
    }
}

proptest! {
    /// The kernel, which sees only changes, ends where the state is; no change is a no-op (the
    /// kernel refuses to remove what is not there).
    #[test]
    fn changes_replay_to_the_state(steps in proptest::collection::vec(step(), 0..120)) {
        let mut firewall = firewall();
        let mut kernel = BTreeSet::new();
        for step in &steps {
            for change in apply(&mut firewall, step) {
                match change {
                    Change::Add(element) => prop_assert!(kernel.insert(element)),
                    Change::Remove(element) => prop_assert!(kernel.remove(&element)),
                }
            }
            prop_assert_eq!(&kernel, &firewall.elements());
        }
    }

    /// A pair stands only between living containers, and only if allowed since both appeared.
    #[test]
    fn nothing_is_inherited(steps in proptest::collection::vec(step(), 0..120)) {
        let mut firewall = firewall();
        let mut since: BTreeSet<Pair> = BTreeSet::new();
        for step in &steps {
            let accepted = match step {
                Step::Allow(pair) => firewall.clone().allow(*pair).is_ok(),
                _ => false,
            };
            apply(&mut firewall, step);
            match step {
                Step::Detach(host) => since.retain(|p| p.from != local(*host) && p.to != local(*host)),
                Step::Allow(pair) if accepted => { since.insert(*pair); }
                Step::Disallow(pair) => { since.remove(pair); }
                Step::Replace(pairs) => since = pairs.iter().copied().filter(|p| firewall.is_allowed(*p)).collect(),
                _ => {}
            }
            prop_assert_eq!(firewall.allowed().collect::<BTreeSet<_>>(), since.clone());
            for pair in &since {
                for end in [pair.from, pair.to] {
                    let here = firewall.subnet().contains(end);
                    prop_assert!(!here || firewall.is_attached(end));
                }
            }
        }
    }

    /// A container is reached only by a container that was allowed to; never with a false source.
    #[test]
    fn default_deny(
        steps in proptest::collection::vec(step(), 0..60),
        from in address(), claimed in address(), to in address(),
        port in proptest::option::of(Just(53u16)),
    ) {
        let mut firewall = firewall();
        for step in &steps {
            apply(&mut firewall, step);
        }
        let around = Surroundings { resolvers: vec![to], host: vec![local(1)] };
        let may = |origin, source| {
            firewall.may_open(&Opening { origin, source, destination: to, port }, &around)
        };
        let for_container = firewall.subnet().is_for_containers(to);
        prop_assert!(!(for_container && may(Origin::Host, claimed)));
        prop_assert!(!(for_container && may(Origin::Outside, claimed)));
        prop_assert!(claimed == from || !may(Origin::Container(from), claimed));
        if firewall.location().contains(to) {
            let allowed = firewall.is_allowed(Pair { from, to });
            prop_assert_eq!(may(Origin::Container(from), from), allowed);
        }
    }
}

#[test]
fn a_container_reaches_the_internet_and_its_resolver_only() {
    let mut firewall = firewall();
    firewall.attach(local(2)).unwrap();
    let around = Surroundings {
        resolvers: vec!["192.168.0.1".parse().unwrap()],
        host: vec!["192.168.0.7".parse().unwrap(), "5.6.7.8".parse().unwrap()],
    };
    let table: [(&str, Option<u16>, bool); 9] = [
        ("1.2.3.4", Some(443), true),
        ("1.2.3.4", None, true),
        ("5.6.7.8", Some(443), false),
        ("192.168.0.1", Some(53), true),
        ("192.168.0.1", Some(80), false),
        ("192.168.0.7", Some(53), false),
        ("169.254.169.254", Some(80), false),
        ("10.77.1.1", Some(53), false),
        ("224.0.0.251", Some(5353), false),
    ];
    for (destination, port, expected) in table {
        let opening = Opening {
            origin: Origin::Container(local(2)),
            source: local(2),
            destination: destination.parse().unwrap(),
            port,
        };
        assert_eq!(
            firewall.may_open(&opening, &around),
            expected,
            "{destination} {port:?}"
        );
    }
}

#[test]
fn refusals_say_why() {
    let mut firewall = firewall();
    firewall.attach(local(2)).unwrap();
    assert_eq!(
        firewall.attach(local(2)),
        Err(FirewallRefusal::AttachedTwice(local(2)))
    );
    assert_eq!(
        firewall.attach(local(1)),
        Err(FirewallRefusal::NotOurs(local(1)))
    );
    let pair = |from, to| Pair { from, to };
    let remote = Ipv4Addr::new(10, 77, 2, 9);
    assert_eq!(
        firewall.allow(pair(local(2), local(3))),
        Err(FirewallRefusal::NotAttached(local(3)))
    );
    assert_eq!(
        firewall.allow(pair(local(2), local(2))),
        Err(FirewallRefusal::Itself(local(2)))
    );
    let outside = Ipv4Addr::new(8, 8, 8, 8);
    assert_eq!(
        firewall.allow(pair(outside, local(2))),
        Err(FirewallRefusal::OutsideLocation(outside))
    );
    let elsewhere = pair(remote, Ipv4Addr::new(10, 77, 3, 9));
    assert_eq!(
        firewall.allow(elsewhere),
        Err(FirewallRefusal::NoEndHere(elsewhere))
    );
    assert_eq!(firewall.allow(pair(remote, local(2))).unwrap().len(), 1);
    assert!(Firewall::new("10.78.1.0/24".parse().unwrap(), LOCATION.parse().unwrap()).is_err());
}
