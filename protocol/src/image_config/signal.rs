//! Signal names, as `STOPSIGNAL`, `teu stop --signal` and exit messages write them.
//!
//! Owner: this table. Invariant: Linux numbers as on x86-64 and arm64 (the same), real-time
//! signals as glibc and musl give them out (`SIGRTMIN` = 34). Source: signal(7).

/// Names of signals 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for the same numbers.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// SIGTERM: what stops a process unless the image or the user says otherwise.
pub const SIGTERM: u8 = 15;

/// Reads `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
#[must_use]
pub fn parse(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u8::try_from(index + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Some(*number);
    }
    parse_real_time(name)
}

fn parse_real_time(name: &str) -> Option<u8> {
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
#[must_use]
pub fn name(number: u8) -> String {
    match number {
        1..=31 => format!("SIG{}", NAMES[usize::from(number) - 1]),
        RTMIN => "SIGRTMIN".to_owned(),
        RTMAX => "SIGRTMAX".to_owned(),
        n if (RTMIN..RTMAX).contains(&n) => format!("SIGRTMIN+{}", n - RTMIN),
        n => n.to_string(),
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
            ("SIGQUIT", 3),
            ("sigwinch", 28),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGIOT", 6),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for bad in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "SIGNOPE",
            "SIGRTMIN+31",
            "SIGRTMIN3",
            "RTMAX-40",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            assert_eq!(parse(&name(number)), Some(number));
        }
    }
}
