//! A strict, bounded reader of tar streams: image archives on the client, layers on the node.
//!
//! Owner: whoever holds the reader. Why not the `tar` crate's: it reads long names and PAX records
//! into memory whatever they claim to weigh, and in its raw mode it cannot skip members whose size
//! stands in a PAX record. Invariant: memory is bounded by [`TarLimits`], a member's data never
//! runs into the next header, and nothing is opened or written here. Interpretation follows Go's
//! `archive/tar`, because Docker is what wrote the archives.
//!
//! Formats: v7, ustar, PAX (path, linkpath, size, uid, gid, mtime, `SCHILY.xattr.*`), GNU long
//! names and base-256 numbers. Sparse members are refused (no image builder writes them).
//! Next: `header` for one 512-byte block, `pax` for extended records.

mod header;
mod pax;

use std::io::{self, Read, Seek, SeekFrom};

use header::{BLOCK, Header};

/// What a stream may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarLimits {
    /// Members, extension headers not counted.
    pub members: u64,
    /// Bytes of one member's path or link target. Linux's `PATH_MAX` is 4,096.
    pub path_bytes: usize,
    /// Bytes of one member's PAX records: an xattr is at most 64 KiB on Linux.
    pub extension_bytes: u64,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self {
            members: 1_000_000,
            path_bytes: 4_096,
            extension_bytes: 1024 * 1024,
        }
    }
}

/// Extension headers in front of one member: PAX, GNU long name, GNU long link and a global one.
const MAX_EXTENSIONS: usize = 8;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, with data.
    File,
    /// Another name of an earlier member.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member's header, extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As written, without trailing slashes; not validated beyond "no NUL".
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of data that follow.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_nanos: u32,
    /// Extended attributes, in the order written.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where in the stream its data begins.
    pub data_offset: u64,
}

/// Why a stream is not an acceptable tar archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed.
    #[error("the archive cannot be read at byte {at}")]
    Read {
        /// Position in the stream.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ends within a header or within data.
    #[error("the archive ends too early, at byte {at}")]
    Truncated {
        /// Position in the stream.
        at: u64,
    },
    /// A block that is no header.
    #[error("not a tar archive, or a damaged one: {what} at byte {at}")]
    Malformed {
        /// Position of the block.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A kind of member that is not understood.
    #[error("the archive holds a member of the unsupported type `{}` at byte {at}", *.code as char)]
    Unsupported {
        /// Position of its header.
        at: u64,
        /// The type flag.
        code: u8,
    },
    /// One of [`TarLimits`].
    #[error("the archive exceeds a limit: {what} (at most {limit}), at byte {at}")]
    Limit {
        /// Position in the stream.
        at: u64,
        /// Which.
        what: &'static str,
        /// How much is accepted.
        limit: u64,
    },
}

/// Reads members one after another; as a [`Read`] it is the current member's data.
#[derive(Debug)]
pub struct TarStream<R> {
    reader: R,
    limits: TarLimits,
    position: u64,
    members: u64,
    /// Data of the current member that has not been read.
    data_left: u64,
    /// Zeros after it up to the next block.
    padding: u64,
    finished: bool,
}

#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: pax::Records,
}

impl<R: Read> TarStream<R> {
    /// Starts at the stream's current position, which counts as byte 0.
    pub fn new(reader: R, limits: TarLimits) -> Self {
        Self {
            reader,
            limits,
            position: 0,
            members: 0,
            data_left: 0,
            padding: 0,
            finished: false,
        }
    }

    /// The next member, or `None` at the end. Unread data of the previous one is read and dropped.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        self.advance(|reader, count| {
            let copied = io::copy(&mut reader.take(count), &mut io::sink())?;
            if copied == count {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        })
    }

    /// As [`Self::next_member`], but seeks over unread data (whether it is all there must be
    /// checked against the length of the source).
    pub fn next_member_seeking(&mut self) -> Result<Option<Member>, TarError>
    where
        R: Seek,
    {
        self.advance(|reader, count| {
            let count = i64::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
            reader.seek(SeekFrom::Current(count)).map(drop)
        })
    }

    /// The underlying reader, for instance to drain what follows the archive's end.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn advance(
        &mut self,
        skip: fn(&mut R, u64) -> io::Result<()>,
    ) -> Result<Option<Member>, TarError> {
        if self.finished {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        for _ in 0..=MAX_EXTENSIONS {
            self.skip_rest(skip)?;
            let at = self.position;
            let Some(header) = self.next_header()? else {
                self.finished = true;
                return Ok(None);
            };
            match header.type_flag() {
                b'x' => extensions.pax = self.read_pax(&header, at)?,
                b'L' => extensions.long_name = Some(self.read_long_name(&header, at)?),
                b'K' => extensions.long_link = Some(self.read_long_name(&header, at)?),
                // Global records: comments of `git archive`. Go and Docker ignore them.
                b'g' => drop(self.read_extension(&header, at, self.limits.extension_bytes)?),
                _ => return self.member(&header, extensions, at).map(Some),
            }
        }
        let limit = MAX_EXTENSIONS as u64;
        Err(TarError::Limit {
            at: self.position,
            what: "extension headers of one member",
            limit,
        })
    }

    fn member(
        &mut self,
        header: &Header,
        extensions: Extensions,
        at: u64,
    ) -> Result<Member, TarError> {
        let Extensions {
            long_name,
            long_link,
            pax,
        } = extensions;
        let malformed = |what| TarError::Malformed { at, what };
        if pax.sparse {
            return Err(TarError::Unsupported { at, code: b'S' });
        }
        let mut path = pax.path.or(long_name).unwrap_or_else(|| header.path());
        let link = pax.link.or(long_link).unwrap_or_else(|| header.link());
        let kind = kind_of(header.type_flag(), &path).ok_or(TarError::Unsupported {
            at,
            code: header.type_flag(),
        })?;
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        for text in [&path, &link] {
            if text.contains(&0) {
                return Err(malformed("a NUL byte in a path"));
            }
            self.check_limit(
                text.len() as u64,
                self.limits.path_bytes as u64,
                "length of a path",
            )?;
        }
        if path.is_empty() {
            return Err(malformed("a member without a name"));
        }
        // Number fields that are not numbers are as Go treats them: an error.
        let number = |field: Option<u64>, what| field.ok_or(malformed(what));
        let written = number(header.size(), "a size that is not a number")?;
        let size = if kind == Kind::File {
            pax.size.unwrap_or(written)
        } else {
            0
        };
        let uid = match pax.uid {
            Some(uid) => uid,
            None => number(header.uid(), "an owner that is not a number")?,
        };
        let gid = match pax.gid {
            Some(gid) => gid,
            None => number(header.gid(), "a group that is not a number")?,
        };
        let mode = number(header.mode(), "a mode that is not a number")?;
        let (mtime, mtime_nanos) = match pax.mtime {
            Some(mtime) => mtime,
            None => (
                header
                    .mtime()
                    .ok_or(malformed("a time that is not a number"))?,
                0,
            ),
        };
        self.members += 1;
        self.check_limit(self.members, self.limits.members, "number of members")?;
        self.expect_data(size)?;
        Ok(Member {
            path,
            kind,
            link,
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            uid,
            gid,
            size,
            mtime,
            mtime_nanos,
            xattrs: pax.xattrs,
            data_offset: self.position,
        })
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        let at = self.position;
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block != [0; BLOCK] {
            let what = "a header whose checksum is wrong";
            return Header::checked(block)
                .ok_or(TarError::Malformed { at, what })
                .map(Some);
        }
        match self.read_block()? {
            Some(second) if second != [0; BLOCK] => Err(TarError::Malformed {
                at,
                what: "a lone zero block",
            }),
            // Two zero blocks, or one and the end: writers disagree, readers accept both.
            _ => Ok(None),
        }
    }

    /// `None` at a clean end.
    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.read_some(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(TarError::Truncated { at: self.position }),
                count => filled += count,
            }
        }
        Ok(Some(block))
    }

    fn read_pax(&mut self, header: &Header, at: u64) -> Result<pax::Records, TarError> {
        let bytes = self.read_extension(header, at, self.limits.extension_bytes)?;
        pax::Records::parse(&bytes).ok_or(TarError::Malformed {
            at,
            what: "a bad PAX record",
        })
    }

    fn read_long_name(&mut self, header: &Header, at: u64) -> Result<Vec<u8>, TarError> {
        // The name is followed by a NUL.
        let limit = self.limits.path_bytes as u64 + 1;
        let mut name = self.read_extension(header, at, limit)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn read_extension(
        &mut self,
        header: &Header,
        at: u64,
        limit: u64,
    ) -> Result<Vec<u8>, TarError> {
        let what = "a size that is not a number";
        let size = header.size().ok_or(TarError::Malformed { at, what })?;
        self.check_limit(size, limit, "size of an extension header")?;
        self.expect_data(size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read_some(&mut bytes[filled..])? {
                0 => return Err(TarError::Truncated { at: self.position }),
                count => filled += count,
            }
        }
        self.data_left = 0;
        Ok(bytes)
    }

    fn expect_data(&mut self, size: u64) -> Result<(), TarError> {
        let end = self
            .position
            .checked_add(size)
            .and_then(|end| end.checked_add(BLOCK as u64));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            let what = "a size beyond any file's";
            return Err(TarError::Malformed {
                at: self.position,
                what,
            });
        }
        self.data_left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip_rest(&mut self, skip: fn(&mut R, u64) -> io::Result<()>) -> Result<(), TarError> {
        let count = self.data_left + self.padding;
        if count > 0 {
            let at = self.position;
            skip(&mut self.reader, count).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => TarError::Truncated { at },
                _ => TarError::Read { at, source },
            })?;
            self.position += count;
            (self.data_left, self.padding) = (0, 0);
        }
        Ok(())
    }

    fn read_some(&mut self, into: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.reader.read(into) {
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(TarError::Read {
                        at: self.position,
                        source,
                    });
                }
            }
        }
    }

    fn check_limit(&self, value: u64, limit: u64, what: &'static str) -> Result<(), TarError> {
        if value <= limit {
            Ok(())
        } else {
            Err(TarError::Limit {
                at: self.position,
                what,
                limit,
            })
        }
    }
}

impl<R: Read> Read for TarStream<R> {
    /// The current member's data; an early end of the stream is `UnexpectedEof`.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into
            .len()
            .min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut into[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        self.data_left -= count as u64;
        Ok(count)
    }
}

fn kind_of(type_flag: u8, path: &[u8]) -> Option<Kind> {
    Some(match type_flag {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
