//! PAX extended header records: `<length> <key>=<value>\n`.
//!
//! Owner: [`super::TarStream`]. Invariant: the whole block is well-formed or nothing of it is
//! used; unknown keys are ignored, the last of a repeated key wins (as POSIX says).

/// The records that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: bool,
}

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
const SPARSE_PREFIX: &[u8] = b"GNU.sparse.";

impl Records {
    pub(super) fn parse(mut block: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        // Some writers pad with NULs.
        while block.first().is_some_and(|byte| *byte != 0) {
            let space = block.iter().position(|byte| *byte == b' ')?;
            let length: usize = ascii(&block[..space])?;
            let record = block.get(space + 1..length)?.strip_suffix(b"\n")?;
            block = &block[length..];
            let equals = record.iter().position(|byte| *byte == b'=')?;
            records.set(&record[..equals], &record[equals + 1..])?;
        }
        Some(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value deletes the record (POSIX).
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = optional(value, ascii)?,
            b"uid" => self.uid = optional(value, ascii)?,
            b"gid" => self.gid = optional(value, ascii)?,
            b"mtime" => self.mtime = optional(value, time)?,
            _ if key.starts_with(SPARSE_PREFIX) => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

fn optional<T>(value: &[u8], read: fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() {
        Some(None)
    } else {
        read(value).map(Some)
    }
}

fn ascii<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// `-12.5`: seconds and nanoseconds (always counted upwards).
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.get(..fraction.len().min(9))?;
    let nanos: u32 = format!("{digits:0<9}").parse().ok()?;
    let seconds: i64 = whole.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos))
    } else {
        Some((seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_bad_ones_refused() {
        let block = b"16 path=dir/name\n".to_vec();
        assert_eq!(Records::parse(&block), None, "wrong length");
        let block = b"17 path=dir/name\n12 size=100\n22 mtime=1700000000.5\n\
                      33 SCHILY.xattr.user.k=a=b\nc\0dxy\n11 foo=bar\n";
        let records = Records::parse(block).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"dir/name"[..]));
        assert_eq!(records.size, Some(100));
        assert_eq!(records.mtime, Some((1_700_000_000, 500_000_000)));
        assert_eq!(
            records.xattrs,
            [(b"user.k".to_vec(), b"a=b\nc\0dxy".to_vec())]
        );
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"3 a",
            b"0 \n",
            b"99999999999999999999999 a=b\n",
            b"11 size=-1\n",
        ] {
            assert_eq!(Records::parse(bad), None, "{bad:?}");
        }
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
    }
}
