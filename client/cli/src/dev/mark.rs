//! `teu-location.toml`: the file that makes a directory a location's data, and says whose.
//!
//! Owner: the start that makes the location, which writes it before all else. Invariant: nothing is
//! stopped or removed but what a mark names.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    DevError,
    error::file_error,
    values::{Instance, LocationName, Range},
};

/// The file's name.
pub(super) const MARK_FILE: &str = "teu-location.toml";

/// The form of the directory that this program knows.
const FORMAT: u32 = 1;

/// Longest mark that is read: ours take some 200 bytes and a path or two.
const MAX_MARK_BYTES: u64 = 64 * 1024;

/// What a location is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    format: u32,
    pub(super) name: LocationName,
    pub(super) instance: Instance,
    pub(super) range: Range,
    pub(super) port: u16,
    /// As `--pool` takes it.
    pub(super) pool: String,
    /// The directory with the key of the account that administers it.
    pub(super) home: PathBuf,
}

/// What `--pool` is if nobody says.
pub(super) const USUAL_POOL: &str = "auto";

impl Mark {
    pub(super) const fn new(
        name: LocationName,
        instance: Instance,
        range: Range,
        port: u16,
        pool: String,
        home: PathBuf,
    ) -> Self {
        Self {
            format: FORMAT,
            name,
            instance,
            range,
            port,
            pool,
            home,
        }
    }

    /// The mark of the directory, if it has one.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, DevError> {
        let path = data.join(MARK_FILE);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(file_error("open", &path)(error)),
        };
        let mut text = String::new();
        file.take(MAX_MARK_BYTES)
            .read_to_string(&mut text)
            .map_err(file_error("read", &path))?;
        let mark: Self = toml::from_str(&text).map_err(|error| DevError::BadMark {
            path: path.clone(),
            why: error.message().to_owned(),
        })?;
        if mark.format != FORMAT {
            return Err(DevError::BadMark {
                path,
                why: format!(
                    "its format is {}, and this teu knows format {FORMAT}",
                    mark.format
                ),
            });
        }
        Ok(Some(mark))
    }

    /// Writes it: wholly or not at all.
    pub(super) fn write(&self, data: &Path) -> Result<(), DevError> {
        let path = data.join(MARK_FILE);
        let failed = || file_error("write", &path);
        let text = toml::to_string(self).map_err(|error| failed()(io::Error::other(error)))?;
        let text = format!(
            "# This directory is the data of a TEU location (`teu dev`), made by this command's first start.\n{text}"
        );
        let mut file = tempfile::Builder::new()
            .prefix(".teu-location-")
            .tempfile_in(data)
            .map_err(failed())?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed())?;
        file.persist(&path).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

/// Nothing is there, or it is below something that is no directory.
fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark::new(
            "dev".parse().unwrap(),
            "teu".parse().unwrap(),
            "10.77.0.0/16".parse().unwrap(),
            5555,
            USUAL_POOL.to_owned(),
            "/root/.teu".into(),
        )
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), None);
        assert_eq!(Mark::read(&dir.path().join("nothing")).unwrap(), None);
        mark().write(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), Some(mark()));
    }

    #[test]
    fn a_mark_that_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        mark().write(dir.path()).unwrap();
        let path = dir.path().join(MARK_FILE);
        let good = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("format = 1", "format = 2"),
            ("\"dev\"", "\"../dev\""),
            ("\"teu\"", "\"TEU\""),
            ("/16", "/33"),
            ("name", "nome"),
        ] {
            assert!(good.contains(from), "{good}");
            fs::write(&path, good.replace(from, to)).unwrap();
            let error = Mark::read(dir.path()).unwrap_err();
            assert!(matches!(error, DevError::BadMark { .. }), "{error}");
        }
    }
}
