//! Read buffers that are used again: memory that the system hands out anew costs more than the copy
//! that reading in place saves.
//!
//! Owner: a [`super::reader`]. Invariants: a buffer is used again only when nobody holds a piece of it;
//! the buffers of all connections are counted, and above [`READ_BUFFERS_BYTES`] only small ones are made.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::BytesMut;

use crate::bounds::{READ_BUFFERS_BYTES, READ_MIN_BYTES};

/// Buffers of one connection whose pieces may still be waiting somewhere. More than these are in use
/// only if somebody does not read, and then speed is no concern.
const SPARES: usize = 8;

/// Bytes of all connections' read buffers.
pub(crate) type ReadBuffers = Arc<AtomicUsize>;

#[derive(Debug)]
pub(super) struct Spares {
    buffers: Vec<(BytesMut, usize)>,
    /// What the buffer that is read into was made with.
    current: usize,
    all: ReadBuffers,
}

impl Spares {
    pub(super) const fn new(all: ReadBuffers) -> Self {
        Self {
            buffers: Vec::new(),
            current: 0,
            all,
        }
    }

    /// Gives `buffer` room for `wanted` further bytes, or for a small read if all buffers together are
    /// too large; keeps what it holds.
    pub(super) fn make_room(&mut self, buffer: &mut BytesMut, wanted: usize) {
        if buffer.try_reclaim(wanted) {
            return;
        }
        let needed = wanted + buffer.len();
        let free = self
            .buffers
            .iter_mut()
            .position(|(spare, _)| spare.try_reclaim(needed));
        let (mut next, size) = match free {
            Some(index) => self.buffers.swap_remove(index),
            None => {
                let small = READ_MIN_BYTES + buffer.len();
                if buffer.try_reclaim(READ_MIN_BYTES) && self.is_crowded() {
                    return;
                }
                let size = if self.is_crowded() {
                    small.min(needed)
                } else {
                    needed
                };
                self.all.fetch_add(size, Ordering::Relaxed);
                (BytesMut::with_capacity(size), size)
            }
        };
        next.extend_from_slice(buffer);
        let mut used = std::mem::replace(buffer, next);
        used.clear();
        let used_size = std::mem::replace(&mut self.current, size);
        if used.capacity() > 0 && self.buffers.len() < SPARES && !self.is_crowded() {
            self.buffers.push((used, used_size));
        } else {
            self.all.fetch_sub(used_size, Ordering::Relaxed);
        }
    }

    /// Gives back all memory but what `buffer` holds.
    pub(super) fn give_back(&mut self, buffer: &mut BytesMut) {
        let kept = buffer.len();
        *buffer = BytesMut::from(&buffer[..]);
        self.forget();
        self.current = kept;
        self.all.fetch_add(kept, Ordering::Relaxed);
    }

    fn forget(&mut self) {
        let spare: usize = self.buffers.iter().map(|(_, size)| size).sum();
        self.buffers = Vec::new();
        let freed = spare + std::mem::take(&mut self.current);
        self.all.fetch_sub(freed, Ordering::Relaxed);
    }

    fn is_crowded(&self) -> bool {
        self.all.load(Ordering::Relaxed) > READ_BUFFERS_BYTES
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_only_when_its_pieces_are_gone() {
        let all = ReadBuffers::default();
        let mut spares = Spares::new(Arc::clone(&all));
        let mut buffer = BytesMut::new();
        spares.make_room(&mut buffer, 1000);
        buffer.extend_from_slice(&[1; 900]);
        let first = buffer.as_ptr();
        let piece = buffer.split_to(890).freeze();
        spares.make_room(&mut buffer, 1000);
        assert_eq!(
            buffer.as_ref(),
            [1; 10],
            "what was not used yet moves along"
        );
        assert_ne!(buffer.as_ptr(), first);
        assert_eq!(piece.as_ref(), [1; 890]);
        drop(piece);
        let other = buffer.split().freeze();
        buffer.extend_from_slice(&vec![2; buffer.capacity()]);
        let held = buffer.split().freeze();
        spares.make_room(&mut buffer, 900);
        assert_eq!(buffer.as_ptr(), first, "the first is free again");
        assert_eq!(
            all.load(Ordering::Relaxed),
            1000,
            "the second is held by its pieces"
        );
        buffer.extend_from_slice(b"begun");
        spares.give_back(&mut buffer);
        assert_eq!(
            (buffer.as_ref(), all.load(Ordering::Relaxed)),
            (&b"begun"[..], 5)
        );
        drop((other, held, spares));
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn buffers_are_small_when_all_together_are_too_large() {
        let all = ReadBuffers::new(AtomicUsize::new(READ_BUFFERS_BYTES + 1));
        let mut spares = Spares::new(Arc::clone(&all));
        let mut buffer = BytesMut::new();
        spares.make_room(&mut buffer, 1 << 20);
        assert!(buffer.capacity() >= READ_MIN_BYTES && buffer.capacity() < 2 * READ_MIN_BYTES);
        drop(spares);
        assert_eq!(all.load(Ordering::Relaxed), READ_BUFFERS_BYTES + 1);
    }
}
