//! One netlink socket to the kernel: many requests in one system call, each with its own outcome.
//!
//! Owned by the thread that made it; belongs for ever to the network namespace that the thread was
//! in then. Invariant: the kernel answers a netlink request before `send` returns, so an answer
//! that is not there will not come, and nothing here ever waits.
//! Next: `link` (routing netlink), `elements` (nf_tables).

use std::io;

use netlink_sys::{Socket, SocketAddr};

use super::wire;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// The kernel never sends a datagram larger than this on a dump (NLMSG_GOODSIZE, at most 32 KiB).
const RECEIVE_BUFFER_LEN: usize = 64 * 1024;

/// A dump that was overtaken by changes is taken again, this often.
const DUMP_ATTEMPTS: usize = 5;

/// How many requests go into one system call: their acknowledgements must fit the socket's
/// receive buffer (212,992 bytes by default, about 768 for each).
pub(super) const MAX_REQUESTS: usize = 128;

/// One request: message type, flags besides REQUEST and ACK, body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Vec<u8>,
    /// Whether the kernel is to confirm it. Batch marks of nf_tables are not confirmed.
    pub(super) confirmed: bool,
}

#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    /// A socket of `protocol` in the calling thread's network namespace.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The number by which the kernel names this socket in what it announces to others.
    pub(super) fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Sends all requests at once; the outcomes of the confirmed ones, in their order.
    pub(super) fn transact(&mut self, requests: &[Request]) -> io::Result<Vec<io::Result<()>>> {
        let first = self.sequence.wrapping_add(1);
        let mut out = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let ack = if request.confirmed { NLM_F_ACK } else { 0 };
            let flags = request.flags | NLM_F_REQUEST | ack;
            wire::put_message(&mut out, request.kind, flags, self.sequence, &request.body);
        }
        self.send(&out)?;
        let mut outcomes: Vec<Option<io::Result<()>>> = requests.iter().map(|_| None).collect();
        let missing = |outcomes: &[Option<io::Result<()>>]| {
            outcomes
                .iter()
                .zip(requests)
                .any(|(outcome, r)| r.confirmed && outcome.is_none())
        };
        while missing(&outcomes) {
            let datagram = match self.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => other?,
            };
            for message in wire::messages(&datagram) {
                let index = message.sequence.wrapping_sub(first);
                let slot = usize::try_from(index)
                    .ok()
                    .and_then(|i| outcomes.get_mut(i));
                // The first verdict on a request stands; an error outweighs a confirmation.
                if let (NLMSG_ERROR, Some(slot)) = (message.kind, slot)
                    && !matches!(slot, Some(Err(_)))
                {
                    *slot = Some(verdict(message.payload));
                }
            }
        }
        let outcomes = outcomes
            .into_iter()
            .zip(requests)
            .filter_map(|(outcome, request)| match outcome {
                Some(outcome) => Some(outcome),
                None if request.confirmed => Some(Err(no_answer())),
                None => None,
            });
        Ok(outcomes.collect())
    }

    /// Asks for one object; `None` if there is none.
    pub(super) fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.ask(kind, 0, body)?;
        loop {
            let datagram = self.receive().map_err(unanswered)?;
            for message in wire::messages(&datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    return Ok(Some(message.payload.to_vec()));
                }
                let absent = |error: &io::Error| {
                    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
                };
                return match verdict(message.payload) {
                    Err(error) if absent(&error) => Ok(None),
                    Err(error) => Err(error),
                    Ok(()) => Ok(None),
                };
            }
        }
    }

    /// Asks for all objects of a kind: the payloads of the answers.
    pub(super) fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(answers) = self.dump_once(kind, body)? {
                return Ok(answers);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    fn dump_once(&mut self, kind: u16, body: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.ask(kind, NLM_F_DUMP, body)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let datagram = self.receive().map_err(unanswered)?;
            for message in wire::messages(&datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => return Ok((!interrupted).then_some(answers)),
                    NLMSG_ERROR => verdict(message.payload)?,
                    _ => answers.push(message.payload.to_vec()),
                }
            }
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut out = Vec::new();
        wire::put_message(&mut out, kind, flags | NLM_F_REQUEST, self.sequence, body);
        self.send(&out)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket
            .send_to(bytes, &SocketAddr::new(0, 0), 0)
            .map(|_| ())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(RECEIVE_BUFFER_LEN);
        self.socket.recv(&mut datagram, 0)?;
        Ok(datagram)
    }
}

/// An NLMSG_ERROR's verdict: zero confirms.
fn verdict(payload: &[u8]) -> io::Result<()> {
    match wire::u32_at(payload, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(no_answer()),
    }
}

fn unanswered(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        no_answer()
    } else {
        error
    }
}

fn no_answer() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the kernel did not answer a netlink request",
    )
}
