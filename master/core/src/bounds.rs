//! Requests against their documented bounds: what passes here can be stored and forwarded.
//!
//! The node checks again what only it can (that the image has the user, that paths stay inside).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use teu_protocol::{
    image_config::user::{Owner, check_numbers},
    message::{
        PreBootFile, ProcessSpec, Refusal, ResourceLimits, SnapshotSchedule, SpawnSpec,
        VolumeMount, VolumeSpec,
    },
};

use crate::refusals::bad;

/// Linux takes no longer single string (MAX_ARG_STRLEN).
const WORD_BYTES: usize = 128 << 10;
/// Arguments: a quarter of what Linux passes to a program, 2 MiB with the environment (a quarter of the
/// usual stack, execve(2)). They are shown in lists of containers.
const ARGUMENTS_BYTES: usize = 512 << 10;
/// Variables, names and values: what Linux passes, without [`ARGUMENTS_BYTES`] and some room for the
/// image's own and for the pointers to each.
const ENVIRONMENT_BYTES: usize = 1280 << 10;
/// Arguments, or variables.
const WORDS: usize = 4_096;
/// Labels, each of [`LABEL_BYTES`] for key and for value.
const LABELS: usize = 64;
const LABEL_BYTES: usize = 256;
/// Pre-boot files, together of [`FILES_BYTES`]: they travel in one message of 8 MiB.
const FILES: usize = 256;
const FILES_BYTES: u64 = 4 << 20;
/// Where the kernel's own file systems are: nothing is mounted or written there.
const KERNELS: [&str; 3] = ["proc", "sys", "dev"];
/// Linux's PATH_MAX.
const PATH_BYTES: usize = 4_096;
/// `user:group` by name: 32 bytes each are Linux's usual bound.
const USER_BYTES: usize = 256;
/// A program needs a few pages more than nothing.
const MEMORY_MIN_BYTES: u64 = 4 << 20;
/// The kernel's quota granularity.
const CPU_MIN_MILLIS: u64 = 10;
/// Linux's default of `kernel.pid_max` on small machines; a node may allow less.
const PIDS_MAX: u32 = 32_768;
/// Below this an overlay and its btrfs subvolume hold hardly anything.
const STORAGE_MIN_BYTES: u64 = 16 << 20;
const IMAGE_NAME_BYTES: usize = 512;
/// Volumes of one container: each is a mount of its own.
const MOUNTS: usize = 32;
/// File systems take some hundred KiB for an empty tree.
const QUOTA_MIN_BYTES: u64 = 1 << 20;
/// Making a snapshot takes a pool about a second, when it is busy.
const SCHEDULE_MIN_S: u64 = 10;
const SCHEDULE_MAX_S: u64 = 10 * 366 * 86_400;
/// Pools get slow with more.
const SCHEDULED_MAX: u32 = 1_000;

pub(crate) fn spawn(spec: &SpawnSpec, bulk: &[Bytes]) -> Result<(), Refusal> {
    process(&spec.process)?;
    if let Some(entrypoint) = &spec.entrypoint {
        words("the entrypoint", ARGUMENTS_BYTES, entrypoint.iter())?;
    }
    labels("a container", &spec.labels)?;
    mounts(&spec.volumes)?;
    if spec.image_name.len() > IMAGE_NAME_BYTES {
        return Err(bad(format!(
            "an image's name has at most {IMAGE_NAME_BYTES} bytes"
        )));
    }
    if let Some(name) = &spec.hostname {
        hostname(name)?;
    }
    limits(&spec.limits)?;
    files(&spec.files, bulk)
}

pub(crate) fn process(spec: &ProcessSpec) -> Result<(), Refusal> {
    words("the command", ARGUMENTS_BYTES, spec.args.iter().flatten())?;
    let words_of_command = spec.args.as_ref().map_or(0, Vec::len);
    if words_of_command > WORDS {
        return Err(bad(format!(
            "the command has {words_of_command} words, and at most {WORDS} are accepted"
        )));
    }
    let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
    if spec.env.len() > WORDS {
        return Err(bad(format!(
            "the environment has more than {WORDS} variables. Use a pre-boot file"
        )));
    }
    words("the environment", ENVIRONMENT_BYTES, variables)?;
    if spec
        .env
        .iter()
        .any(|(name, _)| name.is_empty() || name.contains('='))
    {
        return Err(bad("a variable's name is not empty and has no `=`"));
    }
    let plain = |text: &str, most: usize| text.len() <= most && !text.contains('\0');
    if spec
        .user
        .as_ref()
        .is_some_and(|user| user.is_empty() || !plain(user, USER_BYTES))
    {
        return Err(bad(format!(
            "a user has 1 to {USER_BYTES} bytes: `name`, `uid`, `uid:gid`"
        )));
    }
    if let Some(user) = &spec.user {
        check_numbers(user).map_err(|error| bad(error.to_string()))?;
    }
    if spec
        .workdir
        .as_ref()
        .is_some_and(|dir| !dir.starts_with('/') || !plain(dir, PATH_BYTES))
    {
        return Err(bad(
            "a working directory is an absolute path of at most 4096 bytes",
        ));
    }
    Ok(())
}

pub(crate) fn volume(spec: &VolumeSpec) -> Result<(), Refusal> {
    labels("a volume", &spec.labels)?;
    quota(spec.quota_bytes)?;
    schedule(spec.schedule.as_ref())
}

pub(crate) fn quota(bytes: Option<u64>) -> Result<(), Refusal> {
    if bytes.is_some_and(|bytes| bytes < QUOTA_MIN_BYTES) {
        return Err(bad("a volume's quota is at least 1 MiB"));
    }
    // Beyond this, file systems' own numbers end.
    if bytes.is_some_and(|bytes| bytes > 1 << 60) {
        return Err(bad("the quota is beyond any pool"));
    }
    Ok(())
}

pub(crate) fn schedule(schedule: Option<&SnapshotSchedule>) -> Result<(), Refusal> {
    let Some(SnapshotSchedule { every_s, keep }) = schedule else {
        return Ok(());
    };
    if !(SCHEDULE_MIN_S..=SCHEDULE_MAX_S).contains(every_s) {
        return Err(bad(
            "between two snapshots of a schedule lie at least 10 seconds and at most ten years",
        ));
    }
    if !(1..=SCHEDULED_MAX).contains(keep) {
        return Err(bad("a schedule keeps 1 to 1000 snapshots"));
    }
    Ok(())
}

fn labels(whose: &str, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > LABELS {
        return Err(bad(format!("{whose} has at most {LABELS} labels")));
    }
    let fits = |text: &str| text.len() <= LABEL_BYTES && !text.contains('\0');
    if !labels
        .iter()
        .all(|(key, value)| !key.is_empty() && fits(key) && fits(value))
    {
        return Err(bad(format!(
            "a label's key and value have at most {LABEL_BYTES} bytes each"
        )));
    }
    Ok(())
}

fn mounts(mounts: &[VolumeMount]) -> Result<(), Refusal> {
    if mounts.len() > MOUNTS {
        return Err(bad(format!("a container has at most {MOUNTS} volumes")));
    }
    let mut taken = BTreeSet::new();
    for VolumeMount { path, .. } in mounts {
        let parts: Vec<_> = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let fits = path.starts_with('/')
            && path.len() <= PATH_BYTES
            && !path.contains('\0')
            && !parts.contains(&"..")
            && parts.first().is_some_and(|first| !KERNELS.contains(first));
        let shown: String = path.chars().take(80).collect();
        if !fits {
            return Err(bad(format!(
                "a volume cannot be mounted on `{shown}`: the path is absolute, has no `..`, and is \
                 not `/` nor in /proc, /sys or /dev"
            )));
        }
        if !taken.insert(parts) {
            return Err(bad(format!("two volumes are to be mounted on `{shown}`")));
        }
    }
    Ok(())
}

pub(crate) fn signal(number: u8) -> Result<(), Refusal> {
    if (1..=64).contains(&number) {
        Ok(())
    } else {
        Err(bad("a signal is a number from 1 to 64"))
    }
}

fn words<'a>(
    what: &str,
    most_bytes: usize,
    words: impl Iterator<Item = &'a String>,
) -> Result<(), Refusal> {
    let (mut count, mut bytes) = (0_usize, 0);
    for word in words {
        count += 1;
        bytes += word.len() + 1;
        if word.contains('\0') {
            return Err(bad(format!(
                "{what} has a NUL character, which no program can be given"
            )));
        }
        // A variable is two: its name and its value.
        if word.len() >= WORD_BYTES || bytes > most_bytes || count > 2 * WORDS {
            return Err(bad(format!(
                "{what} is too long: each word has below {WORD_BYTES} bytes, and all together at \
                 most {most_bytes}. Use a pre-boot file"
            )));
        }
    }
    Ok(())
}

fn hostname(name: &str) -> Result<(), Refusal> {
    let fits = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
        && !name.starts_with('-');
    if fits {
        Ok(())
    } else {
        Err(bad("a host name has 1 to 63 letters, digits and dashes"))
    }
}

fn limits(limits: &ResourceLimits) -> Result<(), Refusal> {
    if limits
        .memory_bytes
        .is_some_and(|bytes| bytes < MEMORY_MIN_BYTES)
    {
        return Err(bad("a container needs at least 4 MiB of memory"));
    }
    // The upper bounds only keep sums from overflowing: no machine has as much.
    if limits.memory_bytes.is_some_and(|bytes| bytes > 1 << 50)
        || limits.cpu_millis.is_some_and(|millis| millis > 1 << 30)
    {
        return Err(bad("the limits are beyond any machine"));
    }
    if limits
        .cpu_millis
        .is_some_and(|millis| millis < CPU_MIN_MILLIS)
    {
        return Err(bad("a container needs at least a hundredth of a core"));
    }
    if limits
        .pids
        .is_some_and(|pids| !(1..=PIDS_MAX).contains(&pids))
    {
        return Err(bad(format!(
            "a container's limit of processes is 1 to {PIDS_MAX}"
        )));
    }
    if limits
        .storage_bytes
        .is_some_and(|bytes| !(STORAGE_MIN_BYTES..=1 << 50).contains(&bytes))
    {
        return Err(bad(
            "a container's storage is at least 16 MiB, and not beyond any disk",
        ));
    }
    Ok(())
}

fn files(files: &[PreBootFile], bulk: &[Bytes]) -> Result<(), Refusal> {
    if files.len() > FILES {
        return Err(bad(format!(
            "a container has at most {FILES} pre-boot files"
        )));
    }
    for file in files {
        let path = &file.path;
        let fits = path.starts_with('/')
            && !path.ends_with('/')
            && path.len() <= PATH_BYTES
            && !path.contains('\0')
            && !path.split('/').any(|part| part == "..");
        if !fits {
            return Err(bad(format!(
                "`{}` cannot be a pre-boot file's path: it is absolute and has no `..`",
                path.chars().take(80).collect::<String>()
            )));
        }
        let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        if parts.next().is_some_and(|first| KERNELS.contains(&first)) {
            return Err(bad(format!(
                "the file `{}` cannot be written: nothing can be made in /proc, /sys and /dev",
                path.chars().take(80).collect::<String>()
            )));
        }
        if file.mode > 0o7777 {
            return Err(bad("a file's mode is at most 7777 (octal)"));
        }
        Owner::of(file.uid, file.gid)
            .map_err(|error| bad(format!("the owner of the file `{path}`: {error}")))?;
    }
    let promised = files
        .iter()
        .fold(0u64, |sum, file| sum.saturating_add(file.size));
    if promised > FILES_BYTES {
        return Err(bad(
            "pre-boot files have at most 4 MiB together. Put more into the image",
        ));
    }
    let sent: u64 = bulk.iter().map(|part| part.len() as u64).sum();
    if promised != sent {
        return Err(bad(format!(
            "the pre-boot files should have {promised} bytes, and {sent} came with the request"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
