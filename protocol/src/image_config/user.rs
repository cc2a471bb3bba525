//! Who a process runs as: `USER` of an image or `-u`, resolved against the container's own files.
//!
//! Owner: pure text in, ids out; the node reads `/etc/passwd` and `/etc/group` in the container,
//! bounded, and hands the text in. Invariants: an id that leaves this file is one that the container's
//! user namespace maps, so never the -1 that setresuid(2) takes for "unchanged"; and Docker's rules
//! (moby/sys/user, `GetExecUser`): a number needs no entry, a name does; the first line that has
//! the name or the number counts; supplementary groups are those that list the user, unless a group
//! was asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most supplementary groups of one process: Linux's `NGROUPS_MAX` is far larger, real
/// containers have a handful.
const MAX_GROUPS: usize = 256;

/// A user's or a group's number as a container sees it: one that its range on the host maps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "i64", into = "i64")]
pub struct IdInContainer(u16);

impl IdInContainer {
    /// Root's, and root's group's.
    pub const ROOT: Self = Self(0);
    /// How many there are: each account has a range of as many on each node.
    pub const COUNT: u32 = u16::MAX as u32 + 1;

    /// An id that fits by its type.
    #[must_use]
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for IdInContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<IdInContainer> for i64 {
    fn from(id: IdInContainer) -> Self {
        Self::from(id.0)
    }
}

/// A number that no container's range maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{id} is outside of the user and group numbers that a container has (0 to {last})")]
pub struct IdOutOfRange {
    id: i64,
    last: u32,
}

impl TryFrom<i64> for IdInContainer {
    type Error = IdOutOfRange;

    fn try_from(id: i64) -> Result<Self, IdOutOfRange> {
        let last = Self::COUNT - 1;
        u16::try_from(id)
            .map(Self)
            .map_err(|_| IdOutOfRange { id, last })
    }
}

impl TryFrom<u32> for IdInContainer {
    type Error = IdOutOfRange;

    fn try_from(id: u32) -> Result<Self, IdOutOfRange> {
        Self::try_from(i64::from(id))
    }
}

/// Whom a file inside a container belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: IdInContainer,
    /// The group.
    pub gid: IdInContainer,
}

impl Owner {
    /// The container's root.
    pub const ROOT: Self = Self {
        uid: IdInContainer::ROOT,
        gid: IdInContainer::ROOT,
    };

    /// # Errors
    /// A number that no container has.
    pub fn of(uid: u32, gid: u32) -> Result<Self, IdOutOfRange> {
        Ok(Self {
            uid: uid.try_into()?,
            gid: gid.try_into()?,
        })
    }
}

/// A user, resolved: an identity inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: IdInContainer,
    /// The primary group.
    pub gid: IdInContainer,
    /// Supplementary groups, ascending, without the primary one.
    pub groups: Vec<IdInContainer>,
    /// What HOME becomes if nothing else sets it.
    pub home: String,
}

impl Identity {
    /// Who owns what is made for it.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            gid: self.gid,
        }
    }
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name without an entry.
    #[error("no user `{0}` in the container's /etc/passwd; use a name it has, or a number")]
    UnknownUser(String),
    /// A group name without an entry.
    #[error("no group `{0}` in the container's /etc/group; use a name it has, or a number")]
    UnknownGroup(String),
    /// A number that the container's range does not map.
    #[error(
        "{what} number {number} is outside of the numbers that a container has (0 to {}); choose \
         one of those, for example `-u 1000:1000`, and give it the files that it needs",
        IdInContainer::COUNT - 1
    )]
    OutOfRange {
        /// A user's, a group's.
        what: &'static str,
        /// As it was written.
        number: String,
    },
    /// More groups than a process is given here.
    #[error(
        "user `{0}` is in more than {MAX_GROUPS} groups of the container's /etc/group; choose one: \
         `-u user:group`"
    )]
    TooManyGroups(String),
}

/// Looks only at the numbers in `spec`, for whoever has no container at hand.
///
/// # Errors
/// A number that no container has.
pub fn check_numbers(spec: &str) -> Result<(), UserError> {
    UserSpec::parse(spec).map(drop)
}

/// Resolves `spec` (`user`, `uid`, `user:group`, `uid:gid`, empty for root).
///
/// # Errors
/// A name that the files do not have, or a number that no container has.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let spec = UserSpec::parse(spec)?;
    let entry = passwd_lines(passwd).find(|line| spec.user.is(line.name, line.uid));
    let (name, uid, primary, home) = match (&entry, spec.user.number) {
        (Some(line), _) => (line.name, in_range("user", line.uid)?, line.gid, line.home),
        (None, Some(uid)) => ("", uid, 0, ""),
        (None, None) => return Err(UserError::UnknownUser(shown(spec.user.text))),
    };
    let (gid, groups) = match spec.group {
        None => {
            let primary = in_range("group", primary)?;
            (primary, supplementary(name, primary, group)?)
        }
        Some(wanted) => (wanted.group(group)?, Vec::new()),
    };
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

/// `user[:group]`, its numbers checked.
struct UserSpec<'a> {
    user: NameOrNumber<'a>,
    group: Option<NameOrNumber<'a>>,
}

impl<'a> UserSpec<'a> {
    fn parse(spec: &'a str) -> Result<Self, UserError> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let user = if user.is_empty() { "0" } else { user };
        let group = Some(group).filter(|group| !group.is_empty());
        Ok(Self {
            user: NameOrNumber::parse("user", user)?,
            group: group
                .map(|group| NameOrNumber::parse("group", group))
                .transpose()?,
        })
    }
}

/// Either half of it. A number may also be somebody's name.
#[derive(Clone, Copy)]
struct NameOrNumber<'a> {
    text: &'a str,
    number: Option<IdInContainer>,
}

impl<'a> NameOrNumber<'a> {
    fn parse(what: &'static str, text: &'a str) -> Result<Self, UserError> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number {
            let id = text.parse::<i64>().ok();
            let id = id.and_then(|id| IdInContainer::try_from(id).ok());
            Some(id.ok_or_else(|| out_of_range(what, text))?)
        } else {
            None
        };
        Ok(Self { text, number })
    }

    fn is(&self, name: &str, id: i64) -> bool {
        name == self.text || self.number.is_some_and(|number| i64::from(number) == id)
    }

    fn group(&self, group: &str) -> Result<IdInContainer, UserError> {
        match group_lines(group).find(|line| self.is(line.name, line.gid)) {
            Some(line) => in_range("group", line.gid),
            None => self
                .number
                .ok_or_else(|| UserError::UnknownGroup(shown(self.text))),
        }
    }
}

fn supplementary(
    name: &str,
    primary: IdInContainer,
    group: &str,
) -> Result<Vec<IdInContainer>, UserError> {
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let mut groups = Vec::new();
    for line in group_lines(group) {
        if !line.members.split(',').any(|member| member == name) {
            continue;
        }
        let gid = in_range("group", line.gid)?;
        if gid == primary || groups.contains(&gid) {
            continue;
        }
        if groups.len() == MAX_GROUPS {
            return Err(UserError::TooManyGroups(shown(name)));
        }
        groups.push(gid);
    }
    groups.sort_unstable();
    Ok(groups)
}

fn in_range(what: &'static str, id: i64) -> Result<IdInContainer, UserError> {
    IdInContainer::try_from(id).map_err(|_| out_of_range(what, &id.to_string()))
}

fn out_of_range(what: &'static str, number: &str) -> UserError {
    let number = shown(number);
    UserError::OutOfRange { what, number }
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: i64,
    gid: i64,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: i64,
    members: &'a str,
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

/// What somebody typed, short enough to repeat in a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "# users\nroot:x:0:0:root:/root:/bin/sh\n\nwww:x:33:34:www:/var/www:/x\n\
                          nohome:x:40:40\nbroken:x:x:1\n77:x:5:5::/odd:\nbig:x:1000680000:0::/:\n\
                          minus:x:4294967295:0::/:\nworse:x:7:-1::/:\nfar:x:8:8::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,www\naudio:x:29:www\nwww:x:34:www\n\
                         minus:x:4294967295:\nmany:x:70000:far\n";

    #[test]
    fn users_resolve_as_docker_resolves_them() {
        let table: [(&str, u16, u16, &[u16], &str); 13] = [
            ("", 0, 0, &[10], "/root"),
            ("root", 0, 0, &[10], "/root"),
            ("www", 33, 34, &[10, 29], "/var/www"),
            ("33", 33, 34, &[10, 29], "/var/www"),
            ("+33", 33, 34, &[10, 29], "/var/www"),
            ("www:audio", 33, 29, &[], "/var/www"),
            ("www:7777", 33, 7777, &[], "/var/www"),
            ("5000", 5000, 0, &[], "/"),
            ("5000:wheel", 5000, 10, &[], "/"),
            ("65535:65535", 65_535, 65_535, &[], "/"),
            ("nohome", 40, 40, &[], "/"),
            (":44", 0, 44, &[], "/root"),
            // A number that is a name.
            ("77", 5, 5, &[], "/odd"),
        ];
        for (spec, uid, gid, groups, home) in table {
            let expected = Identity {
                uid: IdInContainer::new(uid),
                gid: IdInContainer::new(gid),
                groups: groups.iter().copied().map(IdInContainer::new).collect(),
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
    fn unknown_names_are_refused() {
        let fail = |spec: &str| resolve(spec, PASSWD, GROUP).unwrap_err();
        assert_eq!(fail("nobody"), UserError::UnknownUser("nobody".into()));
        assert_eq!(fail("broken"), UserError::UnknownUser("broken".into()));
        assert_eq!(fail("www:nope"), UserError::UnknownGroup("nope".into()));
    }

    #[test]
    fn numbers_that_no_container_has_are_refused_wherever_they_stand() {
        for spec in [
            "4294967295",
            "-1",
            "65536",
            "1000680000",
            "99999999999999999999",
            "0:4294967295",
            "0:-1",
            "0:65536",
            "www:2147483648",
        ] {
            let refused = |error| matches!(error, UserError::OutOfRange { .. });
            assert!(check_numbers(spec).is_err_and(refused), "{spec}");
            assert!(
                resolve(spec, PASSWD, GROUP).is_err_and(refused),
                "{spec} with files"
            );
            assert!(
                resolve(spec, "", "").is_err_and(refused),
                "{spec} without files"
            );
        }
        // In the files: nobody looks at them before the node does.
        for spec in ["big", "minus", "worse", "0:minus", "far"] {
            assert_eq!(check_numbers(spec), Ok(()), "{spec}");
            let error = resolve(spec, PASSWD, GROUP).unwrap_err();
            assert!(
                matches!(error, UserError::OutOfRange { .. }),
                "{spec}: {error}"
            );
        }
        let text = check_numbers("1000680000").unwrap_err().to_string();
        for part in ["1000680000", "0 to 65535", "-u 1000"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn groups_beyond_the_bound_are_refused_and_not_left_out() {
        let group: String = (0..300)
            .map(|gid| format!("g{gid}:x:{gid}:www\n"))
            .collect();
        let error = resolve("www", PASSWD, &group).unwrap_err();
        assert_eq!(error, UserError::TooManyGroups("www".into()));
        assert!(resolve("www:g7", PASSWD, &group).is_ok());
    }

    #[test]
    fn an_id_keeps_its_bounds_when_it_is_decoded() {
        for (number, fits) in [(0_i64, true), (65_535, true), (65_536, false), (-1, false)] {
            let bytes = rmp_serde::to_vec(&number).unwrap();
            assert_eq!(
                rmp_serde::from_slice::<IdInContainer>(&bytes).is_ok(),
                fits,
                "{number}"
            );
        }
        let minus_one = rmp_serde::to_vec(&u32::MAX).unwrap();
        assert!(rmp_serde::from_slice::<IdInContainer>(&minus_one).is_err());
    }

    proptest! {
        /// The type cannot hold others; what is promised here is that nothing wraps into it.
        #[test]
        fn a_number_is_itself_or_refused(id: i64, gid: i64) {
            let spec = format!("{id}:{gid}");
            let fits = |id: i64| (0..65_536).contains(&id);
            match resolve(&spec, PASSWD, GROUP) {
                Ok(found) => {
                    prop_assert!(fits(id) && fits(gid));
                    prop_assert_eq!(i64::from(found.gid), gid);
                }
                Err(error) => prop_assert!(!fits(id) || !fits(gid), "{}", error),
            }
        }

        #[test]
        fn whatever_the_files_say_nothing_panics(spec in ".*", passwd in ".*", group in ".*") {
            let _ = resolve(&spec, &passwd, &group);
        }
    }
}
