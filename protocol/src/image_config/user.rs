//! Who a process runs as: `USER` of an image or `-u`, resolved against the container's own files.
//!
//! Owner: pure text in, numbers out; the node reads `/etc/passwd` and `/etc/group` out of the
//! container's root, bounded, and hands the text in. Invariant: Docker's rules (moby/sys/user,
//! `GetExecUser`): a number needs no entry, a name does; supplementary groups are those that list
//! the user, unless a group was asked for.

/// The largest id that Docker accepts (2^31 - 1).
const MAX_ID: u32 = i32::MAX as u32;

/// The most supplementary groups of one process: Linux's `NGROUPS_MAX` is far larger, real
/// containers have a handful.
const MAX_GROUPS: usize = 256;

/// A user, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// As seen inside the container.
    pub uid: u32,
    /// Primary group, as seen inside the container.
    pub gid: u32,
    /// Supplementary groups, ascending.
    pub groups: Vec<u32>,
    /// What HOME becomes if nothing else sets it.
    pub home: String,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name without an entry.
    #[error("no user `{0}` in the image's /etc/passwd; use a name it has, or a number")]
    UnknownUser(String),
    /// A group name without an entry.
    #[error("no group `{0}` in the image's /etc/group; use a name it has, or a number")]
    UnknownGroup(String),
    /// A number above 2^31 - 1.
    #[error("user or group number {0} is out of range (0 to {MAX_ID})")]
    OutOfRange(String),
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `spec` (`user`, `uid`, `user:group`, `uid:gid`, empty for root).
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<ResolvedUser, UserError> {
    let (user_spec, group_spec) = spec.split_once(':').unwrap_or((spec, ""));
    let user_spec = if user_spec.is_empty() { "0" } else { user_spec };
    let user_id = user_spec.parse::<u32>().ok();
    let entry =
        passwd_lines(passwd).find(|line| line.name == user_spec || Some(line.uid) == user_id);
    let (name, uid, primary, home) = match (&entry, user_id) {
        (Some(line), _) => (line.name, line.uid, line.gid, line.home),
        (None, Some(uid)) => ("", uid, 0, ""),
        (None, None) if is_number(user_spec) => {
            return Err(UserError::OutOfRange(shown(user_spec)));
        }
        (None, None) => return Err(UserError::UnknownUser(shown(user_spec))),
    };
    let (gid, groups) = if group_spec.is_empty() {
        (primary, supplementary(name, group))
    } else {
        (resolve_group(group_spec, group)?, Vec::new())
    };
    for id in [uid, gid] {
        if id > MAX_ID {
            return Err(UserError::OutOfRange(id.to_string()));
        }
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

/// Resolves one group by name or number.
pub fn resolve_group(spec: &str, group: &str) -> Result<u32, UserError> {
    let id = spec.parse::<u32>().ok();
    let entry = group_lines(group).find(|line| line.name == spec || Some(line.gid) == id);
    match (entry, id) {
        (Some(line), _) => Ok(line.gid),
        (None, Some(gid)) => Ok(gid),
        (None, None) if is_number(spec) => Err(UserError::OutOfRange(shown(spec))),
        (None, None) => Err(UserError::UnknownGroup(shown(spec))),
    }
}

fn supplementary(name: &str, group: &str) -> Vec<u32> {
    if name.is_empty() {
        return Vec::new();
    }
    let mut groups: Vec<u32> = group_lines(group)
        .filter(|line| line.gid <= MAX_ID && line.members.split(',').any(|member| member == name))
        .map(|line| line.gid)
        .take(MAX_GROUPS)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdLine {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupLine {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What somebody typed, short enough to repeat in a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "# users\nroot:x:0:0:root:/root:/bin/sh\n\nwww:x:33:34:www:/var/www:/x\n\
                          nohome:x:40:40\nbroken:x:x:1\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,www\naudio:x:29:www\nwww:x:34:\n";

    #[test]
    fn users_resolve_as_docker_resolves_them() {
        let table: [(&str, u32, u32, &[u32], &str); 9] = [
            ("", 0, 0, &[10], "/root"),
            ("root", 0, 0, &[10], "/root"),
            ("www", 33, 34, &[10, 29], "/var/www"),
            ("33", 33, 34, &[10, 29], "/var/www"),
            ("www:audio", 33, 29, &[], "/var/www"),
            ("www:7777", 33, 7777, &[], "/var/www"),
            ("5000", 5000, 0, &[], "/"),
            ("5000:wheel", 5000, 10, &[], "/"),
            ("nohome", 40, 40, &[], "/"),
        ];
        for (spec, uid, gid, groups, home) in table {
            let expected = ResolvedUser {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "{spec}");
        }
        assert_eq!(
            resolve("0", "", "").map(|user| user.home),
            Ok("/".to_owned())
        );
    }

    #[test]
    fn unknown_names_and_absurd_numbers_are_refused() {
        use UserError::{OutOfRange, UnknownGroup, UnknownUser};
        let fail = |spec: &str| resolve(spec, PASSWD, GROUP).unwrap_err();
        assert_eq!(fail("nobody"), UnknownUser("nobody".into()));
        assert_eq!(fail("broken"), UnknownUser("broken".into()));
        assert_eq!(fail("www:nope"), UnknownGroup("nope".into()));
        assert_eq!(fail("4294967295"), OutOfRange("4294967295".into()));
        assert_eq!(fail("99999999999"), OutOfRange("99999999999".into()));
        assert_eq!(fail("0:2147483648"), OutOfRange("2147483648".into()));
    }
}
