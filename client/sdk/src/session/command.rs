//! What handles ask of the session task.

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, Digest, ProcessId, ReaderId, RequestId, StreamId, Tag, VolumeId},
    message::{ImportTarget, LogStart, Place, ReplyBody, RequestBody, StreamEnd},
};
use tokio::sync::oneshot;
use uuid::Uuid;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{error::CloseReason, stream::Stream};

use teu_protocol::message::Refusal;

/// Why a request has no answer of its own.
#[derive(Debug)]
pub(crate) enum AskError {
    /// The location said no.
    Refused(Refusal),
    /// The connection that the stream was to be opened on is gone; open it anew.
    LinkLost,
    /// The session is over.
    Closed(CloseReason),
}

pub(crate) type AskResult<T> = Result<T, AskError>;

/// What can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send this and hand back the answer, over as many connections as it takes.
    Request {
        id: RequestId,
        body: RequestBody,
        bulk: Vec<Bytes>,
        reply: oneshot::Sender<AskResult<ReplyBody>>,
    },
    /// Open a stream on the present connection (or the next one, if there is none).
    Open {
        ask: StreamAsk,
        reply: oneshot::Sender<AskResult<(Stream, ReplyBody)>>,
    },
    /// Say goodbye and end.
    Close { done: oneshot::Sender<()> },
}

/// This program's place at a process. Each stream of it is a new generation, which fences those
/// before.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    reader: ReaderId,
    generation: Arc<AtomicU64>,
}

impl Claim {
    pub(crate) fn new(reader: ReaderId) -> Self {
        Self {
            reader,
            generation: Arc::default(),
        }
    }

    /// A name that nobody else has.
    pub(crate) fn fresh_reader() -> ReaderId {
        ReaderId::from_bytes(Uuid::now_v7().into_bytes())
    }

    fn next(&self) -> Place {
        Place {
            reader: self.reader,
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

/// A stream to open.
#[derive(Debug, Clone)]
pub(crate) enum StreamAsk {
    Attach {
        container: ContainerId,
        process: Option<ProcessId>,
        from: LogStart,
        lossless: bool,
        claim: Claim,
    },
    Logs {
        container: ContainerId,
        from: LogStart,
        follow: bool,
    },
    /// `proxied`: it stands for another connection, whose loss must not look like its end.
    Tunnel {
        container: ContainerId,
        port: u16,
        proxied: bool,
    },
    Upload {
        digest: Digest,
        size: u64,
    },
    Export {
        volume: VolumeId,
        snapshot: Tag,
        base: Option<Tag>,
    },
    Import(ImportTarget),
}

impl StreamAsk {
    pub(crate) fn body(&self, stream: StreamId, window: u64) -> RequestBody {
        match self.clone() {
            Self::Attach {
                container,
                process,
                from,
                lossless,
                claim,
            } => RequestBody::Attach {
                container,
                process,
                from,
                lossless,
                place: Some(claim.next()),
                stream,
                window,
            },
            Self::Logs {
                container,
                from,
                follow,
            } => RequestBody::Logs {
                container,
                from,
                follow,
                stream,
                window,
            },
            Self::Tunnel {
                container, port, ..
            } => RequestBody::Tunnel {
                container,
                port,
                stream,
                window,
            },
            Self::Upload { digest, size } => RequestBody::UploadLayer {
                digest,
                size,
                stream,
            },
            Self::Export {
                volume,
                snapshot,
                base,
            } => RequestBody::ExportVolume {
                volume,
                snapshot,
                base,
                stream,
                window,
            },
            Self::Import(target) => RequestBody::ImportVolume { target, stream },
        }
    }

    /// Whether the far side sends Data, so that a window must be granted.
    pub(crate) const fn receives(&self) -> bool {
        !matches!(self, Self::Upload { .. } | Self::Import(_))
    }

    /// Whether it waits until a stream is free when all are in use. Somebody waits at the other end of
    /// a tunnel's connection, and is better told at once.
    pub(crate) const fn waits_for_room(&self) -> bool {
        !matches!(self, Self::Tunnel { .. })
    }

    /// What to say when nobody wants the stream any more: a reader just leaves, but half a
    /// connection, layer or volume must not look like a whole one.
    pub(crate) const fn abandoned(&self) -> StreamEnd {
        match self {
            Self::Attach { .. } | Self::Logs { .. } | Self::Tunnel { proxied: false, .. } => {
                StreamEnd::Done
            }
            Self::Tunnel { proxied: true, .. }
            | Self::Upload { .. }
            | Self::Export { .. }
            | Self::Import(_) => StreamEnd::Reset,
        }
    }
}
