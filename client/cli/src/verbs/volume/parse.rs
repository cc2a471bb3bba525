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

/// `90s`, `30m`, `1h`, `1d`, `1w`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let expected = || "a time is expected, such as 30m, 1h or 1d".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(expected()),
    };
    let count: u64 = text
        .strip_suffix(unit)
        .and_then(|count| count.parse().ok())
        .ok_or_else(expected)?;
    let span = count.checked_mul(seconds).ok_or_else(expected)?;
    if span < 10 {
        return Err("snapshots can be made every 10s or less often".to_owned());
    }
    Ok(Duration::from_secs(span))
}

#[cfg(test)]
mod tests {
    use super::*;

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
