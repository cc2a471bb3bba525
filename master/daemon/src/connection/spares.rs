//! Read buffers that are used again: memory that the system hands out anew costs more than the copy
//! that reading in place saves.
//!
//! Owner: a [`super::reader`]. Invariant: a buffer is used again only when nobody holds a piece of it.

use bytes::BytesMut;

/// Buffers of one connection whose pieces may still be waiting somewhere. More than these are in use
/// only if somebody does not read, and then speed is no concern.
const SPARES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<BytesMut>,
}

impl Spares {
    /// Gives `buffer` room for `wanted` further bytes, keeping what it holds.
    pub(super) fn make_room(&mut self, buffer: &mut BytesMut, wanted: usize) {
        if buffer.try_reclaim(wanted) {
            return;
        }
        let needed = wanted + buffer.len();
        let free = self
            .buffers
            .iter_mut()
            .position(|spare| spare.try_reclaim(needed));
        let mut next = match free {
            Some(index) => self.buffers.swap_remove(index),
            None => BytesMut::with_capacity(needed),
        };
        next.extend_from_slice(buffer);
        let mut used = std::mem::replace(buffer, next);
        used.clear();
        if used.capacity() > 0 && self.buffers.len() < SPARES {
            self.buffers.push(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_only_when_its_pieces_are_gone() {
        let mut spares = Spares::default();
        let mut buffer = BytesMut::with_capacity(1000);
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
        drop((other, held));
    }
}
