//! The table of streams: which number on a client's connection is which on a node's.
//!
//! Owner: [`crate::Core`]. Invariants: a number is used once at a time on a connection; the sums
//! kept for a connection are those of its streams; a stream in the table that is `Open` and routed
//! has a route in the daemon, and none else has.

use std::collections::BTreeMap;

use teu_protocol::{
    ids::{ContainerId, Digest, PublicKey, StreamId, VolumeId},
    message::Refusal,
};

use crate::{ConnectionId, limits, refusals};

/// A stream by its client's side.
pub(crate) type ClientStream = (ConnectionId, StreamId);

/// All streams that clients have.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_client: BTreeMap<ClientStream, Stream>,
    by_node: BTreeMap<(ConnectionId, StreamId), ClientStream>,
    sums: BTreeMap<ConnectionId, (u32, u64)>,
    last: u64,
}

/// One stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// Credit that the client granted when opening.
    pub(crate) window: u64,
    pub(crate) used: Use,
}

/// What it is used for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// To a node.
    Routed {
        end: End,
        at: (ConnectionId, StreamId),
        open: bool,
    },
    /// A layer's blob, to the cache.
    Upload {
        account: PublicKey,
        digest: Digest,
        size: u64,
    },
}

/// What a routed stream leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Container(ContainerId),
    Volume(VolumeId),
}

impl Streams {
    /// A number towards nodes that was never used before in this run of the master (and each run
    /// has its own connections).
    pub(crate) fn next_number(&mut self) -> StreamId {
        self.last += 1;
        StreamId(self.last)
    }

    pub(crate) fn add(&mut self, key: ClientStream, stream: Stream) -> Result<(), Refusal> {
        let limit = limits::SESSION;
        if self.by_client.contains_key(&key) {
            return Err(refusals::bad(format!(
                "stream {} is in use on this connection",
                key.1
            )));
        }
        let (count, windows) = self.sums.get(&key.0).copied().unwrap_or_default();
        if count >= limit.streams {
            return Err(refusals::limit(format!(
                "this connection has {count} open streams, which is the most. Close some"
            )));
        }
        let windows = windows.saturating_add(stream.window);
        if windows > limit.window_bytes {
            return Err(refusals::limit(format!(
                "the windows of this connection's streams would pass {} bytes. Grant smaller ones",
                limit.window_bytes
            )));
        }
        self.sums.insert(key.0, (count + 1, windows));
        if let Use::Routed { at, .. } = stream.used {
            self.by_node.insert(at, key);
        }
        self.by_client.insert(key, stream);
        Ok(())
    }

    pub(crate) fn get(&self, key: &ClientStream) -> Option<&Stream> {
        self.by_client.get(key)
    }

    /// The node answered: the route is made.
    pub(crate) fn opened(&mut self, key: &ClientStream) {
        if let Some(Stream {
            used: Use::Routed { open, .. },
            ..
        }) = self.by_client.get_mut(key)
        {
            *open = true;
        }
    }

    /// Finds a stream by either of its sides.
    pub(crate) fn by_either(
        &self,
        connection: ConnectionId,
        number: StreamId,
    ) -> Option<ClientStream> {
        let key = (connection, number);
        if self.by_client.contains_key(&key) {
            Some(key)
        } else {
            self.by_node.get(&key).copied()
        }
    }

    pub(crate) fn remove(&mut self, key: &ClientStream) -> Option<Stream> {
        let stream = self.by_client.remove(key)?;
        if let Use::Routed { at, .. } = stream.used {
            self.by_node.remove(&at);
        }
        if let Some((count, windows)) = self.sums.get_mut(&key.0) {
            *count -= 1;
            *windows -= stream.window;
            if *count == 0 {
                self.sums.remove(&key.0);
            }
        }
        Some(stream)
    }

    pub(crate) fn of_client(&self, connection: ConnectionId) -> Vec<ClientStream> {
        let all = (connection, StreamId(0))..=(connection, StreamId(u64::MAX));
        self.by_client.range(all).map(|(key, _)| *key).collect()
    }

    pub(crate) fn of_node(&self, connection: ConnectionId) -> Vec<ClientStream> {
        let all = (connection, StreamId(0))..=(connection, StreamId(u64::MAX));
        self.by_node.range(all).map(|(_, key)| *key).collect()
    }

    pub(crate) fn of_container(&self, container: &ContainerId) -> Vec<ClientStream> {
        let its = End::Container(*container);
        let is_its = |stream: &Stream| matches!(stream.used, Use::Routed { end, .. } if end == its);
        self.by_client
            .iter()
            .filter(|(_, s)| is_its(s))
            .map(|(key, _)| *key)
            .collect()
    }

    pub(crate) fn uploads(&self) -> impl Iterator<Item = (PublicKey, Digest)> {
        self.by_client
            .values()
            .filter_map(|stream| match stream.used {
                Use::Upload {
                    account, digest, ..
                } => Some((account, digest)),
                Use::Routed { .. } => None,
            })
    }

    pub(crate) fn len(&self) -> usize {
        self.by_client.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(window: u64, number: u64) -> Stream {
        let used = Use::Routed {
            end: End::Container(ContainerId::from_bytes([1; 16])),
            at: (ConnectionId(9), StreamId(number)),
            open: false,
        };
        Stream { window, used }
    }

    #[test]
    fn a_number_is_used_once_and_again_after_it_was_freed() {
        let mut streams = Streams::default();
        let key = (ConnectionId(1), StreamId(1));
        streams.add(key, stream(10, 1)).unwrap();
        assert!(streams.add(key, stream(10, 2)).is_err());
        assert_eq!(streams.by_either(ConnectionId(9), StreamId(1)), Some(key));
        streams.remove(&key).unwrap();
        assert_eq!(streams.by_either(ConnectionId(9), StreamId(1)), None);
        streams.add(key, stream(10, 3)).unwrap();
    }

    #[test]
    fn a_connection_has_a_bound_on_streams_and_on_windows() {
        let mut streams = Streams::default();
        let whole = limits::SESSION.window_bytes;
        let key = |n| (ConnectionId(1), StreamId(n));
        streams.add(key(1), stream(whole - 1, 1)).unwrap();
        assert!(streams.add(key(2), stream(2, 2)).is_err());
        assert!(streams.add(key(2), stream(u64::MAX, 2)).is_err());
        streams
            .add((ConnectionId(2), StreamId(2)), stream(2, 2))
            .unwrap();
        streams.remove(&key(1)).unwrap();
        for n in 0..u64::from(limits::SESSION.streams) {
            streams.add(key(n), stream(1, n + 10)).unwrap();
        }
        assert!(streams.add(key(5_000), stream(1, 5_000)).is_err());
    }
}
