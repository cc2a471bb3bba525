//! Image names: `nginx`, `nginx:1.27`, `ghcr.io/owner/name@sha256:…`.
//!
//! Owner: pure. Invariant: a name that was parsed holds only the characters that registries allow,
//! so it can stand in a URL; two spellings of one image compare equal.
//! Source: distribution/reference, "Grammar".

use std::{fmt, str::FromStr};

/// The longest name that registries accept is 255 bytes, tags 128, digests 71.
const MAX_BYTES: usize = 512;

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// Text that should have been an image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an image name; names look like `nginx`, `nginx:1.27` or `ghcr.io/owner/name:tag` \
     (lower case)"
)]
pub struct BadImageName(pub String);

/// A parsed name. Displayed in short form: `nginx:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageName {
    /// With domain and namespace: `docker.io/library/nginx:latest`.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}/{}{}", self.domain, self.path, self.suffix())
    }

    /// The last part without tag: `nginx`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether both mean the same image; a digest counts only if both have one.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let same_digest = match (&self.digest, &other.digest) {
            (Some(a), Some(b)) => return a == b && self.path == other.path,
            _ => true,
        };
        same_digest
            && (&self.domain, &self.path, &self.tag) == (&other.domain, &other.path, &other.tag)
    }

    fn suffix(&self) -> String {
        let tag = self
            .tag
            .as_ref()
            .map_or_else(String::new, |tag| format!(":{tag}"));
        let digest = self
            .digest
            .as_ref()
            .map_or_else(String::new, |digest| format!("@{digest}"));
        tag + &digest
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = format!("{DEFAULT_NAMESPACE}/");
        if self.domain != DEFAULT_DOMAIN {
            write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
        } else {
            let short = self
                .path
                .strip_prefix(&library)
                .filter(|rest| !rest.contains('/'));
            write!(f, "{}{}", short.unwrap_or(&self.path), self.suffix())
        }
    }
}

impl FromStr for ImageName {
    type Err = BadImageName;

    fn from_str(text: &str) -> Result<Self, BadImageName> {
        parse(text).ok_or_else(|| BadImageName(super::error::shown(text)))
    }
}

fn parse(text: &str) -> Option<ImageName> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(checked_digest(digest)?)),
        None => (text, None),
    };
    let (domain, rest) = match rest.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, rest),
    };
    let domain = if domain == "index.docker.io" {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(checked_tag(tag)?)),
        None => (rest, None),
    };
    if !path.split('/').all(is_path_component) {
        return None;
    }
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("{DEFAULT_NAMESPACE}/{path}")
    } else {
        path.to_owned()
    };
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag,
    };
    Some(ImageName {
        domain: domain.to_owned(),
        path,
        tag,
        digest,
    })
}

/// What stands before the first slash is a domain if it has a dot or port, or is localhost.
fn is_domain(text: &str) -> bool {
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    let looks_like_one = text == "localhost" || text.contains('.') || port.is_some();
    looks_like_one
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_path_component(text: &str) -> bool {
    let edge = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        })
        && !text.contains("..")
}

fn checked_tag(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let first = bytes.next()?;
    let fits = (first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.len() <= 128;
    fits.then(|| text.to_owned())
}

fn checked_digest(text: &str) -> Option<String> {
    text.parse::<teu_protocol::ids::Digest>()
        .ok()
        .map(|digest| digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, short, full) in [
            ("nginx", "nginx:latest", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "nginx:1.27", "docker.io/library/nginx:1.27"),
            (
                "docker.io/nginx",
                "nginx:latest",
                "docker.io/library/nginx:latest",
            ),
            (
                "docker.io/library/nginx:x",
                "nginx:x",
                "docker.io/library/nginx:x",
            ),
            ("index.docker.io/a/b", "a/b:latest", "docker.io/a/b:latest"),
            ("me/app", "me/app:latest", "docker.io/me/app:latest"),
            (
                "localhost/app",
                "localhost/app:latest",
                "localhost/app:latest",
            ),
            ("reg:5000/app:1", "reg:5000/app:1", "reg:5000/app:1"),
            (
                "ghcr.io/o/n:v1.0_x",
                "ghcr.io/o/n:v1.0_x",
                "ghcr.io/o/n:v1.0_x",
            ),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!((&*name.to_string(), &*name.full()), (short, full), "{text}");
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let pinned = format!("nginx@sha256:{}", "a".repeat(64));
        assert_eq!(pinned.parse::<ImageName>().unwrap().to_string(), pinned);
    }

    #[test]
    fn what_could_break_a_url_or_path_is_no_name() {
        let long = "a/".repeat(300) + "a";
        for bad in [
            "",
            "/",
            "Nginx",
            "nginx:",
            "nginx:a/b",
            "../etc",
            "a/../b",
            "a?b",
            "a b",
            "a#b",
            "a%2e",
            "-a",
            "a-",
            "nginx@sha256:00",
            ":tag",
            "a//b",
            "reg:99999/app",
            &long,
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
