//! Signals: the one type that knows their numbers and names, from `STOPSIGNAL` and `teu kill -s` to
//! the keeper that delivers them.
//!
//! Owner: this file. Invariants: a [`Signal`] is one that Linux can deliver, 1 to 64; numbers are as
//! on x86-64 and arm64 (the same), real-time signals as glibc and musl give them out (`SIGRTMIN` = 34).
//! Source: signal(7).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Names of signals 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for the same numbers.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// The first real-time signal that the C libraries leave to programs (they keep 32 and 33).
const RTMIN: u8 = 34;
/// The kernel's last.
const RTMAX: u8 = 64;

/// A signal: its name as signal(7) has it, or its number.
///
/// ```
/// use teu_protocol::image_config::signal::Signal;
///
/// let signal: Signal = "SIGRTMIN+3".parse()?;
/// assert_eq!(signal.number(), 37);
/// assert_eq!("term".parse(), Ok(Signal::TERM));
/// assert_eq!(Signal::try_from(9), Ok(Signal::KILL));
/// assert_eq!(signal.to_string(), "SIGRTMIN+3");
/// # Ok::<(), teu_protocol::image_config::signal::UnknownSignal>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// What is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a signal; use a name such as TERM or RTMIN+3, or a number from 1 to 64")]
pub struct UnknownSignal(String);

impl Signal {
    /// The terminal was closed; daemons read their configuration again.
    pub const HUP: Self = Self(1);
    /// Ctrl-C.
    pub const INT: Self = Self(2);
    /// Ctrl-\.
    pub const QUIT: Self = Self(3);
    /// Raised by abort(3).
    pub const ABRT: Self = Self(6);
    /// Ends a process without asking it.
    pub const KILL: Self = Self(9);
    /// The program's own.
    pub const USR1: Self = Self(10);
    /// The program's own.
    pub const USR2: Self = Self(12);
    /// Asks a process to end: what stops one unless the image or the user says otherwise.
    pub const TERM: Self = Self(15);
    /// Goes on after a stop.
    pub const CONT: Self = Self(18);
    /// Stops a process without asking it.
    pub const STOP: Self = Self(19);

    /// Its number, 1 to 64.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// `SIGRTMIN` + `offset`; `None` beyond `SIGRTMAX`, which is 30 further on.
    #[must_use]
    pub const fn real_time(offset: u8) -> Option<Self> {
        if offset <= RTMAX - RTMIN {
            Some(Self(RTMIN + offset))
        } else {
            None
        }
    }

    /// Signals that are sent to end something.
    #[must_use]
    pub const fn ends_by_default(self) -> bool {
        matches!(
            self,
            Self::HUP | Self::INT | Self::QUIT | Self::ABRT | Self::KILL | Self::TERM
        )
    }
}

impl TryFrom<u8> for Signal {
    type Error = UnknownSignal;

    fn try_from(number: u8) -> Result<Self, UnknownSignal> {
        if (1..=RTMAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(UnknownSignal(number.to_string()))
        }
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

/// Reads `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        /// Of what is shown again; it may come from a stranger's image.
        const SHOWN: usize = 64;
        let number = match text.parse::<u8>() {
            Ok(number) => (1..=RTMAX).contains(&number).then_some(number),
            Err(_) => number_of(text),
        };
        let unknown = || UnknownSignal(text.chars().take(SHOWN).collect());
        number.map(Self).ok_or_else(unknown)
    }
}

fn number_of(text: &str) -> Option<u8> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u8::try_from(index + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Some(*number);
    }
    number_of_real_time(name)
}

fn number_of_real_time(name: &str) -> Option<u8> {
    let offset = |text: &str, sign: char| -> Option<u8> {
        if text.is_empty() {
            Some(0)
        } else {
            text.strip_prefix(sign)?.parse().ok()
        }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// `SIGTERM` for 15; `SIGRTMIN+3` for 37; the number itself if it has no name.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number @ 1..=31 => write!(f, "SIG{}", NAMES[usize::from(number) - 1]),
            RTMIN => f.write_str("SIGRTMIN"),
            RTMAX => f.write_str("SIGRTMAX"),
            number if number > RTMIN => write!(f, "SIGRTMIN+{}", number - RTMIN),
            number => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("37", 37),
            ("SIGQUIT", 3),
            ("sigwinch", 28),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+3", 37),
            ("RTMAX-1", 63),
            ("SIGIOT", 6),
        ] {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
        for bad in [
            "",
            "SIG",
            "0",
            "65",
            "256",
            "-1",
            "SIGNOPE",
            "SIGRTMIN+31",
            "SIGRTMIN3",
            "RTMAX-40",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
        for number in 1..=RTMAX {
            let signal = Signal(number);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn no_other_number_comes_in_by_any_way() {
        for number in 0..=u8::MAX {
            let bytes = rmp_serde::to_vec(&number).unwrap();
            let is_one = (1..=64).contains(&number);
            assert_eq!(Signal::try_from(number).is_ok(), is_one, "{number}");
            assert_eq!(rmp_serde::from_slice::<Signal>(&bytes).is_ok(), is_one);
        }
    }
}
