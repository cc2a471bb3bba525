//! The keeper's end of its agent's connection: bytes in, bytes out, never blocking.
//!
//! Owner: the supervisor. Invariant: an agent that does not read cannot stall a container; what
//! it has not read is bounded, and beyond that the connection is given up.

use std::{
    collections::VecDeque,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::wire::{Message, Request, frame, take_frame};
use crate::sys::seqpacket;

/// Unread output to the agent: replies are small and events are merged, so this is never
/// reached by an agent that lives.
const OUT_MAX: usize = 1 << 20;
/// Read at a time.
const IN_CHUNK: usize = 64 << 10;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    incoming: Vec<u8>,
    /// Came with the bytes of requests that are not taken yet.
    fds: VecDeque<OwnedFd>,
    outgoing: Vec<u8>,
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: Vec::new(),
            fds: VecDeque::new(),
            outgoing: Vec::new(),
        })
    }

    /// Reads what is there; `false` at the end of the stream.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; IN_CHUNK];
        match seqpacket::receive_some(&self.socket, &mut chunk, &mut self.fds) {
            Ok(0) => Ok(false),
            Ok(got) => {
                self.incoming.extend_from_slice(&chunk[..got]);
                Ok(true)
            }
            Err(error) if transient(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next complete request.
    pub(super) fn next_request(&mut self) -> io::Result<Option<Request>> {
        let request = take_frame(&mut self.incoming)?;
        if self.incoming.is_empty() {
            // A plan with large files leaves nothing behind in this process.
            self.incoming = Vec::new();
        }
        Ok(request)
    }

    /// The descriptors of the request that was just taken: they come with its first byte.
    pub(super) fn take_fds(&mut self, count: usize) -> Vec<OwnedFd> {
        self.fds.drain(..count.min(self.fds.len())).collect()
    }

    /// Queues a message and sends what can be sent.
    pub(super) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.outgoing.extend(frame(message)?);
        self.flush()?;
        if self.outgoing.len() > OUT_MAX {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the agent does not read",
            ));
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(error) if transient(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until everything is sent, but not longer than `patience`: a keeper's last words.
    pub(super) fn drain(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.flush().is_ok() && self.has_output() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
