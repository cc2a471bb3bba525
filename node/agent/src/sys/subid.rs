//! Whose ids are whose on this machine: users' ranges of `/etc/subuid` and `/etc/subgid`, and those of TEU's locations.
//!
//! Owner: the agent, when an account is new on the node. A location claims a range by a file named after its first id,
//! which holds the location's data directory. Invariant: a claim is made before the range is used, and
//! is stale once that directory is gone.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use teu_node_core::accounts::IDS_PER_ACCOUNT;

/// What users of this machine have.
const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
/// Of all locations of this machine; outlives each of them.
const CLAIMS: &str = "/var/lib/teu-ids";
/// Larger files than any machine's are not read.
const FILE_BYTES: u64 = 4 << 20;

/// Whether ids from `base` on belong to a user of the machine.
#[must_use]
pub fn user_of(base: u32) -> Option<String> {
    FILES.iter().find_map(|path| {
        let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= FILE_BYTES);
        let text = is_small.then(|| fs::read_to_string(path).ok()).flatten()?;
        owner(&text, base)
    })
}

/// `name:first:count` on each line (subuid(5)).
fn owner(text: &str, base: u32) -> Option<String> {
    let (first, end) = (
        u64::from(base),
        u64::from(base) + u64::from(IDS_PER_ACCOUNT),
    );
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.starts_with('#'))?;
        let from: u64 = fields.next()?.parse().ok()?;
        let count: u64 = fields.next()?.parse().ok()?;
        (from < end && first < from.saturating_add(count)).then(|| name.to_owned())
    })
}

/// Claims the ids from `base` on for the location with this data directory. `false`: another one has them.
///
/// # Errors
/// The claim cannot be written.
pub fn claim(base: u32, data: &Path) -> io::Result<bool> {
    claim_in(Path::new(CLAIMS), base, data)
}

fn claim_in(claims: &Path, base: u32, data: &Path) -> io::Result<bool> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(claims)?;
    let path = claims.join(base.to_string());
    for _ in 0..2 {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path);
        match made {
            Ok(mut file) => return file.write_all(data.as_os_str().as_bytes()).map(|()| true),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        let theirs = PathBuf::from(std::ffi::OsStr::from_bytes(&fs::read(&path)?));
        if theirs == data {
            return Ok(true);
        }
        if theirs.is_dir() {
            return Ok(false);
        }
        // The location is gone, and nothing of it is left.
        fs::remove_file(&path)?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_users_are_found() {
        // useradd's fourteenth user.
        let text = "# x\nann:100000:65536\nzoe:951968:65536\nodd:line\nbig:4000000:4294967295\n";
        assert_eq!(owner(text, 1_000_000).as_deref(), Some("zoe"));
        assert_eq!(owner(text, 1_017_504), None);
        assert_eq!(owner(text, 3_999_999).as_deref(), Some("big"));
        assert_eq!(owner(text, 165_536), None);
    }

    #[test]
    fn two_locations_never_have_the_same_ids() {
        let dir = tempfile::tempdir().unwrap();
        let (claims, a, b) = (
            dir.path().join("ids"),
            dir.path().join("a"),
            dir.path().join("b"),
        );
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        assert!(claim_in(&claims, 1_000_000, &a).unwrap());
        assert!(claim_in(&claims, 1_000_000, &a).unwrap(), "its own again");
        assert!(!claim_in(&claims, 1_000_000, &b).unwrap());
        fs::remove_dir(&a).unwrap();
        assert!(
            claim_in(&claims, 1_000_000, &b).unwrap(),
            "the first is gone"
        );
    }
}
