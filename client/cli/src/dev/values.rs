//! What tells one-machine locations apart: name, instance, range of addresses. Checked when parsed, on
//! the command line as in files, so that nothing else needs quoting or a second look.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A DNS label (RFC 1035): the location's domain name is `<name>.localhost`.
const MAX_NAME_LEN: usize = 63;

/// As long as an interface's name allows for (`teu-node` has the same rule).
const MAX_INSTANCE_LEN: usize = 8;

/// The shortest and the longest prefix that a range may have before the master looks closer.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=28;

/// A location's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct LocationName(String);

/// The prefix of a location's bridge, firewall table, cgroups and run directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Instance(String);

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Range {
    base: Ipv4Addr,
    prefix: u8,
}

impl LocationName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, or the name with a number.
    pub(super) fn usual(number: u32) -> Self {
        Self(numbered("dev", number))
    }
}

impl Instance {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn usual(number: u32) -> Self {
        Self(numbered("teu", number))
    }
}

impl Range {
    /// 10.77.0.0/16, then those after it, in a circle through 10.0.0.0/8.
    pub(super) fn usual(number: u32) -> Self {
        let second = u8::try_from((76 + number) % 256).unwrap_or(77);
        Self {
            base: Ipv4Addr::new(10, second, 0, 0),
            prefix: 16,
        }
    }

    /// Nothing if the prefix is none.
    pub(super) fn new(base: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then_some(Self { base, prefix })
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        u32::from(self.base) & mask == u32::from(other.base) & mask
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or_default()
}

fn numbered(word: &str, number: u32) -> String {
    if number == 1 {
        word.to_owned()
    } else {
        format!("{word}{number}")
    }
}

impl FromStr for LocationName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edges = text.starts_with('-') || text.ends_with('-');
        if text.bytes().all(fits) && !edges && (1..=MAX_NAME_LEN).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err("a location's name has up to 63 of a-z, 0-9 and inner dashes, such as `dev` or `db-test`".to_owned())
    }
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let like_a_veth = text
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .ends_with('v');
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        if text.bytes().all(fits) && begins && !like_a_veth && text.len() <= MAX_INSTANCE_LEN {
            return Ok(Self(text.to_owned()));
        }
        Err(
            "an instance has a letter, then letters and digits (a-z, 0-9), at most 8, and does not end in `v` \
             and digits"
                .to_owned(),
        )
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(base, prefix)| {
            let prefix: u8 = prefix.parse().ok()?;
            Some((base.parse::<Ipv4Addr>().ok()?, prefix))
        });
        let (base, prefix) =
            parsed.ok_or("an IPv4 network is expected, such as 10.77.0.0/16".to_owned())?;
        if !PREFIXES.contains(&prefix) {
            return Err(format!(
                "/{prefix} is no size for a location: /{} to /{} is, such as 10.77.0.0/16",
                PREFIXES.start(),
                PREFIXES.end()
            ));
        }
        let network = Ipv4Addr::from(u32::from(base) & mask(prefix));
        if network != base {
            return Err(format!(
                "{base} lies inside of a network; the network itself is {network}/{prefix}"
            ));
        }
        Ok(Self { base, prefix })
    }
}

macro_rules! text {
    ($($of:ty),*) => {$(
        impl TryFrom<String> for $of {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$of> for String {
            fn from(value: $of) -> Self {
                value.to_string()
            }
        }
    )*};
}
text!(LocationName, Instance, Range);

impl fmt::Display for LocationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["dev", "a", "db-test", "3", &"x".repeat(63)] {
            assert!(good.parse::<LocationName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a b",
            "-a",
            "a-",
            "a.b",
            "A",
            "é",
            "../x",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<LocationName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instances_are_those_that_the_node_takes() {
        for good in ["teu", "t", "teu2", "a1b2c3d4", "vx"] {
            assert!(good.parse::<Instance>().is_ok(), "{good}");
        }
        for bad in ["", "2teu", "Teu", "te-u", "te u", "abcdefghi", "v", "teuv1"] {
            assert!(bad.parse::<Instance>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_a_network_that_has_room() {
        for good in ["10.77.0.0/16", "10.0.0.0/8", "192.168.4.0/24"] {
            let range: Range = good.parse().unwrap();
            assert_eq!(range.to_string(), good);
        }
        for bad in [
            "10.77.0.0/33",
            "10.77.0.0/32",
            "10.77.0.1/16",
            "10.77.0.0",
            "x/16",
            "10.0.0.0/7",
            "::/16",
        ] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_overlap_if_one_holds_the_other() {
        let range = |text: &str| text.parse::<Range>().unwrap();
        assert!(range("10.77.0.0/16").overlaps(range("10.77.4.0/24")));
        assert!(range("10.77.4.0/24").overlaps(range("10.0.0.0/8")));
        assert!(!range("10.77.0.0/16").overlaps(range("10.78.0.0/16")));
        assert!(
            Range::new(Ipv4Addr::UNSPECIFIED, 0)
                .is_some_and(|all| all.overlaps(range("10.0.0.0/8")))
        );
    }

    #[test]
    fn usual_values_parse() {
        for number in 1..300 {
            let name = LocationName::usual(number);
            assert_eq!(name.to_string().parse(), Ok(name));
            let instance = Instance::usual(number);
            assert_eq!(instance.to_string().parse(), Ok(instance));
            let range = Range::usual(number);
            assert_eq!(range.to_string().parse(), Ok(range));
        }
        assert_eq!(Range::usual(1).to_string(), "10.77.0.0/16");
    }
}
