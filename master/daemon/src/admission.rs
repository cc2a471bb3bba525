//! Who may hold a connection: caps in total, per address, and before authentication.
//!
//! Owner: the listener; each connection holds a [`Place`] and gives it back when dropped. Invariant:
//! the counts are those of the places that exist. When the unauthenticated ones are too many, the
//! oldest goes: an honest peer is through in a fraction of the time that a flood needs to evict it.

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
    /// At once from one address (IPv6: from one /64, which is one customer).
    pub per_address: usize,
    /// That have not authenticated yet.
    pub unauthenticated: usize,
    /// That have not authenticated yet, from one address.
    pub unauthenticated_per_address: usize,
}

impl Default for AdmissionLimits {
    /// 20,000 sessions (design, section 5) with their reconnects, and nodes; a large office behind
    /// one address; some hundred handshakes at once, which is a second of work.
    fn default() -> Self {
        Self {
            connections: 25_000,
            per_address: 4_096,
            unauthenticated: 1_024,
            unauthenticated_per_address: 256,
        }
    }
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("the location holds as many connections as it may")]
    Total,
    #[error("this address holds as many connections as it may")]
    Address,
}

#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    addresses: HashMap<IpAddr, Counts>,
    /// Oldest first: connections are numbered in the order in which they came.
    unauthenticated: BTreeMap<u64, CancellationToken>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    unauthenticated: usize,
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
            return Err(Full::Total);
        }
        let counts = state.addresses.entry(address).or_default();
        if counts.total >= self.limits.per_address
            || counts.unauthenticated >= self.limits.unauthenticated_per_address
        {
            return Err(Full::Address);
        }
        counts.total += 1;
        counts.unauthenticated += 1;
        state.total += 1;
        state.unauthenticated.insert(id.0, evicted.clone());
        if state.unauthenticated.len() > self.limits.unauthenticated
            && let Some((_, oldest)) = state.unauthenticated.pop_first()
        {
            oldest.cancel();
        }
        drop(state);
        Ok(Place {
            admission: Arc::clone(self),
            id,
            address,
            authenticated: false,
            evicted,
        })
    }

    /// Handshakes under way.
    pub(crate) fn unauthenticated(&self) -> usize {
        self.lock().unauthenticated.len()
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
    address: IpAddr,
    authenticated: bool,
    /// Cancelled when the connection has to make room for another.
    pub(crate) evicted: CancellationToken,
}

impl Place {
    /// The peer has authenticated and the core has taken it.
    pub(crate) fn authenticated(&mut self) {
        if std::mem::replace(&mut self.authenticated, true) {
            return;
        }
        let mut state = self.admission.lock();
        state.unauthenticated.remove(&self.id.0);
        if let Some(counts) = state.addresses.get_mut(&self.address) {
            counts.unauthenticated -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.authenticated();
        let mut state = self.admission.lock();
        state.total -= 1;
        if let Some(counts) = state.addresses.get_mut(&self.address) {
            counts.total -= 1;
            if counts.total == 0 {
                state.addresses.remove(&self.address);
            }
        }
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
        connections: 6,
        per_address: 4,
        unauthenticated: 3,
        unauthenticated_per_address: 2,
    };

    fn enter(admission: &Arc<Admission>, id: u64, last: u8) -> Result<Place, Full> {
        let address = IpAddr::from([192, 0, 2, last]);
        admission.enter(ConnectionId(id), address, CancellationToken::new())
    }

    #[test]
    fn each_cap_holds_and_places_come_back() {
        let admission = Admission::new(LIMITS);
        let mut a1 = enter(&admission, 1, 1).unwrap();
        let mut a2 = enter(&admission, 2, 1).unwrap();
        assert_eq!(
            enter(&admission, 3, 1).unwrap_err(),
            Full::Address,
            "two handshakes a address"
        );
        a1.authenticated();
        a2.authenticated();
        let mut more: Vec<_> = (4..6).map(|id| enter(&admission, id, 1).unwrap()).collect();
        more.iter_mut().for_each(Place::authenticated);
        assert_eq!(
            enter(&admission, 6, 1).unwrap_err(),
            Full::Address,
            "four in all"
        );
        let _b1 = enter(&admission, 7, 2).unwrap();
        let _b2 = enter(&admission, 8, 2).unwrap();
        assert_eq!(enter(&admission, 9, 3).unwrap_err(), Full::Total);
        drop(more);
        assert!(enter(&admission, 10, 1).is_ok());
        assert_eq!(admission.unauthenticated(), 2);
    }

    #[test]
    fn the_oldest_handshake_makes_room() {
        let admission = Admission::new(LIMITS);
        let first = enter(&admission, 1, 1).unwrap();
        let others: Vec<_> = (2..4)
            .map(|id| enter(&admission, id, id as u8).unwrap())
            .collect();
        assert!(!first.evicted.is_cancelled());
        let _next = enter(&admission, 5, 9).unwrap();
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
