//! The receiving half of a link. It also keeps the heartbeat, so it must be read all the time.

use std::{fmt, marker::PhantomData, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use teu_protocol::{
    heartbeat::{Heartbeat, LinkMessage},
    limits::{HANDSHAKE_AGAIN_AFTER, LINK_LOST_AFTER},
    message,
    noise::{Opened, Opener},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    LinkError, LinkSender,
    pulse::{Due, Pulse},
    sender::Shared,
    socket::{Ended, Received, SocketReceiver},
};

/// Bulk pieces up to this long are copied out of the receive buffer, so that a slow reader's short
/// pieces do not each hold a whole buffer of what came beside them.
const COPY_OUT_BYTES: usize = 8 * 1024;

/// Receives messages. Dropping it ends the link.
pub struct LinkReceiver<Out, In> {
    socket: SocketReceiver,
    opener: Opener,
    heartbeats: LinkSender<Out>,
    shared: Arc<Shared>,
    epoch: Instant,
    pulse: Pulse,
    pings: u64,
    message: PhantomData<fn() -> In>,
}

impl<Out, In> LinkReceiver<Out, In>
where
    Out: Serialize + LinkMessage,
    In: DeserializeOwned + LinkMessage,
{
    pub(crate) fn new(
        socket: SocketReceiver,
        opener: Opener,
        heartbeats: LinkSender<Out>,
        epoch: Instant,
        shared: Arc<Shared>,
    ) -> Self {
        let pulse = Pulse::new(epoch.elapsed());
        Self {
            socket,
            opener,
            heartbeats,
            shared,
            epoch,
            pulse,
            pings: 0,
            message: PhantomData,
        }
    }

    /// The next message and its bulk bytes. Heartbeats are answered and kept from the caller. The
    /// link counts as lost only while somebody waits here, so wait here always.
    ///
    /// Cancel-safe: nothing is lost if it is dropped before it ends.
    ///
    /// # Errors
    /// [`LinkError`]: the link has ended, and its senders fail from now on.
    pub async fn recv(&mut self) -> Result<(In, Vec<Bytes>), LinkError> {
        let outcome = self.next_message().await;
        if outcome.is_err() {
            self.shared.close();
        }
        outcome
    }

    async fn next_message(&mut self) -> Result<(In, Vec<Bytes>), LinkError> {
        loop {
            let wake = match self.pulse.check(self.epoch.elapsed()) {
                Due::Nothing { until } => self.epoch + until,
                Due::Ping => {
                    self.pings += 1;
                    self.heartbeats.send_heartbeat(&Out::ping(self.pings))?;
                    continue;
                }
                Due::Lost => return Err(LinkError::Silent(LINK_LOST_AFTER)),
            };
            let received = tokio::select! {
                biased;
                received = self.socket.recv() => received?,
                () = sleep_until(wake) => {
                    if self.socket.has_progressed() {
                        self.pulse.heard(self.epoch.elapsed());
                    }
                    continue;
                }
            };
            let parts = match received {
                Received::Message(parts) => parts,
                Received::Reply(frame) => {
                    self.heartbeats.send_command(frame);
                    continue;
                }
            };
            self.pulse.heard(self.epoch.elapsed());
            let (message, bulk) = self.open(parts)?;
            match message.heartbeat() {
                Some(Heartbeat::Ping(nonce)) => {
                    self.heartbeats.send_heartbeat(&Out::pong(nonce))?;
                }
                Some(Heartbeat::Pong(_)) => {}
                None => return Ok((message, bulk)),
            }
        }
    }

    /// Asks the peer whether it is there, if it has said nothing for `quiet`. How long it has not
    /// answered a question, if it has not. Call it between two [`LinkReceiver::recv`].
    pub fn probe(&mut self, quiet: std::time::Duration) -> Option<std::time::Duration> {
        let now = self.epoch.elapsed();
        if self.socket.has_progressed() {
            self.pulse.heard(now);
        }
        if self.pulse.ask(now, quiet) {
            self.pings += 1;
            // A link that is closed says so in `recv`.
            let _ = self.heartbeats.send_heartbeat(&Out::ping(self.pings));
        }
        self.pulse.unanswered(now)
    }

    /// Whether the link is so old that its owner should dial anew and let this one go.
    #[must_use]
    pub fn renewal_due(&self) -> bool {
        self.epoch.elapsed() >= HANDSHAKE_AGAIN_AFTER
    }

    fn open(&mut self, parts: Vec<BytesMut>) -> Result<(In, Vec<Bytes>), LinkError> {
        let Opened { control, mut bulk } = self.opener.open(parts)?;
        let message = message::decode(&control).map_err(LinkError::Decode)?;
        for piece in &mut bulk {
            if piece.len() <= COPY_OUT_BYTES {
                *piece = Bytes::copy_from_slice(piece);
            }
        }
        Ok((message, bulk))
    }
}

impl From<Ended> for LinkError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::HungUp => Self::Closed,
            Ended::Violation(violation) => Self::Framing(violation),
        }
    }
}

impl<Out, In> Drop for LinkReceiver<Out, In> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<Out, In> fmt::Debug for LinkReceiver<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkReceiver")
            .field("pulse", &self.pulse)
            .finish_non_exhaustive()
    }
}
