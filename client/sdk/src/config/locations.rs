//! `locations.toml`: the locations that this machine knows, and which one is the default.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use teu_protocol::ids::PublicKey;

use super::{ConfigError, account::make_private_dir};
use crate::Result;

const LOCATIONS_FILE: &str = "locations.toml";

/// The locations that this machine knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    #[serde(skip)]
    path: PathBuf,
    /// The location that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// All of them, by name.
    #[serde(default, rename = "location")]
    pub locations: BTreeMap<String, LocationEntry>,
}

/// A location as it is pinned here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationEntry {
    /// The location's DNS name; the handshake is bound to it.
    pub fqdn: String,
    /// `host:port` to dial.
    pub endpoint: String,
    /// The location's static key: nobody else can answer.
    pub key: PublicKey,
    /// The serial number of the key's record.
    pub serial: u64,
}

impl Config {
    /// Reads `locations.toml` in `home`; a missing file is an empty one.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or does not parse.
    pub fn load(home: &Path) -> Result<Self> {
        let path = home.join(LOCATIONS_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(ConfigError::Io {
                    attempt: "read",
                    path,
                    source,
                }
                .into());
            }
        };
        match toml::from_str(&text) {
            Ok(config) => Ok(Self { path, ..config }),
            Err(source) => Err(ConfigError::BadLocations {
                path,
                source: Box::new(source),
            }
            .into()),
        }
    }

    /// Writes the file: wholly or not at all, with mode 0600.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be written; the old version is then still there.
    pub fn save(&self) -> Result<()> {
        let text = toml::to_string(self).map_err(ConfigError::from)?;
        let home = self.path.parent().unwrap_or_else(|| Path::new("."));
        make_private_dir(home)?;
        let io = |source| ConfigError::Io {
            attempt: "write",
            path: self.path.clone(),
            source,
        };
        let mut file = tempfile::NamedTempFile::new_in(home).map_err(io)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(io)?;
        file.persist(&self.path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// Adds or replaces a location. The first one becomes the default.
    pub fn add(&mut self, name: impl Into<String>, entry: LocationEntry) {
        let name = name.into();
        self.default.get_or_insert_with(|| name.clone());
        self.locations.insert(name, entry);
    }

    /// The location of that name, else the default one.
    ///
    /// # Errors
    /// [`ConfigError::UnknownLocation`], or [`ConfigError::NoDefault`] if nothing was named or
    /// chosen.
    pub fn choose(&self, name: Option<&str>) -> Result<(&str, &LocationEntry)> {
        let name = name
            .or(self.default.as_deref())
            .ok_or(ConfigError::NoDefault)?;
        let found = self.locations.get_key_value(name);
        let (name, entry) = found.ok_or_else(|| ConfigError::UnknownLocation {
            name: name.to_owned(),
            path: self.path.clone(),
            known: self.known(),
        })?;
        Ok((name, entry))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.locations.keys().map(String::as_str).collect();
        if names.is_empty() {
            "it names none yet: start one with `teu dev` or add one with `teu location add`"
                .to_owned()
        } else {
            format!("it names {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn entry(serial: u64) -> LocationEntry {
        LocationEntry {
            fqdn: "dev.localhost".into(),
            endpoint: "127.0.0.1:5555".into(),
            key: PublicKey::from_bytes([7; 32]),
            serial,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_the_first_location_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(dir.path()).unwrap();
        assert!(matches!(
            config.choose(None),
            Err(Error::Config(ConfigError::NoDefault))
        ));
        config.add("dev", entry(1));
        config.add("far", entry(2));
        config.save().unwrap();
        let loaded = Config::load(dir.path()).unwrap();
        assert_eq!(loaded, config);
        assert_eq!(loaded.choose(None).unwrap(), ("dev", &entry(1)));
        assert_eq!(loaded.choose(Some("far")).unwrap(), ("far", &entry(2)));
        let error = loaded.choose(Some("moon")).unwrap_err();
        assert!(error.to_string().ends_with("it names dev, far"), "{error}");
    }

    #[test]
    fn the_documented_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let key = PublicKey::from_bytes([7; 32]);
        let text = format!(
            "default = \"dev\"\n[location.dev]\nfqdn = \"dev.localhost\"\n\
             endpoint = \"127.0.0.1:5555\"\nkey = \"{key}\"\nserial = 1\n"
        );
        fs::write(dir.path().join(LOCATIONS_FILE), text).unwrap();
        let config = Config::load(dir.path()).unwrap();
        assert_eq!(config.choose(None).unwrap(), ("dev", &entry(1)));
    }

    #[test]
    fn a_damaged_file_is_an_error_not_an_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(LOCATIONS_FILE),
            "[location.dev]\nkey = \"short\"",
        )
        .unwrap();
        assert!(matches!(
            Config::load(dir.path()),
            Err(Error::Config(ConfigError::BadLocations { .. }))
        ));
    }
}
