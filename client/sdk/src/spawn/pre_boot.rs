//! Files that exist before a container's first process runs.

use std::fmt;

use bytes::Bytes;
use teu_protocol::message::PreBootFile;

use crate::error::{Error, Result};

/// All files of one container together, in bytes.
const MAX_TOTAL_BYTES: usize = 4 * 1024 * 1024;

/// A file to be written before anything runs.
#[derive(Clone)]
pub struct PreBoot {
    path: String,
    content: Bytes,
    mode: u32,
    uid: u32,
    gid: u32,
    secret: bool,
}

impl PreBoot {
    /// Text at an absolute path; mode 0644, owned by root.
    #[must_use]
    pub fn text(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self::bytes(path, content.into().into_bytes())
    }

    /// Bytes at an absolute path; mode 0644, owned by root.
    #[must_use]
    pub fn bytes(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        let (path, content) = (path.into(), content.into());
        Self {
            path,
            content,
            mode: 0o644,
            uid: 0,
            gid: 0,
            secret: false,
        }
    }

    /// Permission bits, such as 0o600.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Owner and group, as numbers inside the container.
    #[must_use]
    pub const fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Keeps the content in memory only, never logged and never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) fn content(&self) -> Bytes {
        self.content.clone()
    }
}

impl fmt::Debug for PreBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secret or not, contents do not belong in logs.
        f.debug_struct("PreBoot")
            .field("path", &self.path)
            .field("size", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// As the request tells of them; their contents travel beside it in the same order.
pub(super) fn described(files: &[PreBoot]) -> Result<Vec<PreBootFile>> {
    let total: usize = files.iter().map(|file| file.content.len()).sum();
    if total > MAX_TOTAL_BYTES {
        let why = format!("its files have {total} bytes together, and at most 4 MiB are allowed");
        return Err(Error::Invalid {
            attempt: super::ATTEMPT,
            why,
        });
    }
    let describe = |file: &PreBoot| PreBootFile {
        path: file.path.clone(),
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        secret: file.secret,
        size: file.content.len() as u64,
    };
    Ok(files.iter().map(describe).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_never_shown_and_too_much_is_refused_here() {
        let file = PreBoot::text("/run/key", "sesame").secret();
        assert!(!format!("{file:?}").contains("sesame"));
        assert_eq!(described(&[file]).unwrap()[0].size, 6);
        let big = PreBoot::bytes("/big", vec![0; MAX_TOTAL_BYTES]);
        assert!(described(std::slice::from_ref(&big)).is_ok());
        assert!(described(&[big, PreBoot::text("/one", "x")]).is_err());
    }
}
