//! How to connect.

use std::{
    env, fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use teu_link::Dialer;
use teu_protocol::{
    ids::{AttachmentId, Tag},
    message::{Initiate, Role, SessionAsk},
    noise::LocationIdentity,
};

use super::{About, Location};
use crate::{
    config::{self, Account, Config, ConfigError, LocationEntry},
    error::{Error, Result},
    session::{self, TeuLink, Transport as _},
};

/// Longest name that the location shows to people, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Between two attempts of a first connect that may retry.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Which session a program works in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Session {
    /// A fresh one, which ends with this program.
    #[default]
    Ephemeral,
    /// The account's session of that name, made if there is none. It goes on when this program
    /// ends; only what was spawned with [`crate::Lifetime::Attachment`] goes with the program.
    Persistent(Tag),
}

/// Connects to a location; see [`Location::builder`].
#[derive(Clone, Default)]
#[must_use = "nothing happens until `connect` is called"]
pub struct LocationBuilder {
    home: Option<PathBuf>,
    location: Option<String>,
    pinned: Option<(LocationEntry, Account)>,
    session: Session,
    name: Option<String>,
    retry_for: Duration,
}

impl LocationBuilder {
    /// Uses the client's files in this directory instead of `$TEU_HOME` or `~/.teu`.
    pub fn home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// Connects to this location of `locations.toml` instead of the default one.
    pub fn location(mut self, name: impl Into<String>) -> Self {
        self.location = Some(name.into());
        self
    }

    /// Connects to this location as this account, without looking at any file.
    pub fn pinned(mut self, location: LocationEntry, account: Account) -> Self {
        self.pinned = Some((location, account));
        self
    }

    /// Works in this session; default: a fresh one.
    pub fn session(mut self, session: Session) -> Self {
        self.session = session;
        self
    }

    /// What people see of this program at the location; default: the program's file name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Keeps trying for this long if the location cannot be reached; default: one attempt.
    pub const fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Connects and waits for the resource offer.
    ///
    /// Cancel-safe: dropped midway, it leaves at most a session that the location ends by itself.
    ///
    /// # Errors
    /// [`Error::Config`] if the location or the account is not known here, [`Error::Connect`] if
    /// the location does not answer or does not let us in.
    pub async fn connect(self) -> Result<Location> {
        let (name, entry, account) = self.target()?;
        let identity = LocationIdentity::new(&entry.fqdn, entry.key, entry.serial)
            .map_err(ConfigError::Key)?;
        let dialer = Dialer::new(&entry.endpoint, identity, account.key().clone());
        let transport = TeuLink::new(dialer);
        let initiate = self.initiate()?;
        let deadline = Instant::now() + self.retry_for;
        let dialled = loop {
            match Box::pin(transport.dial(initiate.clone())).await {
                Ok(dialled) => break dialled,
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(source) => {
                    let endpoint = entry.endpoint;
                    return Err(Error::Connect {
                        location: name,
                        endpoint,
                        source,
                    });
                }
            }
        };
        let about = About {
            name,
            fqdn: entry.fqdn,
            session: dialled.ready.session,
            session_name: dialled.ready.name.clone(),
        };
        Ok(Location::new(
            session::start(transport, initiate, dialled),
            about,
        ))
    }

    fn target(&self) -> Result<(String, LocationEntry, Account)> {
        if let Some((entry, account)) = &self.pinned {
            return Ok((entry.fqdn.clone(), entry.clone(), account.clone()));
        }
        let home = config::home(self.home.as_deref());
        let from_env = || {
            env::var("TEU_LOCATION")
                .ok()
                .filter(|name| !name.is_empty())
        };
        let wanted = self.location.clone().or_else(from_env);
        let config = Config::load(&home)?;
        let (name, entry) = config.choose(wanted.as_deref())?;
        Ok((name.to_owned(), entry.clone(), Account::load(&home)?))
    }

    fn initiate(&self) -> Result<Initiate> {
        let mut attachment = [0; 16];
        getrandom::fill(&mut attachment).map_err(ConfigError::Random)?;
        Ok(Initiate {
            role: Role::Client,
            features: Vec::new(),
            name: self.program_name(),
            session: match &self.session {
                Session::Ephemeral => SessionAsk::New,
                Session::Persistent(tag) => SessionAsk::Named(tag.clone()),
            },
            attachment: AttachmentId::from_bytes(attachment),
        })
    }

    fn program_name(&self) -> String {
        let of_program = || {
            let path = env::current_exe().ok()?;
            Some(path.file_name()?.to_string_lossy().into_owned())
        };
        let mut name = self.name.clone().or_else(of_program).unwrap_or_default();
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
        name
    }
}

impl fmt::Debug for LocationBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocationBuilder")
            .field("home", &self.home)
            .field("location", &self.location)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
