//! Hands out a node's container addresses and lets them rest after use.
//!
//! Owned by the node's network worker. Invariants: an address has at most one owner; an address
//! that was given back is not handed out again before its rest is over, so that stale connection
//! tracking, ARP entries and allow rules on *other* nodes cannot meet the wrong container.
//! Time comes in as a duration since any fixed moment. Next: `policy`.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Ipv4Subnet;

/// The free and taken addresses of one subnet.
#[derive(Clone, Debug)]
pub struct AddressPool {
    subnet: Ipv4Subnet,
    rest: Duration,
    taken: BTreeSet<Ipv4Addr>,
    /// Given back, the oldest first.
    resting: VecDeque<Resting>,
    /// How many addresses were ever looked at, so the fresh ones go first.
    cursor: u32,
    start: u32,
}

#[derive(Clone, Copy, Debug)]
struct Resting {
    address: Ipv4Addr,
    free_at: Duration,
}

/// Why there is no address to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every address belongs to somebody.
    #[error("all {capacity} addresses of {subnet} are in use")]
    Exhausted {
        /// The subnet that is full.
        subnet: Ipv4Subnet,
        /// How many addresses it has.
        capacity: u32,
    },
    /// Some are free, but too recently.
    #[error("the free addresses of {subnet} still rest for {retry_after:?}")]
    Resting {
        /// The subnet.
        subnet: Ipv4Subnet,
        /// When the first of them may be taken.
        retry_after: Duration,
    },
    /// An address to adopt cannot be a container's here.
    #[error("{address} is not a container address of {subnet}")]
    Foreign {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Subnet,
    },
    /// An address to adopt already has an owner.
    #[error("{0} is already taken")]
    Taken(Ipv4Addr),
}

impl AddressPool {
    /// A pool in which nothing is taken; `rest` is how long an address stays unused after use.
    #[must_use]
    pub fn new(subnet: Ipv4Subnet, rest: Duration) -> Self {
        Self {
            subnet,
            rest,
            taken: BTreeSet::new(),
            resting: VecDeque::new(),
            cursor: 0,
            start: 0,
        }
    }

    /// Marks an address as taken by a container that is running already. Fresh addresses start
    /// behind the highest adopted one: those before it may have been used a moment ago.
    pub fn adopt(&mut self, address: Ipv4Addr) -> Result<(), PoolError> {
        if !self.subnet.is_for_containers(address) {
            return Err(PoolError::Foreign {
                address,
                subnet: self.subnet,
            });
        }
        if !self.taken.insert(address) {
            return Err(PoolError::Taken(address));
        }
        self.resting.retain(|r| r.address != address);
        if self.cursor == 0 {
            // Addresses count from 2 (after base and gateway); the next index is the number - 1.
            self.start = self.start.max(self.subnet.host_number(address) - 1);
        }
        Ok(())
    }

    /// Takes an address: one never used before, else the one that has rested longest.
    pub fn take(&mut self, now: Duration) -> Result<Ipv4Addr, PoolError> {
        while self.cursor < self.subnet.capacity() {
            let address = self.subnet.container_address(self.start + self.cursor);
            self.cursor += 1;
            if !self.is_known(address) {
                self.taken.insert(address);
                return Ok(address);
            }
        }
        let (subnet, capacity) = (self.subnet, self.subnet.capacity());
        let oldest = self
            .resting
            .front()
            .ok_or(PoolError::Exhausted { subnet, capacity })?;
        if oldest.free_at > now {
            return Err(PoolError::Resting {
                subnet,
                retry_after: oldest.free_at - now,
            });
        }
        let address = oldest.address;
        self.resting.pop_front();
        self.taken.insert(address);
        Ok(address)
    }

    /// Gives an address back; it rests from `now`. Giving back what is not taken does nothing.
    pub fn give_back(&mut self, address: Ipv4Addr, now: Duration) {
        if self.taken.remove(&address) {
            self.resting.push_back(Resting {
                address,
                free_at: now + self.rest,
            });
        }
    }

    /// Lets an address rest that somebody else than this pool's owner has used: what an earlier
    /// run of the agent left behind. Addresses that are taken or foreign are not affected.
    pub fn rest(&mut self, address: Ipv4Addr, now: Duration) {
        if self.subnet.is_for_containers(address) && !self.is_known(address) {
            self.resting.push_back(Resting {
                address,
                free_at: now + self.rest,
            });
        }
    }

    /// How many addresses are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    fn is_known(&self, address: Ipv4Addr) -> bool {
        self.taken.contains(&address) || self.resting.iter().any(|r| r.address == address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: Duration = Duration::from_secs(2);

    fn pool(subnet: &str) -> AddressPool {
        AddressPool::new(subnet.parse().unwrap(), REST)
    }

    #[test]
    fn every_address_once_then_exhausted() {
        let mut pool = pool("10.77.1.0/28");
        let all: BTreeSet<_> = (0..13)
            .map(|_| pool.take(Duration::ZERO).unwrap())
            .collect();
        assert_eq!(all.len(), 13);
        assert!(matches!(
            pool.take(Duration::ZERO),
            Err(PoolError::Exhausted { .. })
        ));
    }

    #[test]
    fn a_returned_address_rests() {
        let mut pool = pool("10.77.1.0/30");
        let only = pool.take(Duration::ZERO).unwrap();
        pool.give_back(only, Duration::from_secs(1));
        let early = pool.take(Duration::from_millis(2500)).unwrap_err();
        let retry_after = Duration::from_millis(500);
        assert!(matches!(early, PoolError::Resting { retry_after: r, .. } if r == retry_after));
        assert_eq!(pool.take(Duration::from_secs(3)), Ok(only));
    }

    #[test]
    fn adoption_keeps_fresh_addresses_behind_the_adopted() {
        let mut pool = pool("10.77.1.0/24");
        pool.adopt("10.77.1.9".parse().unwrap()).unwrap();
        assert_eq!(pool.take(Duration::ZERO).unwrap().to_string(), "10.77.1.10");
        assert_eq!(
            pool.adopt("10.77.1.9".parse().unwrap())
                .unwrap_err()
                .to_string(),
            "10.77.1.9 is already taken"
        );
        assert!(pool.adopt("10.77.1.1".parse().unwrap()).is_err());
        assert!(pool.adopt("10.77.2.9".parse().unwrap()).is_err());
    }

    #[test]
    fn what_an_earlier_run_used_rests_too() {
        let mut pool = pool("10.77.1.0/29");
        let before: Ipv4Addr = "10.77.1.2".parse().unwrap();
        pool.rest(before, Duration::ZERO);
        pool.rest(before, Duration::ZERO);
        pool.rest("10.77.2.2".parse().unwrap(), Duration::ZERO);
        for _ in 0..4 {
            assert_ne!(pool.take(Duration::ZERO).unwrap(), before);
        }
        assert_eq!(pool.take(REST), Ok(before));
        assert!(matches!(pool.take(REST), Err(PoolError::Exhausted { .. })));
    }

    proptest! {
        #[test]
        fn never_two_owners_never_too_early(
            adopted in proptest::collection::btree_set(2u8..15, 0..5),
            steps in proptest::collection::vec((0u8..3, 0usize..20, 0u64..1500), 1..200),
        ) {
            let mut pool = pool("10.77.1.0/28");
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for host in adopted {
                let address = Ipv4Addr::new(10, 77, 1, host);
                pool.adopt(address).unwrap();
                held.push(address);
            }
            let mut returned: Vec<(Ipv4Addr, Duration)> = Vec::new();
            let mut now = Duration::ZERO;
            for (kind, which, millis) in steps {
                now += Duration::from_millis(millis);
                if kind > 0 {
                    match pool.take(now) {
                        Ok(address) => {
                            prop_assert!(!held.contains(&address));
                            prop_assert!(!returned.iter().any(|(a, at)| *a == address && *at + REST > now));
                            held.push(address);
                        }
                        Err(PoolError::Exhausted { .. }) => prop_assert_eq!(held.len(), 13),
                        Err(_) => prop_assert!(held.len() < 13),
                    }
                } else if !held.is_empty() {
                    let address = held.swap_remove(which % held.len());
                    pool.give_back(address, now);
                    returned.retain(|(a, _)| *a != address);
                    returned.push((address, now));
                }
                prop_assert_eq!(pool.taken(), held.len());
            }
        }
    }
}
