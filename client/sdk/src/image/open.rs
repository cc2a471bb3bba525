//! From a path to a verified image.
//!
//! Owner: the caller's thread (reading is blocking; use `spawn_blocking` from async code).
//! Invariant: whatever is compressed is unpacked into an unnamed temporary file, within a bound,
//! and vanishes with the last reader. Next: [`super::docker_archive`], [`super::oci_layout`].

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    ImageChoice, ImageProgress, ImageSource, ProgressFn, docker_archive, error::ImageError,
    oci_layout, store::Store, verify,
};

/// The largest archive, uncompressed: beyond the largest images there are (some tens of GB), short
/// of what fills a server's disk.
pub(super) const MAX_SPOOL_BYTES: u64 = 128 * 1024 * 1024 * 1024;

const CHUNK: usize = 256 * 1024;

/// Opens an archive or an OCI layout directory.
pub fn open(
    path: &Path,
    choice: &ImageChoice,
    progress: &ProgressFn,
) -> Result<ImageSource, ImageError> {
    let failed = |source| ImageError::Open {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return from_store(&Store::Directory(path.to_owned()), choice, progress);
    }
    let mut file = File::open(path).map_err(failed)?;
    if !metadata.is_file() {
        return open_reader(file, choice, progress);
    }
    match format_of(&mut file).map_err(failed)? {
        Format::Plain => from_store(&Store::index(file)?, choice, progress),
        _ => open_reader(file, choice, progress),
    }
}

/// Opens an archive from a stream, such as standard input.
pub fn open_reader(
    reader: impl Read,
    choice: &ImageChoice,
    progress: &ProgressFn,
) -> Result<ImageSource, ImageError> {
    let mut reader = BufReader::with_capacity(CHUNK, reader);
    let what = || "the image archive".to_owned();
    let mut magic = [0; 6];
    let filled = fill(&mut reader, &mut magic).map_err(|source| ImageError::Read {
        what: what(),
        source,
    })?;
    let format = Format::of(&magic[..filled]);
    let whole = io::Cursor::new(magic[..filled].to_vec()).chain(reader);
    let file = match format {
        Format::Plain => spool(whole, progress)?,
        Format::Gzip => spool(
            flate2::bufread::MultiGzDecoder::new(BufReader::new(whole)),
            progress,
        )?,
        Format::Zstd => {
            let decoder = zstd::Decoder::new(whole).map_err(|source| ImageError::Decompress {
                what: what(),
                source,
            })?;
            spool(decoder, progress)?
        }
        Format::Other(format) => {
            return Err(ImageError::Compression {
                what: what(),
                format,
            });
        }
    };
    from_store(&Store::index(file)?, choice, progress)
}

pub(super) fn from_store(
    store: &Store,
    choice: &ImageChoice,
    progress: &ProgressFn,
) -> Result<ImageSource, ImageError> {
    let draft = if let Some(index) = oci_layout::index(store)? {
        oci_layout::choose(store, index, choice)?
    } else if let Some(entries) = docker_archive::entries(store)? {
        docker_archive::choose(store, entries, choice)?
    } else {
        return Err(ImageError::NotAnImage);
    };
    verify::verify(draft, progress)
}

/// Copies everything into an unnamed temporary file.
fn spool(mut reader: impl Read, progress: &ProgressFn) -> Result<File, ImageError> {
    let mut file = tempfile::tempfile().map_err(ImageError::Spool)?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|source| ImageError::Decompress {
                what: "the image archive".to_owned(),
                source,
            })?;
        if count == 0 {
            return Ok(file);
        }
        done += count as u64;
        if done > MAX_SPOOL_BYTES {
            let what = "the unpacked image archive".to_owned();
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_SPOOL_BYTES,
            });
        }
        file.write_all(&buffer[..count])
            .map_err(ImageError::Spool)?;
        progress(ImageProgress::Unpacking { done });
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Gzip,
    Zstd,
    Other(&'static str),
}

impl Format {
    pub(super) fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable one in front.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Other("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Other("lz4"),
            _ => Self::Plain,
        }
    }
}

/// The format of what is at the start of `file`, which is left there.
pub(super) fn format_of<F: Read + Seek>(file: &mut F) -> io::Result<Format> {
    let mut magic = [0; 6];
    let filled = fill(file, &mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Format::of(&magic[..filled]))
}

fn fill(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match reader.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
