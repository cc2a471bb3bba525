//! Places a layer's members below a root directory, by Docker's rules and overlayfs's marks.
//!
//! Owner: [`super::main`]'s process. Invariant: every path is resolved by the kernel with `root` as
//! its root (`sys::open_in_root`), and the last component is never followed; so nothing
//! outside `root` is touched even where the process is not confined (tests).
//!
//! A later member replaces an earlier one of the same name, as in Docker; a directory merges with a
//! directory; a directory with content is never replaced. Whiteouts only concern lower layers:
//! where the same layer also has that name, its own entry wins, and hides what is below it.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, linkat, mkdirat, mknodat, openat, statat,
        symlinkat, unlinkat,
    },
    io::Errno,
};
use teu_protocol::{
    ids::Digest,
    tar_stream::{Kind, Member, TarError, TarStream},
};

use super::{
    Extracted, UnpackError, UnpackLimits, meta,
    path::{self, LayerPath, Meaning, shown},
};
use crate::sys::open_in_root::open_in_root;

/// What a file takes on disk is counted in these.
const PAGE: u64 = 4096;

const COPY_BYTES: usize = 128 * 1024;

/// Extracts everything; gives the reader back in any case.
pub(super) fn extract<R: Read>(
    root: OwnedFd,
    reader: R,
    limits: &UnpackLimits,
) -> (Result<Extracted, UnpackError>, R) {
    let mut tar = TarStream::new(reader, limits.tar());
    let mut tree = Tree::new(root, *limits);
    let outcome = tree.take_all(&mut tar).and_then(|()| tree.finish());
    (outcome, tar.into_inner())
}

struct Tree {
    root: OwnedFd,
    limits: UnpackLimits,
    /// The directory of the last member: most members share it with the one before.
    recent: Option<(Vec<u8>, OwnedFd)>,
    /// Times that can only be set when nothing more is put into the directory.
    times: Vec<(Vec<u8>, i64, u32)>,
    remembered: usize,
    opaque: BTreeSet<Vec<u8>>,
    members: u64,
    bytes: u64,
    skipped: u64,
    buffer: Vec<u8>,
}

impl Tree {
    fn new(root: OwnedFd, limits: UnpackLimits) -> Self {
        Self {
            root,
            limits,
            recent: None,
            times: Vec::new(),
            remembered: 0,
            opaque: BTreeSet::new(),
            members: 0,
            bytes: 0,
            skipped: 0,
            buffer: vec![0; COPY_BYTES],
        }
    }

    fn take_all<R: Read>(&mut self, tar: &mut TarStream<R>) -> Result<(), UnpackError> {
        while let Some(member) = tar.next_member().map_err(archive)? {
            self.members += 1;
            // The last id means "unchanged" to chown(2).
            if [member.uid, member.gid]
                .iter()
                .any(|id| *id >= u64::from(u32::MAX))
            {
                let why = format!("the owner of `{}` is out of range", shown(&member.path));
                return Err(UnpackError::Archive { why });
            }
            match path::meaning(&member.path)? {
                Meaning::Root => self.root_entry(&member)?,
                Meaning::Ignored => self.skipped += 1,
                Meaning::Opaque(directory) => {
                    self.directory(&directory)?;
                    self.mark_opaque(directory)?;
                }
                Meaning::Whiteout(hidden) => self.whiteout(&hidden)?,
                Meaning::Entry(place) => self.entry(&place, &member, tar)?,
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Extracted, UnpackError> {
        // Deepest first does not matter: setting times does not change a parent.
        for (directory, mtime, nanos) in std::mem::take(&mut self.times) {
            let at = self
                .open_directory(&directory)
                .map_err(|e| failed("open", &directory, e))?;
            let times = meta::times(mtime, nanos);
            rustix::fs::utimensat(&at, "", &times, AtFlags::EMPTY_PATH)
                .map_err(|errno| failed("set the times of", &directory, errno))?;
        }
        Ok(Extracted {
            diff_id: Digest::from_bytes([0; 32]),
            members: self.members,
            bytes: self.bytes,
            skipped: self.skipped,
            opaque: std::mem::take(&mut self.opaque).into_iter().collect(),
        })
    }

    fn entry<R: Read>(
        &mut self,
        place: &LayerPath,
        member: &Member,
        tar: &mut TarStream<R>,
    ) -> Result<(), UnpackError> {
        let full = place.joined();
        match member.kind {
            Kind::CharDevice | Kind::BlockDevice => {
                // A container gets the devices it may have from the node; a 0:0 one would be a
                // whiteout in disguise.
                self.skipped += 1;
                Ok(())
            }
            Kind::File => self.file(place, member, tar),
            Kind::Directory => self.directory_entry(place, &full, member),
            Kind::HardLink => self.hard_link(place, member),
            Kind::Symlink => {
                let make = |parent: BorrowedFd<'_>| symlinkat(&member.link, parent, &place.name);
                self.make(place, "make the symbolic link", make)?;
                self.apply_at(place, member)
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(member.mode);
                let make =
                    |parent: BorrowedFd<'_>| mknodat(parent, &place.name, FileType::Fifo, mode, 0);
                self.make(place, "make the pipe", make)?;
                self.apply_at(place, member)
            }
        }
    }

    fn file<R: Read>(
        &mut self,
        place: &LayerPath,
        member: &Member,
        tar: &mut TarStream<R>,
    ) -> Result<(), UnpackError> {
        let full = place.joined();
        if member.size > self.limits.file_bytes {
            let what = format!("size of `{}`", shown(&full));
            return Err(UnpackError::Limit {
                what,
                limit: self.limits.file_bytes,
            });
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let make = |parent: BorrowedFd<'_>| openat(parent, &place.name, flags, mode);
        let file = self.make(place, "create", make)?;
        let mut left = member.size;
        while left > 0 {
            let count = match tar.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(reading(&error)),
            };
            left -= count as u64;
            write_all(&file, &self.buffer[..count])
                .map_err(|errno| failed("write", &full, errno))?;
        }
        self.bytes += member.size.next_multiple_of(PAGE);
        meta::apply(file.as_fd(), member)
            .and_then(|()| {
                let times = meta::times(member.mtime, member.mtime_nanos);
                rustix::fs::futimens(&file, &times)
            })
            .map_err(|errno| failed("set the attributes of", &full, errno))
    }

    fn directory_entry(
        &mut self,
        place: &LayerPath,
        full: &[u8],
        member: &Member,
    ) -> Result<(), UnpackError> {
        let parent = self.directory(&place.parent)?;
        let kind = kind_at(parent, &place.name).map_err(|errno| failed("look at", full, errno))?;
        if kind != Some(FileType::Directory) {
            let make = |parent: BorrowedFd<'_>| mkdirat(parent, &place.name, Mode::RWXU);
            self.make(place, "make the directory", make)?;
            self.bytes += PAGE;
        }
        if kind == Some(FileType::CharacterDevice) {
            // A whiteout of ours: what was below is gone, and this is new.
            self.mark_opaque(full.to_vec())?;
        }
        let parent = self.directory(&place.parent)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, &place.name, flags, Mode::empty())
            .and_then(|directory| meta::apply(directory.as_fd(), member))
            .map_err(|errno| failed("set the attributes of", full, errno))?;
        self.remember_times(full.to_vec(), member)
    }

    fn root_entry(&mut self, member: &Member) -> Result<(), UnpackError> {
        if member.kind != Kind::Directory {
            return Err(UnpackError::Contradiction {
                path: "/".to_owned(),
            });
        }
        meta::apply(self.root.as_fd(), member)
            .map_err(|errno| failed("set the attributes of", b"/", errno))?;
        self.remember_times(Vec::new(), member)
    }

    fn hard_link(&mut self, place: &LayerPath, member: &Member) -> Result<(), UnpackError> {
        let refused = |why: &str| UnpackError::HardLink {
            path: shown(&member.path),
            target: shown(&member.link),
            why: why.to_owned(),
        };
        let target = path::target(&member.link).map_err(|error| refused(&error.to_string()))?;
        if target == *place {
            return Err(refused("it is itself"));
        }
        let target_parent = self
            .open_directory(&target.parent)
            .map_err(|_| refused("there is no such directory in this layer"))?;
        match kind_at(target_parent.as_fd(), &target.name) {
            Ok(Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo)) => {}
            Ok(None) => return Err(refused("there is no such file in this layer")),
            _ => return Err(refused("only files can have a second name")),
        }
        let make = |parent: BorrowedFd<'_>| {
            linkat(
                &target_parent,
                &target.name,
                parent,
                &place.name,
                AtFlags::empty(),
            )
        };
        self.make(place, "make the hard link", make)
    }

    fn whiteout(&mut self, hidden: &LayerPath) -> Result<(), UnpackError> {
        let full = hidden.joined();
        let parent = self.directory(&hidden.parent)?;
        match kind_at(parent, &hidden.name).map_err(|errno| failed("look at", &full, errno))? {
            // This layer has it anew: only what is below it is hidden.
            Some(FileType::Directory) => self.mark_opaque(full),
            Some(_) => Ok(()),
            // Device 0:0 takes no privilege since Linux 5.8.
            None => mknodat(
                parent,
                &hidden.name,
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )
            .map_err(|errno| failed("make the whiteout", &full, errno)),
        }
    }

    /// Runs `make` in the place's directory; if something is in the way, after removing that.
    fn make<T>(
        &mut self,
        place: &LayerPath,
        action: &str,
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let parent = self.directory(&place.parent)?;
        match make(parent) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|errno| failed(action, &place.joined(), errno)),
        }
        clear(parent, place)?;
        // What was remembered may have been what was removed.
        self.recent = None;
        let parent = self.directory(&place.parent)?;
        make(parent).map_err(|errno| failed(action, &place.joined(), errno))
    }

    fn apply_at(&mut self, place: &LayerPath, member: &Member) -> Result<(), UnpackError> {
        let parent = self.directory(&place.parent)?;
        meta::apply_at(parent, &place.name, member)
            .map_err(|errno| failed("set the attributes of", &place.joined(), errno))
    }

    /// The directory of that path, made with its parents where it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        if !matches!(&self.recent, Some((recent, _)) if recent == path) {
            let directory = match self.open_directory(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(path)?,
                Err(Errno::LOOP) => return Err(UnpackError::Contradiction { path: shown(path) }),
                other => other.map_err(|errno| failed("open the directory", path, errno))?,
            };
            self.recent = Some((path.to_vec(), directory));
        }
        match &self.recent {
            Some((_, directory)) => Ok(directory.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    fn make_directories(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at);
        let mut parent = self
            .open_directory(b"")
            .map_err(|e| failed("open", b"/", e))?;
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let (name, so_far) = (&path[start..end], &path[..end]);
            if kind_at(parent.as_fd(), name) == Ok(Some(FileType::CharacterDevice)) {
                unlinkat(&parent, name, AtFlags::empty())
                    .map_err(|errno| failed("replace", so_far, errno))?;
                self.mark_opaque(so_far.to_vec())?;
            }
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => self.bytes += PAGE,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make the directory", so_far, errno)),
            }
            parent = match self.open_directory(so_far) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    return Err(UnpackError::Contradiction {
                        path: shown(so_far),
                    });
                }
                Err(errno) => return Err(failed("open the directory", so_far, errno)),
            };
            start = end + 1;
        }
        Ok(parent)
    }

    /// Symbolic links on the way are followed inside the root, as in a container.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let none_more = ResolveFlags::empty();
        open_in_root(&self.root, path, flags, Mode::empty(), none_more)
    }

    fn mark_opaque(&mut self, directory: Vec<u8>) -> Result<(), UnpackError> {
        self.remember(directory.len())?;
        self.opaque.insert(directory);
        Ok(())
    }

    fn remember_times(&mut self, directory: Vec<u8>, member: &Member) -> Result<(), UnpackError> {
        self.remember(directory.len())?;
        self.times
            .push((directory, member.mtime, member.mtime_nanos));
        Ok(())
    }

    fn remember(&mut self, length: usize) -> Result<(), UnpackError> {
        // Each costs more than its text.
        self.remembered += length + 64;
        if self.remembered <= self.limits.remembered_bytes {
            return Ok(());
        }
        let what = "length of all its directories' names".to_owned();
        Err(UnpackError::Limit {
            what,
            limit: self.limits.remembered_bytes as u64,
        })
    }
}

/// Removes what has the name; a directory only if it is empty.
fn clear(parent: BorrowedFd<'_>, place: &LayerPath) -> Result<(), UnpackError> {
    let full = place.joined();
    match unlinkat(parent, &place.name, AtFlags::empty()) {
        Err(Errno::ISDIR) => match unlinkat(parent, &place.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => Err(UnpackError::Contradiction { path: shown(&full) }),
            other => other.map_err(|errno| failed("replace", &full, errno)),
        },
        other => other.map_err(|errno| failed("replace", &full, errno)),
    }
}

fn kind_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Errors of the source below a tar stream: the decompressor's.
fn archive(error: TarError) -> UnpackError {
    match &error {
        TarError::Read { source, .. } => reading(source),
        _ => UnpackError::Archive {
            why: error.to_string(),
        },
    }
}

fn reading(error: &io::Error) -> UnpackError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        UnpackError::Archive {
            why: "the archive ends too early".to_owned(),
        }
    } else {
        UnpackError::Decompress {
            why: error.to_string(),
        }
    }
}

fn failed(action: &str, path: &[u8], errno: Errno) -> UnpackError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => UnpackError::DiskFull,
        _ => UnpackError::Io {
            action: action.to_owned(),
            path: shown(path),
            errno: errno.raw_os_error(),
        },
    }
}
