//! The receiving half of a connection: bytes to messages to whom they are for.
//!
//! Stream frames go straight to the other connection's outbox (or to a transfer), everything else to
//! the core. Owner: the connection's task. Invariants: no reader waits for another peer's outbox, for what
//! is under way to it is bounded by what it granted; the data plane never waits for the core, except
//! for a frame on a stream that a node has just said to be open (its route is being made); a client
//! that floods waits for the core's inbox, which is fair. Next: [`crate::stream`].

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use teu_master_core::Input;
use teu_protocol::{
    heartbeat::LinkMessage as _,
    limits::VALUE_MEMORY_BYTES,
    message::{
        self, Bounds, ClientToMaster, DecodeError, MasterToClient, MasterToNode, NodeReplyBody,
        NodeToMaster, Role, StreamFrame,
    },
    noise::{OpenError, Opened, Opener},
    zmtp::{Decoder, Event, ZmtpError},
};
use tokio::{net::tcp::OwnedReadHalf, sync::oneshot, time};
use tokio_util::sync::CancellationToken;

use crate::{
    bounds::{
        CLIENT_LOST_AFTER, CLIENT_PING_AFTER, COPY_BYTES, FLUSH_WITHIN, LARGE_INPUT_BYTES,
        NODE_LOST_AFTER, NODE_PING_AFTER, READ_MAX_BYTES, READ_MIN_BYTES,
    },
    broker::{BrokerHandle, Room},
    connection::spares::{ReadBuffers, Spares},
    inflow::Share,
    peer::Peer,
    stream::{Forwarded, Stream, broken_rules, end_locally},
};

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the peer has been silent for too long")]
    Silent,
    #[error("the peer closed the connection")]
    Ended,
    #[error("the connection was closed from this side")]
    Closed,
    #[error("its account holds too much memory for unfinished messages")]
    Evicted,
    #[error("it did not finish a message that others of its account wait for")]
    Stalled,
}

pub(super) struct Reader {
    read: OwnedReadHalf,
    decoder: Decoder,
    buffer: BytesMut,
    spares: Spares,
    opener: Opener,
    peer: Arc<Peer>,
    broker: BrokerHandle,
    /// What this connection may hold of unfinished messages; none for a node.
    share: Option<Share>,
    read_bytes: usize,
    read_since_check: usize,
    heard: Instant,
    /// Since when the last words have been on their way.
    finishing_since: Option<Instant>,
    /// The last stream that this node said to be open: the core may not have made its route yet.
    opening: Option<oneshot::Receiver<()>>,
    /// An outbox that was given something since it was last woken.
    to_wake: Option<Arc<Peer>>,
}

impl Reader {
    pub(super) fn new(
        (read, decoder, buffer): (OwnedReadHalf, Decoder, BytesMut),
        opener: Opener,
        peer: Arc<Peer>,
        broker: BrokerHandle,
        (share, buffers): (Option<Share>, ReadBuffers),
    ) -> Self {
        Self {
            read,
            decoder,
            buffer,
            spares: Spares::new(buffers),
            opener,
            peer,
            broker,
            share,
            read_bytes: READ_MIN_BYTES,
            read_since_check: 0,
            heard: Instant::now(),
            finishing_since: None,
            opening: None,
            to_wake: None,
        }
    }

    /// Runs until the peer is gone, or broke a rule.
    pub(super) async fn run(mut self) -> Result<(), ReadError> {
        let peer = Arc::clone(&self.peer);
        let evicted = self
            .share
            .as_ref()
            .map_or_else(CancellationToken::new, |share| share.evicted().clone());
        tokio::select! {
            biased;
            () = peer.gone.cancelled() => Err(ReadError::Closed),
            () = evicted.cancelled() => Err(ReadError::Evicted),
            outcome = self.receive_all() => outcome,
        }
    }

    async fn receive_all(&mut self) -> Result<(), ReadError> {
        let (ask_after, lost_after) = match self.peer.role {
            Role::Client => (CLIENT_PING_AFTER, CLIENT_LOST_AFTER),
            Role::Node => (NODE_PING_AFTER, NODE_LOST_AFTER),
        };
        let mut check = time::interval(ask_after / 2);
        check.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        self.handle_buffered().await?;
        loop {
            if self.share.as_ref().is_some_and(|share| !share.may_read()) {
                self.wait_for_room().await;
            }
            tokio::select! {
                biased;
                readable = self.read.readable() => {
                    readable?;
                    if self.fill()? {
                        self.hold(false);
                        self.handle_buffered().await?;
                    }
                }
                _ = check.tick() => self.check(ask_after, lost_after)?,
            }
        }
    }

    /// Other messages of the account come first. The peer cannot be heard meanwhile.
    async fn wait_for_room(&mut self) {
        if let Some(share) = &self.share {
            share.room().await;
        }
        self.heard = Instant::now();
    }

    /// Counts what this connection holds.
    fn hold(&mut self, another: bool) {
        if let Some(share) = &mut self.share {
            share.hold(self.decoder.bytes_held() + self.buffer.len(), another);
        }
    }

    /// Reads once. `false` if there was nothing after all.
    fn fill(&mut self) -> Result<bool, ReadError> {
        if self.share.as_ref().is_some_and(Share::is_crowded) {
            self.read_bytes = READ_MIN_BYTES;
        }
        if self.buffer.capacity() - self.buffer.len() < self.read_bytes / 4 {
            self.spares.make_room(&mut self.buffer, self.read_bytes);
        }
        let space = (self.buffer.capacity() - self.buffer.len()).min(self.read_bytes);
        match self.read.try_read_buf(&mut (&mut self.buffer).limit(space)) {
            Ok(0) => Err(ReadError::Ended),
            Ok(read) => {
                self.heard = Instant::now();
                self.read_since_check += read;
                if read == space {
                    self.read_bytes = (self.read_bytes * 4).min(READ_MAX_BYTES);
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks a quiet peer, gives up a dead one and one that stalls, gives an idle one's buffers back.
    fn check(&mut self, ask_after: Duration, lost_after: Duration) -> Result<(), ReadError> {
        let silence = self.heard.elapsed();
        if silence >= lost_after {
            return Err(ReadError::Silent);
        }
        if self.peer.outbox.is_finishing() {
            let since = self.finishing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= FLUSH_WITHIN {
                return Err(ReadError::Closed);
            }
        }
        if self.share.as_ref().is_some_and(Share::holds_others_up) {
            return Err(ReadError::Stalled);
        }
        let read = std::mem::take(&mut self.read_since_check);
        if self.buffer.is_empty() || read < READ_MAX_BYTES {
            self.spares.give_back(&mut self.buffer);
            self.read_bytes = READ_MIN_BYTES;
        }
        if silence >= ask_after {
            let nonce = 0;
            let pushed = match self.peer.role {
                Role::Client => self
                    .peer
                    .outbox
                    .push_control(&MasterToClient::ping(nonce), Vec::new()),
                Role::Node => self
                    .peer
                    .outbox
                    .push_control(&MasterToNode::ping(nonce), Vec::new()),
            };
            self.peer.note(pushed);
        }
        Ok(())
    }

    async fn handle_buffered(&mut self) -> Result<(), ReadError> {
        let mut finished = false;
        while let Some(event) = self.decoder.decode_mut(&mut self.buffer)? {
            match event {
                Event::Message(parts) => {
                    finished = true;
                    let opened = unshare(self.opener.open(parts)?);
                    match self.peer.role {
                        Role::Client => self.handle_client(opened).await?,
                        Role::Node => self.handle_node(opened).await?,
                    }
                }
                Event::Reply(frame) => self.peer.note(self.peer.outbox.push_command(frame)),
                Event::Ready => {}
            }
        }
        self.hold(finished);
        self.wake();
        Ok(())
    }

    async fn handle_client(&mut self, opened: Opened) -> Result<(), ReadError> {
        let values = message::count_values(&opened.control, Bounds::REQUEST)?;
        let size = size_of(&opened) + values * VALUE_MEMORY_BYTES;
        // Room first: what is decoded takes more memory than its bytes. Stream frames are short, and
        // their bulk does not come to the core.
        let mut room = None;
        if opened.control.len() + values * VALUE_MEMORY_BYTES > LARGE_INPUT_BYTES {
            self.wake();
            room = Some(self.large(size).await);
        }
        let message = match message::decode_within(&opened.control, Bounds::REQUEST)? {
            ClientToMaster::Stream(frame) => {
                self.handle_stream(frame, opened.bulk).await;
                return Ok(());
            }
            ClientToMaster::Ping(nonce) => {
                let pong = MasterToClient::Pong(nonce);
                self.peer
                    .note(self.peer.outbox.push_control(&pong, Vec::new()));
                return Ok(());
            }
            ClientToMaster::Pong(_) => return Ok(()),
            message => message,
        };
        let connection = self.peer.id;
        let input = Input::Client {
            connection,
            message,
            bulk: opened.bulk,
        };
        self.wake();
        if room.is_none() && size > LARGE_INPUT_BYTES {
            room = Some(self.large(size).await);
        }
        self.broker.tell_with(input, room.unwrap_or_default()).await;
        Ok(())
    }

    /// Waits for room for a large message: first among its account's, then among all.
    async fn large(&self, bytes: usize) -> Room {
        let account = match &self.share {
            Some(share) => share.large(bytes).await,
            None => None,
        };
        self.broker.large(account, bytes).await
    }

    async fn handle_node(&mut self, opened: Opened) -> Result<(), ReadError> {
        let values = message::count_values(&opened.control, Bounds::WHOLE)?;
        let size = size_of(&opened) + values * VALUE_MEMORY_BYTES;
        let message = match message::decode(&opened.control)? {
            NodeToMaster::Stream(frame) => {
                self.handle_stream(frame, opened.bulk).await;
                return Ok(());
            }
            NodeToMaster::Ping(nonce) => {
                let pong = MasterToNode::Pong(nonce);
                self.peer
                    .note(self.peer.outbox.push_control(&pong, Vec::new()));
                return Ok(());
            }
            NodeToMaster::Pong(_) => return Ok(()),
            message => message,
        };
        let opens = matches!(
            message,
            NodeToMaster::Reply {
                result: Ok(NodeReplyBody::Opened { .. }),
                ..
            }
        );
        let connection = self.peer.id;
        let input = Input::Node {
            connection,
            message,
            bulk: opened.bulk,
        };
        self.wake();
        if opens {
            self.opening = self.broker.tell_noting(input).await;
        } else if size > LARGE_INPUT_BYTES {
            let room = self.broker.large(None, size).await;
            self.broker.tell_with(input, room).await;
        } else {
            self.broker.tell(input).await;
        }
        Ok(())
    }

    async fn handle_stream(&mut self, frame: StreamFrame, bulk: Vec<Bytes>) {
        let id = frame.stream();
        let mut found = self.peer.streams.get(id);
        if found.is_none()
            && let Some(opening) = self.opening.take()
        {
            self.wake();
            // An error means that the broker stops.
            let _ = opening.await;
            found = self.peer.streams.get(id);
        }
        match found {
            Some(Stream::Routed(route, from)) => {
                let receiver = Arc::clone(route.towards(from));
                match route.forward(from, frame, bulk) {
                    Forwarded::Queued => self.queued(receiver),
                    Forwarded::Closed => {
                        let (connection, stream) = route.client_side();
                        self.broker
                            .tell(Input::StreamClosed { connection, stream })
                            .await;
                    }
                    Forwarded::Sent | Forwarded::Ignored => {}
                }
            }
            Some(Stream::Upload(upload)) => {
                let kept_rules = upload.accept(frame, bulk).await;
                self.end_unless(kept_rules, Stream::Upload(upload));
            }
            Some(Stream::Download(download)) => {
                let kept_rules = download.accept(&frame);
                self.end_unless(kept_rules, Stream::Download(download));
            }
            // The stream is over: its last frames may still have been on their way.
            None => {}
        }
    }

    fn end_unless(&self, kept_rules: bool, stream: Stream) {
        if !kept_rules {
            tracing::debug!(
                connection = self.peer.id.0,
                "a transfer broke its stream's rules"
            );
            end_locally(stream, &broken_rules());
        }
    }

    /// Something waits for `receiver`: its writer is woken when all that was read is handled.
    fn queued(&mut self, receiver: Arc<Peer>) {
        if self
            .to_wake
            .as_ref()
            .is_some_and(|other| other.id != receiver.id)
        {
            self.wake();
        }
        self.to_wake = Some(receiver);
    }

    fn wake(&mut self) {
        if let Some(peer) = self.to_wake.take() {
            peer.outbox.wake();
        }
    }
}

/// Copies small pieces: waiting somewhere, they would hold on to the whole buffer they came in.
fn unshare(mut opened: Opened) -> Opened {
    for bytes in &mut opened.bulk {
        if bytes.len() <= COPY_BYTES {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }
    opened
}

fn size_of(opened: &Opened) -> usize {
    opened.control.len() + opened.bulk.iter().map(Bytes::len).sum::<usize>()
}
