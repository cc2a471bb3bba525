//! Bytes that arrived and are being read, piece by piece.
//!
//! Owner: a reader that people use as [`tokio::io::AsyncRead`]. Invariant: a chunk counts as consumed when
//! its last byte was taken, not before.

use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;

use super::Chunk;

/// At most one chunk, and its part that is being read.
#[derive(Debug, Default)]
pub(crate) struct Unread(Option<(Chunk, Bytes)>);

impl Unread {
    /// Reads this chunk next. To be called when there is no other.
    pub(crate) fn put(&mut self, chunk: Chunk) {
        self.0 = Some((chunk, Bytes::new()));
    }

    /// Whether there is a byte; lets go of a chunk that has none left.
    pub(crate) fn has_bytes(&mut self) -> bool {
        while let Some((chunk, part)) = &mut self.0
            && part.is_empty()
        {
            match chunk.next_part() {
                Some(next) => *part = next,
                None => self.0 = None,
            }
        }
        self.0.is_some()
    }

    /// The bytes that lie together; none if [`Unread::has_bytes`] says so.
    pub(crate) fn take(&mut self) -> Bytes {
        let part = self.0.as_mut().map(|(_, part)| std::mem::take(part));
        part.unwrap_or_default()
    }

    /// Moves what fits of them.
    pub(crate) fn read(&mut self, into: &mut ReadBuf<'_>) {
        if let Some((_, part)) = &mut self.0 {
            let length = part.len().min(into.remaining());
            into.put_slice(part.get(..length).unwrap_or_default());
            part.advance(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use teu_protocol::message::Channel;

    use super::*;
    use crate::stream::window::tests::window;

    #[test]
    fn bytes_come_in_order_and_count_when_the_last_was_taken() {
        let parts = ["ab", "", "cde"].map(|part| Bytes::from_static(part.as_bytes()));
        let (window, _credits) = window(100);
        let window = Arc::new(window);
        assert!(window.receive(5));
        let mut unread = Unread::default();
        assert!(!unread.has_bytes());
        assert!(unread.take().is_empty());
        let chunk = Chunk::new(Channel::Main, 0, parts.into(), 5, Arc::clone(&window));
        unread.put(chunk);
        let mut all = Vec::new();
        while unread.has_bytes() {
            assert_eq!(window.held(), 5);
            let mut room = [0; 2];
            let mut into = ReadBuf::new(&mut room);
            unread.read(&mut into);
            all.push(into.filled().to_vec());
        }
        assert_eq!(all, [&b"ab"[..], b"cd", b"e"]);
        assert_eq!(window.held(), 0);
    }

    #[test]
    fn what_lies_together_is_taken_as_it_is() {
        let parts = ["ab", "cde"].map(|part| Bytes::from_static(part.as_bytes()));
        let (window, _credits) = window(100);
        let window = Arc::new(window);
        assert!(window.receive(5));
        let mut unread = Unread::default();
        unread.put(Chunk::new(Channel::Main, 0, parts.into(), 5, window));
        for expected in ["ab", "cde"] {
            assert!(unread.has_bytes());
            assert_eq!(unread.take(), expected);
        }
        assert!(!unread.has_bytes());
    }
}
