//! A volume's record as user properties of its dataset.
//!
//! Owner: the ZFS pool. A property's value has at most 8192 bytes with its end (ZAP_MAXVALUELEN in
//! OpenZFS's include/sys/zap.h; zfs-fuse's is the same), so a long record has parts:
//! `teu:record` = `<generation>:<parts>:<base64 of the first>` and `teu:record.<generation>.<n>`.
//! Invariant: `teu:record` is set last and names the generation of its parts, so a reader
//! sees the old record or the new one.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The property that a volume has and other datasets have not.
pub(super) const RECORD: &str = "teu:record";
/// Bytes of base64 in a property.
const PART: usize = 8000;
/// 64 labels of 256 bytes and a tag are well below 8 × 6000 bytes.
const PARTS_MAX: usize = 8;

/// The properties of a record: the parts, then the first, which makes them the record.
/// `None` if it is too long.
pub(super) fn encode(record: &[u8], generation: char) -> Option<Vec<(String, String)>> {
    let text = STANDARD.encode(record);
    let parts: Vec<&[u8]> = text.as_bytes().chunks(PART).collect();
    if parts.len() > PARTS_MAX {
        return None;
    }
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let first = parts.first().map(|part| text(part)).unwrap_or_default();
    let rest = parts.iter().enumerate().skip(1);
    let mut properties: Vec<_> = rest
        .map(|(n, part)| (name_of(generation, n), text(part)))
        .collect();
    properties.push((
        RECORD.to_owned(),
        format!("{generation}:{}:{first}", parts.len().max(1)),
    ));
    Some(properties)
}

/// What `teu:record` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) generation: char,
    parts: usize,
    first: &'a str,
}

impl<'a> Head<'a> {
    pub(super) fn read(value: &'a str) -> Option<Self> {
        let mut fields = value.splitn(3, ':');
        let generation = fields.next()?.chars().next()?;
        let parts = fields.next()?.parse().ok()?;
        let first = fields.next()?;
        (1..=PARTS_MAX).contains(&parts).then_some(Self {
            generation,
            parts,
            first,
        })
    }

    /// The properties that have the rest of it.
    pub(super) fn rest(&self) -> Vec<String> {
        (1..self.parts)
            .map(|n| name_of(self.generation, n))
            .collect()
    }

    /// The record, given the rest's values.
    pub(super) fn decode(&self, rest: &[String]) -> Option<Vec<u8>> {
        STANDARD
            .decode(format!("{}{}", self.first, rest.concat()))
            .ok()
    }

    /// The generation after this one: the other of the two.
    pub(super) fn next_generation(&self) -> char {
        if self.generation == 'a' { 'b' } else { 'a' }
    }
}

fn name_of(generation: char, n: usize) -> String {
    format!("{RECORD}.{generation}.{n}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_length_read_back() {
        for length in [0, 1, 5999, 6000, 6001, 30_000, 48_000] {
            let record: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
            let mut properties = encode(&record, 'a').unwrap();
            assert!(properties.iter().all(|(_, value)| value.len() < 8192));
            let (name, value) = properties.pop().unwrap();
            assert_eq!(name, RECORD);
            let head = Head::read(&value).unwrap();
            let (names, values): (Vec<_>, Vec<_>) = properties.into_iter().unzip();
            assert_eq!(head.rest(), names);
            assert_eq!(head.decode(&values).unwrap(), record);
            assert_eq!(head.next_generation(), 'b');
        }
        assert!(encode(&vec![0; 48_001], 'a').is_none());
        assert!(
            Head::read("-").is_none()
                && Head::read("a:9:").is_none()
                && Head::read("a:x:").is_none()
        );
    }
}
