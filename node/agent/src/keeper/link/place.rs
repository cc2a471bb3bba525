//! What an agent says for a client's place: where it stands, what it gives as input.
//!
//! Owner: the task of the place's stream. Invariant: a keeper of version 0 is asked only for what it
//! knows (a follower that ends with its agent; input without a place).

use bytes::Bytes;
use teu_protocol::{
    ids::{AttachmentId, ProcessId},
    message::Place,
};

use super::{KeeperLink, LinkError, StartError};
use crate::keeper::{
    LogRecord,
    wire::{Outcome, Refusal, RequestBody},
};

/// A client's place at one process, as a stream of it speaks for it.
#[derive(Debug, Clone, Copy)]
pub struct PlaceAsk {
    pub process: ProcessId,
    pub place: Place,
    /// The attachment that it ends with; `None`: it ends with the agent.
    pub owner: Option<AttachmentId>,
}

impl KeeperLink {
    /// The client of a place has everything before `cursor`. While it lags far behind, the process
    /// waits when it writes; `None`: it gives input only, and is not waited for. Tells how much of its input the keeper has; `None`: the keeper is of
    /// version 0 and cannot say.
    ///
    /// # Errors
    /// `NoSuchProcess`; `Superseded` by a newer stream of the place.
    pub async fn place(
        &self,
        place: &PlaceAsk,
        cursor: Option<u64>,
    ) -> Result<Option<u64>, StartError> {
        if self.version == 0 {
            return self.acknowledge(place, cursor).await.map(|()| None);
        }
        let body = RequestBody::Place {
            process: place.process,
            reader: place.place.reader,
            generation: place.place.generation,
            owner: place.owner,
            cursor,
        };
        self.placed(body).await.map(Some)
    }

    /// Nobody waits for the place any more.
    ///
    /// # Errors
    /// `NoSuchProcess`.
    pub async fn release(&self, place: &PlaceAsk) -> Result<(), StartError> {
        if self.version == 0 {
            return self.acknowledge(place, None).await;
        }
        self.done(RequestBody::Release {
            process: place.process,
            reader: place.place.reader,
            generation: place.place.generation,
        })
        .await
    }

    /// The attachment ended: nothing waits for its places any more.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn release_owned(&self, owner: AttachmentId) -> Result<(), StartError> {
        if self.version == 0 {
            return Ok(()); // It knows no owners.
        }
        self.done(RequestBody::ReleaseOwned { owner }).await
    }

    /// Gives the process input of a place, `offset` bytes of which came before; with `eof`, the last.
    /// Tells how much of it the keeper has now: all, or what it has room for. There is room again when a
    /// [`KeeperEvent::StdinConsumed`] comes.
    ///
    /// # Errors
    /// `InputMissing`, `Superseded`, `NoSuchProcess`.
    pub async fn input(
        &self,
        place: &PlaceAsk,
        offset: u64,
        bytes: Bytes,
        eof: bool,
    ) -> Result<u64, StartError> {
        let length = bytes.len() as u64;
        if self.version == 0 {
            return match self.stdin(place.process, bytes, eof).await {
                Ok(()) => Ok(offset + length),
                Err(StartError::Refused(Refusal::StdinOverrun)) => Ok(offset),
                Err(error) => Err(error),
            };
        }
        let body = RequestBody::Input {
            process: place.process,
            reader: place.place.reader,
            generation: place.place.generation,
            offset,
            bytes: bytes.into(),
            eof,
        };
        self.placed(body).await
    }

    /// Output from `cursor` on that could not be written to the log.
    ///
    /// # Errors
    /// `NoSuchProcess`.
    pub async fn unwritten(
        &self,
        process: ProcessId,
        cursor: u64,
    ) -> Result<Vec<LogRecord>, StartError> {
        if self.version == 0 {
            return Ok(Vec::new());
        }
        match self.ask(RequestBody::Unwritten { process, cursor }).await? {
            Outcome::Output(records) => Ok(records),
            Outcome::Refused(refusal) => Err(refusal.into()),
            _ => Err(LinkError::Gone.into()),
        }
    }

    async fn placed(&self, body: RequestBody) -> Result<u64, StartError> {
        match self.ask(body).await? {
            Outcome::Placed { input } => Ok(input),
            Outcome::Refused(refusal) => Err(refusal.into()),
            _ => Err(LinkError::Gone.into()),
        }
    }

    /// As a keeper of version 0 knows it.
    async fn acknowledge(&self, place: &PlaceAsk, cursor: Option<u64>) -> Result<(), StartError> {
        let [a, b, c, d, e, f, g, h, ..] = *place.place.reader.as_bytes();
        self.done(RequestBody::Ack {
            process: place.process,
            follower: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            cursor,
        })
        .await
    }
}
