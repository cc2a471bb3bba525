//! Who may hold a connection: caps in total, and before authentication also per address.
//!
//! ```text
//!   accepted ─▶ Silent ─(HELLO with the location's key)─▶ KnowsLocation ─(INITIATE, the core)─▶ authenticated
//!                 ▲                                            │
//!                 └───────────────── refused ──────────────────┘
//! ```
//! Owner: the listener; each connection holds a [`Place`] and gives it back when dropped. Invariants:
//! the counts are those of the places that exist; an authenticated connection counts for its account
//! (in the core), not for its address; nobody is turned away because of unauthenticated connections:
//! the oldest of the lowest stage goes instead. So whoever lacks the location's key evicts others who lack
//! it, and an honest peer, a node's agent above all, is past that two round trips after it has connected.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use teu_master_core::ConnectionId;
use tokio_util::sync::CancellationToken;

/// How many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// At once.
    pub connections: usize,
    /// That have not authenticated yet.
    pub unauthenticated: usize,
    /// That have not authenticated yet, from one address (IPv6: from one /64, which is one customer).
    pub unauthenticated_per_address: usize,
}

impl Default for AdmissionLimits {
    /// 20,000 sessions (design, section 5) with their reconnects, and nodes; some hundred handshakes at
    /// once, which is a second of work; a quarter of those from one address.
    fn default() -> Self {
        Self {
            connections: 25_000,
            unauthenticated: 1_024,
            unauthenticated_per_address: 256,
        }
    }
}

/// The location holds as many authenticated connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the location holds as many connections as it may")]
pub(crate) struct Full;

/// How far a connection that has not authenticated has come. The lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It has shown nothing, or was refused.
    Silent,
    /// Its HELLO proves that it knows the location's key.
    KnowsLocation,
}

#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    state: Mutex<State>,
}

/// Connections are numbered in the order in which they came: the first is the lowest and oldest.
type Waiting = BTreeMap<(Stage, u64), CancellationToken>;

#[derive(Debug, Default)]
struct State {
    /// Places that exist.
    total: usize,
    /// Those that have not authenticated, by address.
    unauthenticated: HashMap<IpAddr, Waiting>,
    /// All of them, with their addresses.
    order: BTreeMap<(Stage, u64), IpAddr>,
}

impl State {
    fn insert(&mut self, at: (Stage, u64), address: IpAddr, evicted: CancellationToken) {
        self.order.insert(at, address);
        let waiting = self.unauthenticated.entry(address).or_default();
        waiting.insert(at, evicted);
    }

    fn remove(&mut self, at: (Stage, u64)) -> Option<CancellationToken> {
        let address = self.order.remove(&at)?;
        let waiting = self.unauthenticated.get_mut(&address)?;
        let evicted = waiting.remove(&at);
        if waiting.is_empty() {
            self.unauthenticated.remove(&address);
        }
        evicted
    }

    /// Lets one go.
    fn evict(&mut self, at: (Stage, u64)) {
        if let Some(evicted) = self.remove(at) {
            evicted.cancel();
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// Takes a connection in, as unauthenticated.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: ConnectionId,
        address: IpAddr,
        evicted: CancellationToken,
    ) -> Result<Place, Full> {
        let address = bucket(address);
        let mut state = self.lock();
        if state.total >= self.limits.connections {
            // Room is made by those who may never authenticate.
            let lowest = state.order.first_key_value().map(|(at, _)| *at);
            state.evict(lowest.ok_or(Full)?);
        }
        state.total += 1;
        let stage = Stage::Silent;
        state.insert((stage, id.0), address, evicted.clone());
        let of_address = state.unauthenticated.get(&address);
        let crowded = of_address
            .filter(|waiting| waiting.len() > self.limits.unauthenticated_per_address)
            .and_then(|waiting| waiting.first_key_value().map(|(at, _)| *at));
        if let Some(lowest) = crowded {
            state.evict(lowest);
        }
        if state.order.len() > self.limits.unauthenticated
            && let Some((lowest, _)) = state.order.first_key_value()
        {
            let lowest = *lowest;
            state.evict(lowest);
        }
        drop(state);
        Ok(Place {
            admission: Arc::clone(self),
            id,
            stage,
            evicted,
        })
    }

    /// Handshakes under way.
    pub(crate) fn unauthenticated(&self) -> usize {
        self.lock().order.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    id: ConnectionId,
    stage: Stage,
    /// Cancelled when the connection has to make room for another.
    pub(crate) evicted: CancellationToken,
}

impl Place {
    /// The connection has come so far, or has fallen back.
    pub(crate) fn reached(&mut self, stage: Stage) {
        let before = std::mem::replace(&mut self.stage, stage);
        let mut state = self.admission.lock();
        let Some(address) = state.order.get(&(before, self.id.0)).copied() else {
            // Evicted, or authenticated.
            return;
        };
        if let Some(evicted) = state.remove((before, self.id.0)) {
            state.insert((stage, self.id.0), address, evicted);
        }
    }

    /// The peer has authenticated and the core has taken it.
    pub(crate) fn authenticated(&mut self) {
        self.admission.lock().remove((self.stage, self.id.0));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.authenticated();
        self.admission.lock().total -= 1;
    }
}

/// Addresses that count as one.
fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AdmissionLimits = AdmissionLimits {
        connections: 8,
        unauthenticated: 4,
        unauthenticated_per_address: 2,
    };

    fn enter(admission: &Arc<Admission>, id: u64, last: u8) -> Result<Place, Full> {
        let address = IpAddr::from([192, 0, 2, last]);
        admission.enter(ConnectionId(id), address, CancellationToken::new())
    }

    fn evicted(places: &[&Place]) -> Vec<bool> {
        places
            .iter()
            .map(|place| place.evicted.is_cancelled())
            .collect()
    }

    #[test]
    fn an_address_s_oldest_handshake_makes_room_for_its_next() {
        let admission = Admission::new(LIMITS);
        let other = enter(&admission, 1, 9).unwrap();
        let first = enter(&admission, 2, 1).unwrap();
        let second = enter(&admission, 3, 1).unwrap();
        let third = enter(&admission, 4, 1).unwrap();
        assert_eq!(
            evicted(&[&other, &first, &second, &third]),
            [false, true, false, false]
        );
        assert_eq!(admission.unauthenticated(), 3);
    }

    #[test]
    fn strangers_evict_strangers_and_nobody_who_knows_the_location() {
        let admission = Admission::new(LIMITS);
        let mut agent = enter(&admission, 1, 1).unwrap();
        agent.reached(Stage::KnowsLocation);
        let strangers: Vec<_> = (2..40)
            .map(|id| enter(&admission, id, 1).unwrap())
            .collect();
        assert!(!agent.evicted.is_cancelled());
        let left = strangers
            .iter()
            .filter(|place| !place.evicted.is_cancelled());
        assert_eq!(left.count(), 1);
        agent.reached(Stage::Silent);
        let _next = enter(&admission, 40, 1).unwrap();
        assert!(agent.evicted.is_cancelled(), "refused, and the oldest");
    }

    #[test]
    fn authenticated_connections_do_not_count_against_their_address() {
        let admission = Admission::new(LIMITS);
        let mut authenticated: Vec<_> = (1..=7)
            .map(|id| {
                let mut place = enter(&admission, id, 1).unwrap();
                place.authenticated();
                place
            })
            .collect();
        assert_eq!(admission.unauthenticated(), 0);
        let half_open = enter(&admission, 8, 1).unwrap();
        let newcomer = enter(&admission, 9, 2).unwrap();
        assert!(half_open.evicted.is_cancelled(), "all places are taken");
        drop(half_open);
        let mut last = newcomer;
        last.authenticated();
        assert_eq!(enter(&admission, 10, 3).unwrap_err(), Full);
        authenticated.pop();
        assert!(enter(&admission, 11, 3).is_ok());
        drop((authenticated, last));
        assert_eq!(admission.lock().total, 0);
    }

    #[test]
    fn the_oldest_handshake_of_all_makes_room() {
        let admission = Admission::new(LIMITS);
        let first = enter(&admission, 1, 1).unwrap();
        let others: Vec<_> = (2..5)
            .map(|id| enter(&admission, id, id as u8).unwrap())
            .collect();
        assert!(!first.evicted.is_cancelled());
        let _next = enter(&admission, 6, 9).unwrap();
        assert!(first.evicted.is_cancelled());
        assert!(others.iter().all(|place| !place.evicted.is_cancelled()));
    }

    #[test]
    fn a_customer_of_ipv6_is_one_address() {
        let one: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let two: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        assert_eq!(bucket(one), bucket(two));
        assert_eq!(
            bucket("::ffff:192.0.2.1".parse().unwrap()),
            IpAddr::from([192, 0, 2, 1])
        );
    }
}
