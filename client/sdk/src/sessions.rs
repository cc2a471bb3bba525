//! The account's sessions at a location.

use teu_protocol::{
    ids::SessionId,
    message::{ReplyBody, RequestBody, SessionInfo},
};

use crate::{
    error::{Error, Result},
    session::{Patience, SessionHandle},
};

/// The account's sessions; see [`crate::Location::sessions`].
#[derive(Debug, Clone)]
pub struct Sessions {
    session: SessionHandle,
}

impl Sessions {
    pub(crate) const fn new(session: SessionHandle) -> Self {
        Self { session }
    }

    /// All of them. Cancel-safe.
    ///
    /// # Errors
    /// If the location does not answer.
    pub async fn list(&self) -> Result<Vec<SessionInfo>> {
        const ATTEMPT: &str = "list the sessions";
        match self
            .session
            .request(ATTEMPT, RequestBody::Sessions, Patience::USUAL)
            .await?
        {
            ReplyBody::Sessions(sessions) => Ok(sessions),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Ends a session and destroys what it owns.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if the account has no such session.
    pub async fn end(&self, session: SessionId) -> Result<()> {
        const ATTEMPT: &str = "end the session";
        let body = RequestBody::EndSession(session);
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Done => Ok(()),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }
}
