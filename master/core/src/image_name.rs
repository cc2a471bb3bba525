//! Names of images: one spelling for each, and what a text may mean.
//!
//! Docker's rules as far as people use them: no tag means `latest`; Docker Hub's own prefixes are
//! left out.

use teu_protocol::{ids::Digest, message::Refusal};

use crate::{limits, refusals};

/// What a user called an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// By name, and perhaps by the first digits of its id.
    Name {
        name: String,
        digits: Option<String>,
    },
    /// By its whole id.
    Id(Digest),
}

/// Reads what a user called an image.
pub(crate) fn reference(text: &str) -> Result<Reference, Refusal> {
    if let Ok(id) = text.parse::<Digest>() {
        return Ok(Reference::Id(id));
    }
    let digits = text
        .strip_prefix("sha256:")
        .unwrap_or(text)
        .to_ascii_lowercase();
    if let Ok(id) = format!("sha256:{digits}").parse::<Digest>() {
        return Ok(Reference::Id(id));
    }
    let is_prefix = digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    Ok(Reference::Name {
        name: normal(text)?,
        digits: is_prefix.then_some(digits),
    })
}

/// The one spelling of a name: `nginx` is `nginx:latest`.
pub(crate) fn normal(text: &str) -> Result<String, Refusal> {
    let fits = !text.is_empty()
        && text.len() <= limits::IMAGE_NAME_BYTES
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
        && text.split('/').all(|part| !part.is_empty())
        && !text.ends_with(':');
    if !fits {
        return Err(refusals::bad(format!(
            "`{}` cannot be an image's name: it is made of letters, digits and `._-/`, \
             and perhaps a tag behind a colon",
            text.chars().take(80).collect::<String>()
        )));
    }
    let hub = text
        .strip_prefix("docker.io/")
        .map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
    let name = hub.unwrap_or(text);
    let last = name.rsplit('/').next().unwrap_or(name);
    Ok(if last.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for (text, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.27", "nginx:1.27"),
            ("docker.io/library/nginx", "nginx:latest"),
            ("docker.io/me/app:1", "me/app:1"),
            ("registry.local:5000/app", "registry.local:5000/app:latest"),
        ] {
            assert_eq!(normal(text).unwrap(), expected);
        }
        let long = "x".repeat(600);
        for bad in [
            "",
            "a b",
            "a@sha256:00",
            "/a",
            "a//b",
            "a:",
            "a/",
            "\u{e9}",
            &long,
        ] {
            assert!(normal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_is_an_id_or_a_name_that_may_be_a_prefix() {
        let id = Digest::of(b"x");
        assert_eq!(reference(&id.to_string()).unwrap(), Reference::Id(id));
        assert_eq!(reference(&id.hex()).unwrap(), Reference::Id(id));
        let digits = |text: &str| match reference(text).unwrap() {
            Reference::Name { digits, .. } => digits,
            Reference::Id(_) => None,
        };
        assert_eq!(digits("cafe").as_deref(), Some("cafe"));
        assert_eq!(digits("sha256:CAFE01").as_deref(), Some("cafe01"));
        assert_eq!(digits("caf"), None);
        assert_eq!(digits("nginx"), None);
    }
}
