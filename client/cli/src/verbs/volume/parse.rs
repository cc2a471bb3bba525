//! How `teu volume`'s values are written: time spans, quotas.

use std::{str::FromStr, time::Duration};

use crate::verbs::run::bytes;

/// A number of bytes, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota(pub(crate) Option<u64>);

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => bytes(text).map(|count| Self(Some(count))),
        }
    }
}

/// Units of time, the smallest first.
const UNITS: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3_600),
    ('d', 86_400),
    ('w', 604_800),
];

/// `90s`, `30m`, `1h`, `1d`, `1w`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let expected = || "a time in one unit is expected, such as 90s, 30m, 1h, 1d or 1w".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, seconds) = known.ok_or_else(expected)?;
    let count: u64 = text
        .strip_suffix(unit)
        .and_then(|count| count.parse().ok())
        .ok_or_else(expected)?;
    let span = count.checked_mul(*seconds).ok_or_else(expected)?;
    if span < 10 {
        return Err("snapshots can be made every 10s or less often".to_owned());
    }
    Ok(Duration::from_secs(span))
}

/// The same, the other way round: in the largest unit that it is a multiple of.
pub(crate) fn span_text(seconds: u64) -> String {
    let fits = |(_, unit): &&(char, u64)| seconds > 0 && seconds.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
    format!("{}{name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_they_are_read() {
        for text in ["10s", "90s", "30m", "90m", "1h", "36h", "2d", "1w"] {
            let read = span(text).unwrap();
            assert_eq!(span_text(read.as_secs()), text);
        }
        assert_eq!(span_text(3601), "3601s");
    }

    #[test]
    fn spans() {
        for (text, seconds) in [("10s", 10), ("30m", 1800), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "h",
            "1",
            "9s",
            "-1h",
            "1y",
            "1hh",
            "é",
            "99999999999999999w",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quotas() {
        assert_eq!("none".parse(), Ok(Quota(None)));
        assert_eq!("2GiB".parse(), Ok(Quota(Some(2 << 30))));
        assert!("some".parse::<Quota>().is_err());
    }
}
