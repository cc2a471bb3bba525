//! Who a container's process runs as: `User` of an image against its passwd and group files.
//!
//! Pure: the files' texts are inputs. Invariant: a name that is not in the files is refused,
//! a number is taken as it is. Used by the stub and by exec; the files are read by `rootfs`.

/// An identity inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, without `gid`.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Why a `User` names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    #[error("user `{0}` is not in the container's /etc/passwd")]
    UnknownUser(String),
    #[error("group `{0}` is not in the container's /etc/group")]
    UnknownGroup(String),
}

/// Resolves `name`, `uid`, `name:group`, `uid:gid` and mixtures; empty means root.
///
/// # Errors
/// A name that the files do not have.
pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd_entries(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| passwd_entries(passwd).find(|entry| Some(entry.uid) == number));
    let (uid, primary, home) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home),
        (None, Some(uid)) => (uid, 0, ""),
        (None, None) => return Err(UserError::UnknownUser(user.to_owned())),
    };
    let gid = match wanted_group {
        None => primary,
        Some(wanted) => group_entries(group)
            .find(|entry| entry.name == wanted)
            .map(|entry| entry.gid)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))?,
    };
    // As Docker does: an explicit group replaces the ones that the files list.
    let groups = match (&entry, wanted_group) {
        (Some(entry), None) => group_entries(group)
            .filter(|line| line.gid != gid && line.members.split(',').any(|m| m == entry.name))
            .map(|line| line.gid)
            .collect(),
        _ => Vec::new(),
    };
    let home = match home {
        "" if uid == 0 => "/root",
        "" => "/",
        home => home,
    };
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry {
            name,
            uid,
            gid,
            home,
        })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:34:w:/var/www:/bin/sh\n77:x:5:5::/odd:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nadm:x:4:root,web\nvideo:x:44:web\n";

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        }
    }

    #[test]
    fn resolves_as_docker_does() {
        let table = [
            ("", Ok(identity(0, 0, &[4], "/root"))),
            ("root", Ok(identity(0, 0, &[4], "/root"))),
            ("web", Ok(identity(33, 34, &[4, 44], "/var/www"))),
            ("33", Ok(identity(33, 34, &[4, 44], "/var/www"))),
            ("web:adm", Ok(identity(33, 4, &[], "/var/www"))),
            ("web:1000", Ok(identity(33, 1000, &[], "/var/www"))),
            ("1234", Ok(identity(1234, 0, &[], "/"))),
            ("1234:5678", Ok(identity(1234, 5678, &[], "/"))),
            // A name wins over a number, as in Docker.
            ("77", Ok(identity(5, 5, &[], "/odd"))),
            (":44", Ok(identity(0, 44, &[], "/root"))),
            ("nobody", Err(UserError::UnknownUser("nobody".into()))),
            ("web:none", Err(UserError::UnknownGroup("none".into()))),
        ];
        for (user, expected) in table {
            assert_eq!(resolve(user, PASSWD, GROUP), expected, "user {user:?}");
        }
    }

    #[test]
    fn numbers_need_no_files() {
        assert_eq!(resolve("7:8", "", ""), Ok(identity(7, 8, &[], "/")));
        assert_eq!(resolve("", "", ""), Ok(identity(0, 0, &[], "/root")));
    }
}
