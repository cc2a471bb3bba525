//! MessagePack to messages: counted before a value is built, and nothing left over.
//!
//! Invariant: the bytes are exactly one MessagePack value, of bounded nesting and, from a client, with a
//! bounded number of values in it; what does not keep to that is refused before anything is allocated for it. An array
//! of eight million empty strings is 8 MB on the wire and 190 MB as a `Vec<String>`.

use serde::de::DeserializeOwned;

use crate::limits::{MAX_MESSAGE_NESTING, MAX_REQUEST_VALUES};

/// Bytes that should have been a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not MessagePack, or not this message.
    #[error("the message does not parse")]
    Malformed(#[source] rmp_serde::decode::Error),
    /// The bytes end before the value does, or hold a byte that begins no value.
    #[error("the message is not one whole MessagePack value")]
    Incomplete,
    /// Bytes follow the value.
    #[error("{0} bytes follow the message's only value")]
    Trailing(usize),
    /// More values than allowed.
    #[error("the message holds more than {0} values")]
    TooManyValues(usize),
    /// Deeper than allowed.
    #[error("the message nests values deeper than {0} levels")]
    TooDeep(usize),
}

/// What a message may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most values, counted through all levels; a map's keys count too.
    pub values: usize,
    /// The most arrays and maps within each other.
    pub nesting: usize,
}

impl Bounds {
    /// Of a client's message.
    pub const REQUEST: Self = Self {
        values: MAX_REQUEST_VALUES,
        nesting: MAX_MESSAGE_NESTING,
    };

    /// Of any other message, and of a record in a file of our own: no more than its bytes.
    pub const WHOLE: Self = Self {
        values: usize::MAX,
        nesting: MAX_MESSAGE_NESTING,
    };
}

/// Reads a message from MessagePack.
///
/// # Errors
/// If the bytes are not exactly one such message within [`Bounds::WHOLE`].
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, DecodeError> {
    decode_within(bytes, Bounds::WHOLE)
}

/// Reads a record of a file of our own.
///
/// # Errors
/// If the bytes are not exactly one such record.
pub fn decode_record<R: DeserializeOwned>(bytes: &[u8]) -> Result<R, DecodeError> {
    decode_within(bytes, Bounds::WHOLE)
}

/// Reads a message that keeps to these bounds.
///
/// # Errors
/// If the bytes are not exactly one such message within the bounds.
pub fn decode_within<M: DeserializeOwned>(bytes: &[u8], bounds: Bounds) -> Result<M, DecodeError> {
    count_values(bytes, bounds)?;
    rmp_serde::from_slice(bytes).map_err(DecodeError::Malformed)
}

/// How many values the one value in `bytes` consists of. Allocates nothing that `bytes` can make grow.
///
/// # Errors
/// If the bytes are not exactly one value within the bounds.
pub fn count_values(bytes: &[u8], bounds: Bounds) -> Result<usize, DecodeError> {
    let mut rest = bytes;
    let mut values = 0;
    // How many values each open array or map still lacks, innermost last.
    let mut open: Vec<u64> = Vec::new();
    loop {
        values += 1;
        if values > bounds.values {
            return Err(DecodeError::TooManyValues(bounds.values));
        }
        let (inside, after) = take_value(rest).ok_or(DecodeError::Incomplete)?;
        rest = after;
        if inside > 0 {
            if open.len() >= bounds.nesting {
                return Err(DecodeError::TooDeep(bounds.nesting));
            }
            open.push(inside);
            continue;
        }
        while let Some(lacking) = open.last_mut() {
            *lacking -= 1;
            if *lacking > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            break;
        }
    }
    match rest.len() {
        0 => Ok(values),
        trailing => Err(DecodeError::Trailing(trailing)),
    }
}

/// Takes one value's own bytes (MessagePack specification, "Formats"): how many values are inside it,
/// and what follows. `None` if it is cut off or begins with the byte that is never used.
fn take_value(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&marker, rest) = bytes.split_first()?;
    let fixed = |length: usize| Some((0, rest.get(length..)?));
    let prefixed = |width: usize, more: u64| {
        let (length, rest) = take_length(rest, width)?;
        let length = usize::try_from(length.checked_add(more)?).ok()?;
        Some((0, rest.get(length..)?))
    };
    let counted = |width: usize, each: u64| {
        let (count, rest) = take_length(rest, width)?;
        Some((count * each, rest))
    };
    match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => fixed(0),
        0x80..=0x8f => Some((u64::from(marker & 0x0f) * 2, rest)),
        0x90..=0x9f => Some((u64::from(marker & 0x0f), rest)),
        0xa0..=0xbf => fixed(usize::from(marker & 0x1f)),
        0xc1 => None,
        0xc4 | 0xd9 => prefixed(1, 0),
        0xc5 | 0xda => prefixed(2, 0),
        0xc6 | 0xdb => prefixed(4, 0),
        // An extension has a type before its content.
        0xc7 => prefixed(1, 1),
        0xc8 => prefixed(2, 1),
        0xc9 => prefixed(4, 1),
        0xcc | 0xd0 => fixed(1),
        0xcd | 0xd1 => fixed(2),
        0xca | 0xce | 0xd2 => fixed(4),
        0xcb | 0xcf | 0xd3 => fixed(8),
        0xd4 => fixed(2),
        0xd5 => fixed(3),
        0xd6 => fixed(5),
        0xd7 => fixed(9),
        0xd8 => fixed(17),
        0xdc => counted(2, 1),
        0xdd => counted(4, 1),
        0xde => counted(2, 2),
        0xdf => counted(4, 2),
    }
}

fn take_length(bytes: &[u8], width: usize) -> Option<(u64, &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length
        .iter()
        .fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some((length, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{ClientToMaster, encode};

    fn count(bytes: &[u8]) -> Result<usize, DecodeError> {
        count_values(bytes, Bounds::REQUEST)
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut bytes = encode(&ClientToMaster::Goodbye).unwrap();
        assert!(decode::<ClientToMaster>(&bytes).is_ok());
        bytes.push(0xc0);
        let refused = decode::<ClientToMaster>(&bytes).unwrap_err();
        assert!(matches!(refused, DecodeError::Trailing(1)), "{refused:?}");
        let refused = decode_record::<ClientToMaster>(&bytes).unwrap_err();
        assert!(matches!(refused, DecodeError::Trailing(1)), "{refused:?}");
    }

    #[test]
    fn an_array_of_empty_strings_is_refused_before_it_is_built() {
        let mut bytes = vec![0xdd];
        bytes.extend(8_000_000u32.to_be_bytes());
        bytes.resize(8_000_005, 0xa0);
        let refused = decode_within::<Vec<String>>(&bytes, Bounds::REQUEST).unwrap_err();
        assert!(
            matches!(refused, DecodeError::TooManyValues(MAX_REQUEST_VALUES)),
            "{refused:?}"
        );
    }

    #[test]
    fn values_within_values_are_refused_beyond_the_bound() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x91; levels];
            bytes.push(0xc0);
            bytes
        };
        assert_eq!(
            count(&nested(MAX_MESSAGE_NESTING)).unwrap(),
            MAX_MESSAGE_NESTING + 1
        );
        let refused = count(&nested(MAX_MESSAGE_NESTING + 1)).unwrap_err();
        assert!(matches!(refused, DecodeError::TooDeep(_)), "{refused:?}");
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_is_refused() {
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\xa1",
            b"\x92\x01",
            b"\x81\x01",
            b"\xc4",
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x00",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff\x00",
            b"\xcf\0\0\0",
            b"\xd8\0",
        ] {
            let refused = count(bytes).unwrap_err();
            assert!(
                matches!(refused, DecodeError::Incomplete),
                "{bytes:?}: {refused:?}"
            );
        }
    }

    proptest! {
        /// What the serializer writes is one value, also behind every cut.
        #[test]
        fn whatever_is_written_counts_as_one_value(
            value: (u8, i64, f32, f64, bool, Option<String>, Vec<u16>, BTreeMap<String, Vec<i8>>),
            other: (BTreeMap<u32, (u64, i32)>, String, Vec<Option<u32>>),
        ) {
            let bytes = encode(&(value.clone(), other)).unwrap();
            prop_assert!(count(&bytes).is_ok());
            for end in 0..bytes.len().min(64) {
                prop_assert!(count(&bytes[..end]).is_err());
            }
            let mut more = bytes;
            more.push(0);
            prop_assert!(matches!(count(&more), Err(DecodeError::Trailing(1))));
        }

        /// Whatever the decoder below takes, the count takes as well, unless bytes are left over.
        #[test]
        fn the_count_and_the_decoder_agree(bytes: Vec<u8>) {
            let mut decoder = rmp_serde::Deserializer::from_read_ref(&bytes[..]);
            let taken = <serde::de::IgnoredAny as serde::Deserialize>::deserialize(&mut decoder);
            match count(&bytes) {
                Ok(_) => prop_assert!(taken.is_ok()),
                Err(DecodeError::Incomplete) => prop_assert!(taken.is_err()),
                Err(_) => {}
            }
        }
    }
}
