//! Which processor an image is for.
//!
//! Owner: pure. Invariant: names are Go's (`amd64`, `arm64`), whatever spelling came in.

use std::fmt;

use serde::Deserialize;

/// `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8`, or empty.
    #[serde(default)]
    pub variant: String,
}

impl Default for Platform {
    fn default() -> Self {
        Self::this()
    }
}

impl Platform {
    /// Linux on this machine's processor.
    #[must_use]
    pub fn this() -> Self {
        let architecture = go_architecture(std::env::consts::ARCH).to_owned();
        Self {
            os: "linux".to_owned(),
            architecture,
            variant: String::new(),
        }
    }

    /// Reads `linux/amd64`, `linux/arm/v7`, or just `arm64`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return None,
        };
        let fits = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let complete = !os.is_empty() && !architecture.is_empty();
        (complete && parts.iter().all(|part| fits(part))).then(|| Self {
            os: os.to_owned(),
            architecture: go_architecture(architecture).to_owned(),
            variant: variant.to_owned(),
        })
    }

    /// How well `offered` suits; `None`: not at all, larger is better. What an old image does not
    /// say is taken to fit.
    pub(super) fn suits(&self, offered: &Self) -> Option<u8> {
        let same = |ours: &str, theirs: &str| theirs.is_empty() || ours == theirs;
        let fits = same(&self.os, &offered.os)
            && same(&self.architecture, go_architecture(&offered.architecture));
        if !fits {
            return None;
        }
        match (&*self.variant, &*offered.variant) {
            (ours, theirs) if ours == theirs => Some(3),
            (_, "") => Some(2),
            // The baseline of 64-bit ARM, spelled out; newer x86 levels may not run here.
            ("", "v8" | "v1") => Some(2),
            ("", "v7") => Some(1),
            _ => None,
        }
    }

    /// BuildKit's attestations pretend to be for `unknown/unknown`.
    pub(super) fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            os,
            architecture,
            variant,
        } = self;
        write!(f, "{os}/{architecture}")?;
        if variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{variant}")
        }
    }
}

/// Rust's and uname's spellings to Go's.
fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i686" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_platform_wins() {
        let platform = |text| Platform::parse(text).unwrap();
        let (amd, arm) = (platform("linux/x86_64"), platform("arm64"));
        assert_eq!(amd.to_string(), "linux/amd64");
        assert!(amd.suits(&platform("linux/amd64")).is_some());
        assert_eq!(amd.suits(&platform("linux/amd64/v3")), None);
        assert_eq!(amd.suits(&arm), None);
        assert!(arm.suits(&platform("linux/arm64/v8")).is_some());
        assert_eq!(amd.suits(&platform("windows/amd64")), None);
        let silent = Platform {
            os: String::new(),
            architecture: String::new(),
            variant: String::new(),
        };
        assert!(amd.suits(&silent).is_some());
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert_eq!(Platform::parse(bad), None, "{bad}");
        }
    }
}
