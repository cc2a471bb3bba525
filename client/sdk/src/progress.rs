//! How far an image is on its way to the location.

use std::fmt;

/// What happens while an image travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressEvent {
    /// The local engine is writing the image out.
    Exporting {
        /// The image as it was named.
        image: String,
    },
    /// Layers that the location lacks are being sent.
    Uploading {
        /// The image as it was named.
        image: String,
        /// Bytes of all missing layers together.
        total_bytes: u64,
    },
    /// So many further bytes were sent (of any layer), or were there already.
    Sent {
        /// How many.
        bytes: u64,
    },
    /// The image is in the catalogue. (Not told if it could not get there.)
    Done,
}

/// Is told how far an image is. Called from async code: it must not block.
pub trait Progress: Send + Sync + fmt::Debug {
    /// Something happened.
    fn on_event(&self, event: ProgressEvent);
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn on_event(&self, _: ProgressEvent) {}
}
