//! Input on its way to a process: to its keeper, which counts it.
//!
//! Owner: the feeding task of an attached stream. Invariants: what was given is with the keeper, in order,
//! each byte once; nobody waits for a process that reads no more.

use bytes::{Buf as _, Bytes};
use teu_protocol::ids::ProcessId;
use tokio::sync::watch;

use crate::{
    containers::ProcessProgress,
    keeper::{KeeperLink, PlaceAsk, Refusal, StartError},
};

/// One request to the keeper.
const CHUNK_BYTES: usize = 64 * 1024;

/// Gives input to one process.
#[derive(Debug)]
pub(super) struct Feeder {
    pub(super) link: KeeperLink,
    pub(super) process: ProcessId,
    /// Whose input it is; `None`: of a client without a place.
    pub(super) place: Option<PlaceAsk>,
    pub(super) progress: watch::Receiver<ProcessProgress>,
}

/// Input that the process will not get.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FeedError {
    /// Another stream gives it.
    Superseded,
    /// Some of it never came.
    Missing { expected: u64, offset: u64 },
}

impl Feeder {
    /// Returns when the keeper has all of it (or nobody needs it any more). `offset`: how many bytes the
    /// client gave before.
    pub(super) async fn give(
        &mut self,
        mut offset: u64,
        mut bytes: Bytes,
    ) -> Result<(), FeedError> {
        while !bytes.is_empty() {
            let over = {
                let now = self.progress.borrow_and_update();
                now.stdin_closed || now.log.ended.is_some()
            };
            let chunk = bytes.slice(..bytes.len().min(CHUNK_BYTES));
            let has = match self.ask(offset, chunk, false).await? {
                Some(has) => has,
                None => return Ok(()),
            };
            let taken = has.saturating_sub(offset).min(bytes.len() as u64);
            if taken == 0 && (over || self.progress.changed().await.is_err()) {
                return Ok(());
            }
            offset += taken;
            bytes.advance(usize::try_from(taken).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    /// No more input follows these `offset` bytes.
    pub(super) async fn end(&self, offset: u64) -> Result<(), FeedError> {
        self.ask(offset, Bytes::new(), true).await.map(drop)
    }

    /// How much of the client's input the keeper has then. `None`: the process has ended.
    async fn ask(&self, offset: u64, bytes: Bytes, eof: bool) -> Result<Option<u64>, FeedError> {
        let length = bytes.len() as u64;
        let answer = match &self.place {
            Some(place) => self.link.input(place, offset, bytes, eof).await,
            None => match self.link.stdin(self.process, bytes, eof).await {
                Ok(()) => Ok(offset + length),
                Err(StartError::Refused(Refusal::StdinOverrun)) => Ok(offset),
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(has) => Ok(Some(has)),
            Err(StartError::Refused(Refusal::Superseded)) => Err(FeedError::Superseded),
            Err(StartError::Refused(Refusal::InputMissing { expected, offset })) => {
                Err(FeedError::Missing { expected, offset })
            }
            Err(_) => Ok(None),
        }
    }
}
