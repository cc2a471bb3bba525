//! What workers and streams do with a link.
//!
//! Owner: cloned freely; dies with its link. Invariant: a stream is registered before anybody can
//! send on it, because the word that opens it is sent afterwards. Next: `router`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use teu_link::{LinkError, LinkSender};
use teu_protocol::{
    ids::{Digest, RequestId, StreamId},
    message::{Channel, NodeToMaster, Refusal, StreamEnd, StreamFrame},
};
use tokio::sync::{mpsc, oneshot};

/// Streams that the node opens have the top bit set, so that they never meet the master's numbers.
const NODE_STREAM: u64 = 1 << 63;

/// What came on a stream.
#[derive(Debug)]
pub enum Inbound {
    /// Bytes.
    Data {
        /// On which channel.
        channel: Channel,
        /// As the frame says.
        cursor: u64,
        /// The bytes, in order.
        bulk: Vec<Bytes>,
    },
    /// May be sent more.
    Credit(u64),
    /// No more on this channel; the cursor as the frame says.
    Eof(Channel, u64),
    /// It is over.
    Close(StreamEnd),
}

/// The receiving end of one stream. `None`: the link is lost. The queue needs no bound of its own:
/// what is in it has been granted in bytes.
pub type StreamInlet = mpsc::UnboundedReceiver<Inbound>;

/// Tells the router of a stream.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) stream: StreamId,
    pub(super) inlet: mpsc::UnboundedSender<Inbound>,
    pub(super) fetch: Option<(RequestId, oneshot::Sender<Result<(), Refusal>>)>,
}

/// A link that is, or was, up.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    sender: LinkSender<NodeToMaster>,
    registrations: mpsc::UnboundedSender<Registration>,
    next_stream: Arc<AtomicU64>,
}

/// Why a layer does not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The link ended, or would not take the message.
    #[error("the link to the master was lost")]
    Link(#[source] LinkError),
    /// The link ended while we waited.
    #[error("the link to the master was lost")]
    Lost,
    /// The master does not give it.
    #[error("the master refused the layer: {0}")]
    Refused(Refusal),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

impl LinkHandle {
    pub(super) fn new(
        sender: LinkSender<NodeToMaster>,
    ) -> (Self, mpsc::UnboundedReceiver<Registration>) {
        let (registrations, registered) = mpsc::unbounded_channel();
        let next_stream = Arc::new(AtomicU64::new(NODE_STREAM));
        (
            Self {
                sender,
                registrations,
                next_stream,
            },
            registered,
        )
    }

    /// Whether the link has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Prepares to receive on a stream that the master opens.
    #[must_use]
    pub fn accept(&self, stream: StreamId) -> StreamInlet {
        let (inlet, received) = mpsc::unbounded_channel();
        // If the router is gone the inlet is dropped with the registration: "link lost".
        let _ = self.registrations.send(Registration {
            stream,
            inlet,
            fetch: None,
        });
        received
    }

    /// Sends on a stream, waiting while too much is queued already.
    ///
    /// # Errors
    /// The link's.
    pub async fn send(&self, frame: StreamFrame, bulk: Vec<Bytes>) -> Result<(), LinkError> {
        self.sender.send(NodeToMaster::Stream(frame), bulk).await
    }

    /// Asks the master for a layer's blob; what comes is on the returned stream.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(
        &self,
        digest: Digest,
        offset: u64,
        window: u64,
    ) -> Result<(StreamId, StreamInlet), FetchError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(FetchError::Random)?;
        let id = RequestId::from_bytes(id);
        let stream = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let (inlet, received) = mpsc::unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let fetch = Some((id, answer));
        self.registrations
            .send(Registration {
                stream,
                inlet,
                fetch,
            })
            .map_err(|_| FetchError::Lost)?;
        let message = NodeToMaster::FetchLayer {
            id,
            digest,
            offset,
            stream,
            window,
        };
        self.sender
            .send(message, Vec::new())
            .await
            .map_err(FetchError::Link)?;
        match answered.await {
            Ok(Ok(())) => Ok((stream, received)),
            Ok(Err(refusal)) => Err(FetchError::Refused(refusal)),
            Err(_) => Err(FetchError::Lost),
        }
    }
}
