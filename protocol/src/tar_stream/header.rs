//! One 512-byte header block: ustar and GNU fields.
//!
//! Owner: [`super::TarStream`]. Invariant: a `Header` has a right checksum; numbers that are not
//! numbers are `None`. Source: POSIX.1-2001 pax, GNU tar manual "Basic Tar Format".

use std::ops::Range;

/// Everything in a tar archive comes in these.
pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const PREFIX: Range<usize> = 345..500;

#[derive(Debug)]
pub(super) struct Header([u8; BLOCK]);

impl Header {
    /// `None` if the checksum is wrong. Some old writers summed signed bytes.
    pub(super) fn checked(block: [u8; BLOCK]) -> Option<Self> {
        let written = i64::try_from(number(&block[CHECKSUM])?).ok()?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&index) {
                b' '
            } else {
                *byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        (written == unsigned || written == signed).then_some(Self(block))
    }

    pub(super) const fn type_flag(&self) -> u8 {
        self.0[TYPE]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        // Only POSIX ustar has a prefix; GNU uses those bytes for other things.
        let prefix = if self.0[MAGIC] == *b"ustar\0" {
            text(&self.0[PREFIX])
        } else {
            b""
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[LINK]).to_vec()
    }

    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[SIZE])
    }

    pub(super) fn mode(&self) -> Option<u64> {
        number(&self.0[MODE])
    }

    pub(super) fn uid(&self) -> Option<u64> {
        number(&self.0[UID])
    }

    pub(super) fn gid(&self) -> Option<u64> {
        number(&self.0[GID])
    }

    /// Times before 1970 are negative base-256 numbers.
    pub(super) fn mtime(&self) -> Option<i64> {
        let field = &self.0[MTIME];
        if field[0] == 0xff {
            let low: [u8; 8] = field[4..].try_into().ok()?;
            return field[..4]
                .iter()
                .all(|byte| *byte == 0xff)
                .then(|| i64::from_be_bytes(low));
        }
        i64::try_from(number(field)?).ok()
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

/// Octal digits among spaces and NULs (empty: 0), or base-256 if the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        if first & 0x40 != 0 {
            return None; // negative
        }
        return rest
            .iter()
            .try_fold(u64::from(first & 0x3f), |value, byte| {
                Some(value.checked_mul(256)? + u64::from(*byte))
            });
    }
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(digits.len());
    let (digits, tail) = digits.split_at(end);
    if !tail.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(8)?;
        value.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000688\0", None),
            (b"64\x004\0\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
