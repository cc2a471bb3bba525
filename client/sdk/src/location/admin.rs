//! What a location's people ask: how it fares, and who may connect.

use teu_protocol::{
    ids::{NodeId, PublicKey},
    message::{DoctorReport, EnrolledAccount, ReplyBody, RequestBody},
};

use super::Location;
use crate::{
    error::{Error, Result},
    session::Patience,
};

impl Location {
    /// How the location fares. Cancel-safe.
    ///
    /// # Errors
    /// If the location does not answer.
    pub async fn doctor(&self) -> Result<DoctorReport> {
        const ATTEMPT: &str = "examine the location";
        match self
            .session
            .request(ATTEMPT, RequestBody::Doctor, Patience::USUAL)
            .await?
        {
            ReplyBody::Doctor(report) => Ok(report),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Lets an account's key connect. For administrators.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Forbidden` if this account is none.
    pub async fn enrol_account(
        &self,
        key: PublicKey,
        name: impl Into<String>,
        admin: bool,
    ) -> Result<()> {
        let account = EnrolledAccount {
            key,
            name: name.into(),
            admin,
        };
        self.done("enrol the account", RequestBody::EnrolAccount(account))
            .await
    }

    /// Stops an account's key from connecting and ends its sessions. For administrators.
    ///
    /// # Errors
    /// As [`Location::enrol_account`].
    pub async fn revoke_account(&self, key: PublicKey) -> Result<()> {
        self.done("revoke the account", RequestBody::RevokeAccount(key))
            .await
    }

    /// Lets a node's key connect. For administrators.
    ///
    /// # Errors
    /// As [`Location::enrol_account`].
    pub async fn enrol_node(&self, key: PublicKey, name: impl Into<String>) -> Result<NodeId> {
        const ATTEMPT: &str = "enrol the node";
        let body = RequestBody::EnrolNode {
            key,
            name: name.into(),
        };
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Enrolled(id) => Ok(id),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    async fn done(&self, attempt: &'static str, body: RequestBody) -> Result<()> {
        match self.session.request(attempt, body, Patience::USUAL).await? {
            ReplyBody::Done => Ok(()),
            _ => Err(Error::Nonsense { attempt }),
        }
    }
}
