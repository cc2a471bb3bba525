//! The master's bounds: each number with its reason, here and nowhere else.
//!
//! Invariant: whatever an authenticated peer does, the core's memory is bounded by these.
//! Next: [`crate::bounds`] checks requests against them.

use teu_protocol::message::SessionLimits;

/// Pre-boot files, in bytes, on their way to one node with spawns that it has not answered: a quarter of
/// what the daemon lets wait for a node before it counts as lost, so that no account's files can cut a
/// node off from all others.
pub(crate) const NODE_BULK_BYTES: usize = 64 << 20;

/// Sessions of the whole location (design, section 5).
pub(crate) const SESSIONS: usize = 20_000;

/// Sessions of one account: a twentieth of all, so that one runaway program does not lock out others.
pub(crate) const SESSIONS_PER_ACCOUNT: usize = 1_000;

/// Connections of one account: one for each of its sessions and some that come back; a twenty-fifth of
/// what the location takes.
pub(crate) const CONNECTIONS_PER_ACCOUNT: usize = 1_024;

/// Client processes in one session: terminals and programs that share a persistent session.
pub(crate) const ATTACHMENTS_PER_SESSION: usize = 256;

/// What one session and one connection may have; told in READY.
pub(crate) const SESSION: SessionLimits = SessionLimits {
    // A browser's worth of tunnels for each of some dozen containers.
    streams: 1_024,
    // 64 streams at the SDK's window of 1 MiB; beyond that the SDK grants smaller ones.
    window_bytes: 64 << 20,
    // A node's worth: more than the reference machine can hold.
    containers: 1_000,
    // A volume for each of four full sessions' containers; their list fits one message.
    volumes: 4_096,
    // spawn_many of the whole session at once.
    requests: 1_024,
};

/// Further processes that run in one container.
pub(crate) const PROCESSES_PER_CONTAINER: usize = 256;

/// Replies that a session remembers for retries. A retry comes at once after a reconnect, and no
/// connection waits for more than a few at a time in practice.
pub(crate) const REPLIES_REMEMBERED: usize = 128;

/// Bytes of the remembered replies: 20,000 sessions at this bound are 1.3 GB, and only if all try.
pub(crate) const REPLY_BYTES_REMEMBERED: usize = 64 << 10;

/// How long a reply is remembered: longer than a client tries to reconnect.
pub(crate) const REPLY_REMEMBERED_MS: u64 = 300_000;

/// Ids of destroyed containers that a session remembers, so that destroying again is harmless.
pub(crate) const DESTROYED_REMEMBERED: usize = 256;

/// Between a connection's loss and the end of its attachment. With a tick of 250 ms and the node's
/// work, what the attachment owned is gone 5 s after its client was killed.
pub(crate) const GRACE_MS: u64 = 3_000;

/// The same after the master started: clients notice and come back within their backoff.
pub(crate) const RESTART_GRACE_MS: u64 = 30_000;

/// After its start the master waits this long for its nodes before it says "no such container".
pub(crate) const SETTLE_MS: u64 = 15_000;

/// For so long after its link was lost a node may come back by itself (its agent restarts, a line is cut):
/// what no other node can take waits for it. As long as a client repeats what may succeed later.
pub(crate) const NODE_GRACE_MS: u64 = 30_000;

/// A client that comes back to a session of before the restart waits at most this long for READY,
/// so that its containers are in it. Well below any handshake deadline.
pub(crate) const READY_HELD_MS: u64 = 5_000;

/// A node's answer to anything but a spawn or a stop.
pub(crate) const ORDER_MS: u64 = 30_000;

/// What is asked of a volume: a pool writes out all that it holds before it answers.
pub(crate) const VOLUME_MS: u64 = 120_000;

/// An import: its stream's end forgets it long before; this is for a defect.
pub(crate) const IMPORT_MS: u64 = 7 * 86_400_000;

/// A spawn: gigabytes of layers may have to travel first.
pub(crate) const SPAWN_MS: u64 = 120_000;

/// After its deadline an order's late answer is still understood for this long.
pub(crate) const LATE_MS: u64 = 600_000;

/// An order to destroy that failed is repeated after this long.
pub(crate) const RETRY_DESTROY_MS: u64 = 2_000;

/// A `FirstProcess` container that exited stays this long for readers of its output.
pub(crate) const LINGER_MS: u64 = 5_000;

/// The nodes' answers to a doctor's question.
pub(crate) const DOCTOR_MS: u64 = 3_000;

/// Between two pushes of node offers.
pub(crate) const OFFER_EVERY_MS: u64 = 250;

/// Sessions that are told of changed nodes in one push; the others come next. 8,000 sessions a
/// second keep a core less than a tenth busy.
pub(crate) const OFFER_SESSIONS: usize = 2_000;

/// Warnings of a node that are kept for the doctor.
pub(crate) const WARNINGS_PER_NODE: usize = 16;

/// Images of one account.
pub(crate) const IMAGES_PER_ACCOUNT: usize = 10_000;

/// Bytes of the configs of one account's images, which the master keeps in memory: ten thousand
/// usual ones. One alone may have a MiB.
pub(crate) const CONFIG_BYTES_PER_ACCOUNT: usize = 64 << 20;

/// Names of one image.
pub(crate) const NAMES_PER_IMAGE: usize = 64;

/// Bytes of an image's name: Docker's own bound is 255 for the path, and a registry and tag more.
pub(crate) const IMAGE_NAME_BYTES: usize = 512;

/// Blobs that one account possesses.
pub(crate) const LAYERS_PER_ACCOUNT: usize = 100_000;

/// Digests in one question.
pub(crate) const DIGESTS_ASKED: usize = 1_024;

/// The largest layer: larger than any seen, small enough to refuse nonsense.
pub(crate) const LAYER_BYTES: u64 = 64 << 30;

/// Accounts and nodes that administrators may enrol.
pub(crate) const ACCOUNTS: usize = 100_000;

/// For people: names of accounts, nodes, programs.
pub(crate) const NAME_BYTES: usize = 64;
