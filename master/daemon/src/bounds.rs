//! The daemon's bounds: what one peer, and all peers together, can make it hold or do.
//!
//! Owner: this file. Invariant: everything that a peer's bytes can make grow has its number here or
//! in `teu_protocol::limits`, with its reason. Next: [`crate::listener`] and [`crate::connection`]
//! enforce them.

use std::time::Duration;

/// Bytes that wait for one client: the 64 MiB of windows that a connection may grant, and half as
/// much for replies and events. More waits only if it asks and does not read: it is closed.
pub(crate) const CLIENT_OUTBOX_BYTES: usize = 96 * MIB;

/// Bytes that wait for one node before it counts as lost. Stream data stops far earlier
/// ([`NODE_HIGH_WATER_BYTES`]); what may come on top are orders with their pre-boot files.
pub(crate) const NODE_OUTBOX_BYTES: usize = 256 * MIB;

/// A source of stream data waits while this much waits for the node: some milliseconds of a fast
/// link, so that the writer never runs dry.
pub(crate) const NODE_HIGH_WATER_BYTES: usize = 8 * MIB;

/// When this much waits for all peers together, each client's share shrinks to
/// [`CROWDED_OUTBOX_BYTES`]: many peers that do not read cannot add up.
pub(crate) const ALL_OUTBOXES_BYTES: usize = 512 * MIB;

/// A client's share while the location is crowded: one full stream window.
pub(crate) const CROWDED_OUTBOX_BYTES: usize = MIB;

/// What a waiting message costs beyond its own bytes: its place in the queue and its allocations.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 256;

/// Sealed and written at once: large enough that a system call pays, small enough that a control
/// message never waits long behind it.
pub(crate) const WRITE_BATCH_BYTES: usize = 256 * KIB;

/// A writer keeps its buffer while it is busy, and gives a large one back after this.
pub(crate) const WRITE_BUFFER_KEPT_FOR: Duration = Duration::from_secs(1);

/// Pieces up to this long are copied out of the buffer that they were read into.
pub(crate) const COPY_BYTES: usize = 4 * KIB;

/// The most read at once from a busy connection.
pub(crate) const READ_MAX_BYTES: usize = 256 * KIB;

/// The first read of a connection that was idle.
pub(crate) const READ_MIN_BYTES: usize = 4 * KIB;

/// Credit that may be outstanding on one stream, in one direction: what READY allows a whole
/// connection (`SessionLimits::window_bytes`).
pub(crate) const MAX_WINDOW_BYTES: u64 = 64 * MIB as u64;

/// Inputs that wait for the core: a burst from a few hundred connections. Beyond, readers wait.
pub(crate) const CORE_INBOX: usize = 1024;

/// Inputs handled before their effects are performed and their records committed together.
pub(crate) const CORE_BATCH: usize = 256;

/// Bytes of messages that clients have begun and not finished, of all accounts together: thirty-two of
/// the longest. What goes beyond closes a connection of the account that holds most.
pub(crate) const ALL_UNFINISHED_BYTES: usize = 256 * MIB;

/// The same of one account: a quarter. What goes beyond makes the account's younger messages wait.
pub(crate) const ACCOUNT_UNFINISHED_BYTES: usize = ALL_UNFINISHED_BYTES / 4;

/// How long a message may hold others of its account up: 8 MB at 1 Mbit/s.
pub(crate) const UNFINISHED_PATIENCE: Duration = Duration::from_secs(64);

/// Bytes of the buffers that connections read into, all together. Beyond, a connection reads no more
/// than [`READ_MIN_BYTES`] at once: a thousand busy connections read at full size.
pub(crate) const READ_BUFFERS_BYTES: usize = 256 * MIB;

/// Messages that cost more than this in memory, once decoded, are counted against
/// [`LARGE_INPUTS_BYTES`]. Twenty-five thousand connections with one smaller message each: 100 MB.
pub(crate) const LARGE_INPUT_BYTES: usize = 4 * KIB;

/// Bytes of large messages that wait for the core, of all connections together.
pub(crate) const LARGE_INPUTS_BYTES: usize = 64 * MIB;

/// The same of one account: a quarter, so that another's large message waits behind a few.
pub(crate) const ACCOUNT_LARGE_INPUTS_BYTES: usize = LARGE_INPUTS_BYTES / 4;

/// How often freed memory is given back to the system, if much was freed since.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(2);

/// So much was freed that giving it back pays for the walk through the heap.
pub(crate) const TRIM_ABOVE_BYTES: usize = 16 * MIB;

/// How often the core is told the time.
pub(crate) const TICK_EVERY: Duration = Duration::from_millis(200);

/// A store that cannot be written is tried again for this long before the master gives up.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// From INITIATE to ERROR, whatever the reason: long enough that no reason shows in the time.
pub(crate) const REFUSAL_DELAY: Duration = Duration::from_secs(1);

/// A client that has said nothing for this long is gone (design, "Life cycles").
pub(crate) const CLIENT_LOST_AFTER: Duration = Duration::from_secs(120);

/// A client that has said nothing for this long is asked.
pub(crate) const CLIENT_PING_AFTER: Duration = Duration::from_secs(10);

/// A node that has said nothing for this long is lost: its loss must be known within 10 s.
pub(crate) const NODE_LOST_AFTER: Duration = Duration::from_secs(10);

/// A node that has said nothing for this long is asked: three times before it counts as lost.
pub(crate) const NODE_PING_AFTER: Duration = Duration::from_secs(3);

/// How long a connection that is being closed may take to receive its last words.
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Handshakes under way before HELLOs need a cookie.
pub(crate) const COOKIE_ABOVE_HANDSHAKES: usize = 64;

/// Credit that an uploading client gets: a few round trips at 1 Gbit/s.
pub(crate) const UPLOAD_WINDOW_BYTES: u64 = 4 * MIB as u64;

/// Written and hashed in one go on a blocking thread.
pub(crate) const UPLOAD_BATCH_BYTES: usize = MIB;

/// Messages of one upload that wait for the disk; tiny ones make the client wait.
pub(crate) const UPLOAD_QUEUE: usize = 256;

/// Uploads at once, of all clients together.
pub(crate) const UPLOADS: usize = 256;

/// The largest layer.
pub(crate) const MAX_LAYER_BYTES: u64 = 64 * 1024 * MIB as u64;

/// Uploads are refused when they would leave less than this free for the store.
pub(crate) const FREE_FLOOR_BYTES: u64 = 256 * MIB as u64;

/// How long a part of a layer is kept for its uploader to come back.
pub(crate) const PARTIAL_KEPT_FOR: Duration = Duration::from_secs(3600);

/// How often old parts of layers are looked for.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// A layer is read and sent in messages of this size: four full sealed parts.
pub(crate) const LAYER_CHUNK_BYTES: usize = 4 * teu_protocol::limits::MAX_PART_CONTENT_BYTES;

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;
