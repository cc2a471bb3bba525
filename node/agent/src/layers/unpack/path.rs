//! Names of a layer's members: cleaned, checked, and whiteouts told from files.
//!
//! Owner: pure. Invariant: components are neither empty nor `.` nor `..`, at most 255 bytes, and
//! contain no slash or NUL. A leading slash means the layer's root, as it does for Docker.
//! Source: OCI image specification 1.1, "Image Layer Filesystem Changeset", whiteouts.

use super::UnpackError;

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// `NAME_MAX` of every Linux file system.
const MAX_COMPONENT_BYTES: usize = 255;

/// What a member's name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The layer's root directory.
    Root,
    /// Something real.
    Entry(LayerPath),
    /// That name, of a lower layer, is gone.
    Whiteout(LayerPath),
    /// All that lower layers have in that directory is gone; empty: the root.
    Opaque(Vec<u8>),
    /// Bookkeeping of AUFS, of no meaning here.
    Ignored,
}

/// A member's place: its directory and its name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerPath {
    /// Without leading or trailing slash; empty: the root.
    pub(super) parent: Vec<u8>,
    /// Never empty.
    pub(super) name: Vec<u8>,
}

impl LayerPath {
    pub(super) fn joined(&self) -> Vec<u8> {
        join(&self.parent, &self.name)
    }
}

/// Reads a member's name.
pub(super) fn meaning(raw: &[u8]) -> Result<Meaning, UnpackError> {
    let bad = |why: &str| UnpackError::Path {
        path: shown(raw),
        why: why.to_owned(),
    };
    let components = components(raw)?;
    let Some((name, parents)) = components.split_last() else {
        return Ok(Meaning::Root);
    };
    let parent = parents.join(&b'/');
    if parents.iter().any(|part| part.starts_with(META)) {
        return Ok(Meaning::Ignored);
    }
    if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
        return Err(bad("a whiteout is no directory"));
    }
    if *name == OPAQUE {
        return Ok(Meaning::Opaque(parent));
    }
    if name.starts_with(META) {
        return Ok(Meaning::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err(bad("a whiteout of nothing")),
        Some(hidden) => Ok(Meaning::Whiteout(LayerPath {
            parent,
            name: hidden.to_vec(),
        })),
        None => Ok(Meaning::Entry(LayerPath {
            parent,
            name: name.to_vec(),
        })),
    }
}

/// Reads a hard link's target, which is a name like any other.
pub(super) fn target(raw: &[u8]) -> Result<LayerPath, UnpackError> {
    match meaning(raw)? {
        Meaning::Entry(path) => Ok(path),
        _ => Err(UnpackError::Path {
            path: shown(raw),
            why: "a hard link can only lead to a file".to_owned(),
        }),
    }
}

fn components(raw: &[u8]) -> Result<Vec<&[u8]>, UnpackError> {
    let bad = |why: &str| UnpackError::Path {
        path: shown(raw),
        why: why.to_owned(),
    };
    let mut components = Vec::new();
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(bad("it contains `..`")),
            part if part.len() > MAX_COMPONENT_BYTES => return Err(bad("a part is too long")),
            part if part.contains(&0) => return Err(bad("it contains a NUL byte")),
            part => components.push(part),
        }
    }
    Ok(components)
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

/// Fit for a message.
pub(super) fn shown(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        let entry = |parent: &str, name: &str| LayerPath {
            parent: parent.into(),
            name: name.into(),
        };
        for (raw, expected) in [
            ("./", Meaning::Root),
            ("/", Meaning::Root),
            ("a", Meaning::Entry(entry("", "a"))),
            ("./a//b/./c/", Meaning::Entry(entry("a/b", "c"))),
            ("/etc/passwd", Meaning::Entry(entry("etc", "passwd"))),
            ("...", Meaning::Entry(entry("", "..."))),
            ("a/.wh.b", Meaning::Whiteout(entry("a", "b"))),
            (".wh.b", Meaning::Whiteout(entry("", "b"))),
            ("a/.wh..wh..opq", Meaning::Opaque("a".into())),
            (".wh..wh..opq", Meaning::Opaque("".into())),
            (".wh..wh.aufs", Meaning::Ignored),
            (".wh..wh.plnk/1.2", Meaning::Ignored),
            ("a.wh.b", Meaning::Entry(entry("", "a.wh.b"))),
        ] {
            assert_eq!(meaning(raw.as_bytes()), Ok(expected), "{raw}");
        }
        let long = "x".repeat(256);
        for bad in [
            "..", "a/../b", "/../etc", "a/..", ".wh.", ".wh...", "a/.wh..", ".wh.a/b", &long,
        ] {
            assert!(
                matches!(meaning(bad.as_bytes()), Err(UnpackError::Path { .. })),
                "{bad}"
            );
        }
        for bad in ["/", ".wh.a", "../a"] {
            assert!(target(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
