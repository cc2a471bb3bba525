//! The bytes of netlink: message headers and attributes, read leniently and written exactly.
//!
//! Owned by nobody: functions on bytes. Invariant: reading never panics and stops at the first
//! thing that does not fit (include/uapi/linux/netlink.h). Next: `channel`.

/// `struct nlmsghdr`.
pub(super) const HEADER_LEN: usize = 16;

const ATTRIBUTE_HEADER_LEN: usize = 4;
const NESTED: u16 = 0x8000;
/// The two upper bits of an attribute's type are flags.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// One message of what the kernel sent.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// Whose request it answers or, in an announcement, who caused it.
    pub(super) port: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let payload = rest.get(HEADER_LEN..length)?;
        let received = Received {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            port: u32_at(rest, 12)?,
            payload,
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(received)
    })
}

/// Writes one message behind what `out` holds.
pub(super) fn put_message(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let length = u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(body);
    pad(out);
}

/// The attributes in `rest`: type without its flags, value.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(ATTRIBUTE_HEADER_LEN..length)?;
        let kind = u16_at(rest, 2)? & ATTRIBUTE_TYPE_MASK;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of type `kind`.
pub(super) fn attribute(payload: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(payload)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// Writes one attribute; a value longer than an attribute can be is a mistake of the caller, who
/// bounds its lists.
pub(super) fn put_attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    pad(out);
}

/// Writes a text attribute, with the closing zero that the kernel wants.
pub(super) fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    put_attribute(out, kind, &value);
}

/// Writes an attribute that holds the attributes that `fill` writes.
pub(super) fn put_nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    put_attribute(out, kind | NESTED, &inner);
}

/// A text attribute's value without its closing zero.
pub(super) fn text(value: &[u8]) -> &str {
    let end = value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// A number in the machine's byte order.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset + 2)?;
    Some(u16::from_ne_bytes(field.try_into().ok()?))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn pad(out: &mut Vec<u8>) {
    out.resize(aligned(out.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut body = Vec::new();
        put_text(&mut body, 1, "teu0");
        put_nested(&mut body, 2, |inner| put_attribute(inner, 7, &[1, 2, 3]));
        let mut out = Vec::new();
        put_message(&mut out, 16, 5, 42, &body);
        put_message(&mut out, 17, 0, 43, &[]);
        let read: Vec<_> = messages(&out).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (16, 5, 42));
        assert_eq!(text(attribute(read[0].payload, 1).unwrap()), "teu0");
        let inner = attribute(read[0].payload, 2).unwrap();
        assert_eq!(attribute(inner, 7), Some(&[1u8, 2, 3][..]));
        assert_eq!(attribute(inner, 8), None);
    }

    #[test]
    fn damaged_bytes_end_the_reading() {
        let mut out = Vec::new();
        put_message(&mut out, 16, 0, 1, &[9; 20]);
        for cut in 0..out.len() {
            assert_eq!(messages(&out[..cut]).count(), 0);
        }
        // An attribute that claims less than its own header, and one that claims too much.
        assert_eq!(attributes(&[2, 0, 1, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 0, 0]).count(), 0);
    }
}
