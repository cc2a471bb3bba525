//! One TCP connection to a port in a container, carried on a stream.
//!
//! ```text
//! socket ──read (when readable and granted)──▶ Data … Eof     half-close each way;
//! socket ◀──write── Data … Eof, Credit back as written        both done: Close Done
//! ```
//! Owner: a task for each connection. Invariants: an idle connection holds no buffer; at most the
//! window is held for a container that does not read; a reset is told as a reset.

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};
use teu_link::LinkError;
use teu_protocol::{
    flow::{Overgrant, SendWindow},
    limits::MAX_PART_CONTENT_BYTES,
    message::{Channel, Refusal, RefusalCode, StreamEnd},
};
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{Outlet, TunnelWindow};
use crate::link::{Inbound, StreamInlet};

/// One read: four full parts of a message.
const READ_BYTES: usize = 4 * MAX_PART_CONTENT_BYTES;

/// A connection's first read: most say little at a time.
const FIRST_READ_BYTES: usize = 16 * 1024;

/// Slices of one gathering write: a full window is 17 parts.
const PARTS_PER_WRITE: usize = 32;

/// Why a direction ended before its time.
enum Broken {
    Link,
    Socket,
    Overrun,
    Overgrant,
}

impl From<LinkError> for Broken {
    fn from(_: LinkError) -> Self {
        Self::Link
    }
}

impl From<Overgrant> for Broken {
    fn from(_: Overgrant) -> Self {
        Self::Overgrant
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        tracing::debug!("a tunnel's connection broke: {error}");
        Self::Socket
    }
}

/// Carries a connection until both directions are done. `credit` is what the client granted, `window`
/// what was granted to it.
pub async fn run(
    socket: TcpStream,
    outlet: Outlet,
    inlet: StreamInlet,
    credit: SendWindow,
    window: TunnelWindow,
) {
    // Answers leave at once: a tunnel's user waits for each of them.
    let _ = socket.set_nodelay(true);
    let (reader, writer) = socket.into_split();
    let (grants, granted) = mpsc::unbounded_channel();
    let up = read_side(reader, &outlet, credit, granted);
    let down = write_side((writer, window), &outlet, inlet, grants);
    let outcome = tokio::try_join!(up, down);
    let end = match outcome {
        Ok(((), Ended::BothSides)) => StreamEnd::Done,
        // The other end closed the stream, or the link is gone: nobody listens.
        Ok(((), Ended::ByPeer)) | Err(Broken::Link) => return,
        Err(Broken::Socket) => StreamEnd::Reset,
        Err(Broken::Overrun) => StreamEnd::Failed(Refusal::new(
            RefusalCode::BadRequest,
            "more was sent into the tunnel than the node had granted",
        )),
        Err(Broken::Overgrant) => StreamEnd::Failed(Refusal::new(
            RefusalCode::BadRequest,
            "the client granted more than a stream may have",
        )),
    };
    let _ = outlet.close(end).await;
}

enum Ended {
    BothSides,
    ByPeer,
}

/// From the container. Ends at its end of file, or when the other side is closed (`granted` ends).
async fn read_side(
    reader: OwnedReadHalf,
    outlet: &Outlet,
    mut credit: SendWindow,
    mut granted: mpsc::UnboundedReceiver<u64>,
) -> Result<(), Broken> {
    let mut room = BytesMut::new();
    let mut chunk = FIRST_READ_BYTES;
    loop {
        while let Ok(bytes) = granted.try_recv() {
            credit.grant(bytes)?;
        }
        if credit.available() == 0 {
            match granted.recv().await {
                Some(bytes) => credit.grant(bytes)?,
                None => return Ok(()),
            }
            continue;
        }
        tokio::select! {
            biased;
            ready = reader.readable() => ready?,
            bytes = granted.recv() => match bytes {
                Some(bytes) => {
                    credit.grant(bytes)?;
                    continue;
                }
                None => return Ok(()),
            },
        }
        let most = usize::try_from(credit.available())
            .unwrap_or(usize::MAX)
            .min(chunk);
        room.reserve(most);
        let mut limited = bytes::BufMut::limit(&mut room, most);
        let got = match reader.try_read_buf(&mut limited) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Spurious: give the room back before a long wait.
                room = BytesMut::new();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if got == 0 {
            drop(room);
            outlet.eof(Channel::Main).await?;
            return Ok(());
        }
        credit.take(got as u64);
        outlet
            .data(Channel::Main, 0, vec![room.split().freeze()])
            .await?;
        // Reads grow with what comes; a quiet connection keeps nothing.
        if got == chunk {
            chunk = (chunk * 4).min(READ_BYTES);
        } else if got < chunk / 4 {
            chunk = (chunk / 2).max(FIRST_READ_BYTES);
            room = BytesMut::new();
        }
    }
}

/// To the container; also hears what is granted to the other direction, always: else a container
/// that does not read what it is sent could not be read either. After the peer's Eof it listens on
/// until the stream is closed or `read_side` is done and drops its end of `grants`.
async fn write_side(
    (writer, mut window): (OwnedWriteHalf, TunnelWindow),
    outlet: &Outlet,
    mut inlet: StreamInlet,
    grants: mpsc::UnboundedSender<u64>,
) -> Result<Ended, Broken> {
    let mut writer = Some(writer);
    let mut queue: VecDeque<Bytes> = VecDeque::new();
    let mut eof = false;
    let mut closed = false;
    loop {
        if queue.is_empty() && eof {
            // Dropping the half sends FIN.
            writer = None;
        }
        if queue.is_empty() && closed {
            return Ok(Ended::ByPeer);
        }
        tokio::select! {
            biased;
            inbound = inlet.recv(), if !closed => match inbound {
                None => {
                    // Cut off in the middle: the container must not take it for the whole.
                    if let Some(writer) = writer {
                        reset_with_reader(writer);
                    }
                    return Err(Broken::Link);
                }
                Some(Inbound::Credit(bytes)) => drop(grants.send(bytes)),
                Some(Inbound::Data { bulk, .. }) => {
                    let bytes = bulk.iter().map(|part| part.len() as u64).sum();
                    window.received(bytes).map_err(|_| Broken::Overrun)?;
                    if writer.is_some() && !eof {
                        queue.extend(bulk.into_iter().filter(|part| !part.is_empty()));
                    } else if let Some(grant) = window.consumed(bytes) {
                        outlet.credit(grant).await?;
                    }
                }
                Some(Inbound::Eof(..)) => eof = true,
                // What came before it is still written.
                Some(Inbound::Close(StreamEnd::Done)) => (eof, closed) = (true, true),
                Some(Inbound::Close(_)) => {
                    if let Some(writer) = writer {
                        reset_with_reader(writer);
                    }
                    return Ok(Ended::ByPeer);
                }
            },
            written = write_some(writer.as_ref(), &queue), if !queue.is_empty() => {
                let bytes = match written {
                    Ok(bytes) => take(&mut queue, bytes),
                    Err(_) => {
                        // It reads no more; what it says may still be worth hearing.
                        writer = None;
                        queue.drain(..).map(|part| part.len() as u64).sum()
                    }
                };
                if let Some(grant) = window.consumed(bytes).filter(|_| !closed) {
                    outlet.credit(grant).await?;
                }
            }
            () = grants.closed(), if eof && queue.is_empty() => return Ok(Ended::BothSides),
        }
    }
}

/// Writes what the socket takes. Cancel-safe: what was written has been returned.
async fn write_some(writer: Option<&OwnedWriteHalf>, queue: &VecDeque<Bytes>) -> io::Result<usize> {
    let Some(writer) = writer else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let parts: Vec<io::IoSlice<'_>> = queue
        .iter()
        .take(PARTS_PER_WRITE)
        .map(|part| io::IoSlice::new(part))
        .collect();
    loop {
        writer.writable().await?;
        match writer.try_write_vectored(&parts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

/// Removes `bytes` from the front.
fn take(queue: &mut VecDeque<Bytes>, bytes: usize) -> u64 {
    let mut left = bytes;
    while left > 0
        && let Some(front) = queue.front_mut()
    {
        if front.len() > left {
            drop(front.split_to(left));
            break;
        }
        left -= front.len();
        queue.pop_front();
    }
    bytes as u64
}

/// The far end was reset: so is the container's, once the reading half goes as well. No FIN before it.
fn reset_with_reader(writer: OwnedWriteHalf) {
    let socket: &TcpStream = writer.as_ref();
    let _ = socket.set_zero_linger();
    writer.forget();
}
