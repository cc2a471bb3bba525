//! What a child that makes a process tells its keeper: over a message socket, then by its end.
//!
//! Owner: stub and tenant write, the keeper reads. Invariant: the socket ends when the program
//! executes (close-on-exec) or when everybody who could tell more is dead; so "created and then
//! the end, without a failure" means that the program runs.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use serde::{Deserialize, Serialize};

use super::wire::Refusal;
use crate::sys::seqpacket;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The stub has done all that can be done ahead.
    Warm,
    /// The process exists (its pid as the keeper sees it) and is about to execute.
    Created {
        pid: i32,
        steps_us: Vec<(String, u32)>,
    },
    /// The master of the process's terminal comes with this message.
    Terminal,
    Failed(Refusal),
}

impl Report {
    pub(super) fn send(&self, socket: impl AsFd, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = rmp_serde::to_vec(self).map_err(io::Error::other)?;
        seqpacket::send(socket, &bytes, fd.as_slice())
    }

    pub(super) fn parse(bytes: &[u8]) -> io::Result<Self> {
        teu_protocol::message::decode_record(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
