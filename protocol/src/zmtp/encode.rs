//! Messages to bytes.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::decode::{FLAG_LONG, FLAG_MORE};

/// Parts up to this long are copied beside their headers: one more slice in a vectored write costs
/// about as much as copying this much.
const COALESCE_BYTES: usize = 1024;

/// The longest header of a frame: flags and a length of eight bytes.
pub const MAX_FRAME_HEADER_BYTES: usize = 9;

/// Writes the header of a frame: two bytes if its body is at most 255 bytes long, else nine.
pub fn frame_header(body_bytes: usize, more: bool, out: &mut BytesMut) {
    let more = if more { FLAG_MORE } else { 0 };
    match u8::try_from(body_bytes) {
        Ok(short) => {
            out.put_u8(more);
            out.put_u8(short);
        }
        Err(_) => {
            out.put_u8(more | FLAG_LONG);
            out.put_u64(body_bytes as u64);
        }
    }
}

/// Appends a whole message to `out`, copying its parts. A message has at least one part; none at
/// all writes nothing.
pub fn encode_message(parts: &[Bytes], out: &mut BytesMut) {
    let total: usize = parts
        .iter()
        .map(|part| part.len() + MAX_FRAME_HEADER_BYTES)
        .sum();
    out.reserve(total);
    for (index, part) in parts.iter().enumerate() {
        frame_header(part.len(), index + 1 < parts.len(), out);
        out.put_slice(part);
    }
}

/// Appends a whole message to a queue for vectored writing: large parts as they are, headers and
/// small parts gathered between them. `scratch` is where the gathered ones are built; keep it
/// across messages, so that it allocates once for many.
pub fn encode_chunks(parts: &[Bytes], scratch: &mut BytesMut, queue: &mut VecDeque<Bytes>) {
    for (index, part) in parts.iter().enumerate() {
        scratch.reserve(MAX_FRAME_HEADER_BYTES);
        frame_header(part.len(), index + 1 < parts.len(), scratch);
        if part.len() <= COALESCE_BYTES {
            scratch.put_slice(part);
        } else {
            queue.push_back(scratch.split().freeze());
            queue.push_back(part.clone());
        }
    }
    if !scratch.is_empty() {
        queue.push_back(scratch.split().freeze());
    }
}
