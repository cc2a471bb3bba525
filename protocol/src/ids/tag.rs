//! Tags: names that people give to containers and volumes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name for a container or volume, unique within an account: 1 to 63 characters,
/// `a-z A-Z 0-9 . _ -`, the first a letter or digit.
///
/// Text of exactly 32 hex digits is refused: it would read as an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// Text that should have been a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be a name: use 1 to 63 letters, digits, dots, dashes and underscores, \
     starting with a letter or digit (and not 32 hexadecimal digits, which would read as an id)"
)]
pub struct ParseTagError(pub String);

impl Tag {
    /// The longest tag, in bytes: a DNS label, so that a tag can always be a host name.
    pub const MAX: usize = 63;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tag {
    type Error = ParseTagError;

    fn try_from(text: String) -> Result<Self, ParseTagError> {
        let first_fits = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let all_fit = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let reads_as_id = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if first_fits && all_fit && !reads_as_id && text.len() <= Self::MAX {
            Ok(Self(text))
        } else {
            Err(ParseTagError(text.chars().take(80).collect()))
        }
    }
}

impl FromStr for Tag {
    type Err = ParseTagError;

    fn from_str(text: &str) -> Result<Self, ParseTagError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_plain_short_name() {
        for good in ["web", "a", "Web-1.prod_x", "9lives", &"x".repeat(63)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let id = "0123456789abcdef0123456789abcdef";
        for bad in [
            "",
            "-web",
            ".web",
            "we b",
            "wéb",
            "a/b",
            "a:b",
            &"x".repeat(64),
            id,
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
