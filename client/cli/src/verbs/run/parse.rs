//! How `teu run`'s values are written: sizes, variables, files, volumes.

use std::{fmt::Write as _, fs, path::PathBuf, str::FromStr, time::Duration};

use teu::PreBoot;

use crate::failure::Failure;

/// `NAME=VALUE`, or `NAME` to pass on the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvSpec {
    name: String,
    value: Option<String>,
}

impl FromStr for EnvSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || name.contains('\0') {
            return Err("NAME or NAME=VALUE is expected".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl EnvSpec {
    /// Name and value; nothing if it was to be passed on and is not set here.
    pub(crate) fn resolve(&self) -> Option<(String, String)> {
        let value = self
            .value
            .clone()
            .or_else(|| std::env::var(&self.name).ok())?;
        Some((self.name.clone(), value))
    }
}

/// `SRC:DEST`: a local file and its place in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSpec {
    source: PathBuf,
    destination: String,
}

impl FromStr for FileSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (source, destination) = text
            .rsplit_once(':')
            .filter(|(source, destination)| !source.is_empty() && destination.starts_with('/'))
            .ok_or("SRC:DEST is expected, DEST an absolute path in the container")?;
        Ok(Self {
            source: source.into(),
            destination: destination.to_owned(),
        })
    }
}

impl FileSpec {
    /// Reads the local file; its permission bits travel with it.
    pub(crate) fn read(&self) -> Result<PreBoot, Failure> {
        use std::os::unix::fs::MetadataExt as _;
        let failed = |source| Failure::File {
            what: format!("cannot read {} (--file)", self.source.display()),
            source,
        };
        let content = fs::read(&self.source).map_err(failed)?;
        let mode = fs::metadata(&self.source).map_err(failed)?.mode() & 0o777;
        Ok(PreBoot::bytes(&self.destination, content).mode(mode))
    }
}

/// `VOLUME:PATH[:ro]`: a volume by name or id, and its place in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) volume: String,
    pub(crate) path: String,
    pub(crate) read_only: bool,
}

impl FromStr for MountSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(['/', '.', '~']) {
            return Err(
                "VOLUME:PATH is expected: a volume's name, not a directory of this \
                        machine (--file sends a file)"
                    .to_owned(),
            );
        }
        // The volume may be named `id:tag`; its place begins at the first slash.
        let (volume, rest) = text
            .split_once(":/")
            .filter(|(volume, _)| !volume.is_empty())
            .ok_or("VOLUME:PATH[:ro] is expected, PATH absolute in the container")?;
        let (path, read_only) = match rest.rsplit_once(':') {
            Some((path, "ro")) => (path, true),
            Some((path, "rw")) => (path, false),
            Some((_, other)) => return Err(format!("`:{other}` is not known: `:ro` is")),
            None => (rest, false),
        };
        if path.trim_matches('/').is_empty() {
            return Err(
                "a volume cannot replace the container's root: name a directory".to_owned(),
            );
        }
        Ok(Self {
            volume: volume.to_owned(),
            path: format!("/{path}"),
            read_only,
        })
    }
}

/// `64m`, `1.5g`, `1048576`: bytes, in powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let expected = || "a number of bytes is expected, such as 64m, 1.5g or 2GiB".to_owned();
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 10),
        Some('m') => (&digits[..digits.len() - 1], 20),
        Some('g') => (&digits[..digits.len() - 1], 30),
        Some('t') => (&digits[..digits.len() - 1], 40),
        _ => (digits, 0),
    };
    scaled(number, 1 << shift).ok_or_else(expected)
}

/// Most digits behind the point: with more, the product of them and a unit would not fit.
const MAX_FRACTION_DIGITS: usize = 6;

/// A decimal number of units, exactly; what is less than one is cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || fraction.len() > MAX_FRACTION_DIGITS {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let of = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u64>().ok()?.checked_mul(unit)? / of;
    whole.checked_add(part)
}

/// `0.5`: cores.
pub(crate) fn cpus(text: &str) -> Result<f64, String> {
    let cores: f64 = text
        .parse()
        .map_err(|_| "a number of cores is expected, such as 0.5")?;
    if (0.01..=4096.0).contains(&cores) {
        Ok(cores)
    } else {
        let mut message = String::new();
        let _ = write!(message, "{cores} cores cannot be given: 0.01 to 4096 can");
        Err(message)
    }
}

/// `500ms`, `90s` (or `90`), `5m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let count: Option<u64> = digits.parse().ok();
    count
        .zip(unit_ms)
        .and_then(|(count, unit_ms)| count.checked_mul(unit_ms))
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "a time is expected: 500ms, 90s, 5m, 2h or 1d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ms) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("7", 7_000),
            ("5m", 300_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0", "-1s", "1.5s", "1w", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, count) in [
            ("1", 1),
            ("64m", 64 << 20),
            ("2G", 2 << 30),
            ("2GiB", 2 << 30),
            ("10kb", 10 << 10),
            ("1.5g", 3 << 29),
            ("0.5", 0),
            ("0.000001t", 1_099_511),
        ] {
            assert_eq!(bytes(text), Ok(count), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "99999999999t",
            ".5g",
            "1.g",
            "1..5g",
            "+1",
            "1e3",
            "0.0000001t",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn volumes() {
        let parsed = |text: &str| {
            let mount: MountSpec = text.parse().unwrap();
            (mount.volume, mount.path, mount.read_only)
        };
        assert_eq!(parsed("db:/data"), ("db".into(), "/data".into(), false));
        assert_eq!(parsed("db:/d/e:ro"), ("db".into(), "/d/e".into(), true));
        assert_eq!(parsed("db:/d:rw"), ("db".into(), "/d".into(), false));
        assert_eq!(parsed("1f2e:db:/d"), ("1f2e:db".into(), "/d".into(), false));
        for bad in [
            "",
            "db",
            "db:",
            "db:data",
            "/host:/data",
            "./d:/d",
            ":/d",
            "db:/d:z",
            "db:/",
        ] {
            assert!(bad.parse::<MountSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cores() {
        assert_eq!(cpus("0.5"), Ok(0.5));
        for text in ["0", "NaN", "-1", "x", "inf"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_and_files() {
        assert_eq!(
            "A=b=c".parse::<EnvSpec>().unwrap().resolve(),
            Some(("A".into(), "b=c".into()))
        );
        assert_eq!(
            "A=".parse::<EnvSpec>().unwrap().resolve(),
            Some(("A".into(), String::new()))
        );
        assert!("=x".parse::<EnvSpec>().is_err());
        let file: FileSpec = "a:b:/c".parse().unwrap();
        assert_eq!((file.source, file.destination), ("a:b".into(), "/c".into()));
        assert!("a:b".parse::<FileSpec>().is_err());
    }
}
