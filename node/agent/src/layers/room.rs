//! Room for layers: how much there is, and which idle ones make some.
//!
//! Pure but for the look at the file system. Invariant: no more goes than is needed, the least recently used
//! first.

use std::path::Path;

use teu_protocol::ids::Digest;

/// Those to remove so that `bytes` come free: the least recently used first.
pub(super) fn oldest_first(mut idle: Vec<(u64, Digest, u64)>, bytes: u64) -> Vec<Digest> {
    idle.sort_unstable();
    let mut freed = 0_u64;
    idle.into_iter()
        .take_while(|(_, _, size)| {
            let more = freed < bytes;
            freed = freed.saturating_add(*size);
            more
        })
        .map(|(_, digest, _)| digest)
        .collect()
}

/// Free bytes of the file system that holds `dir`.
pub(super) fn room_at(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_makes_room_and_no_more_goes_than_is_needed() {
        let digest = |n: u8| Digest::from_bytes([n; 32]);
        let idle = vec![(7, digest(1), 10), (0, digest(2), 10), (3, digest(3), 10)];
        for (bytes, gone) in [
            (0, vec![]),
            (1, vec![digest(2)]),
            (11, vec![digest(2), digest(3)]),
            (u64::MAX, vec![digest(2), digest(3), digest(1)]),
        ] {
            assert_eq!(oldest_first(idle.clone(), bytes), gone, "{bytes}");
        }
    }
}
