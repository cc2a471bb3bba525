//! The node's layers: each one extracted once, by a process that can do nothing else.
//!
//! Owner: [`LayerStore`], a cloneable handle held by the agent. Invariant: a directory
//! `layers/<hex>` exists only if blob digest and diff id were verified, its content is on disk, and
//! its record beside it is whole; everything else in there is left over from a crash and goes when
//! the store is opened. `layers/` is 0700: setuid programs in layers are out of the host's reach.
//!
//! Next: [`store`] for the handle, `ingest` for the way of one blob, [`unpack`] for the confined
//! child.

mod error;
mod ingest;
mod opaque;
mod record;
mod room;
mod store;
pub mod unpack;

pub use error::LayerError;
pub use record::LayerRecord;
pub use store::{LayerPins, LayerStore, LayerUsage};
pub use unpack::{UnpackError, UnpackLimits};
