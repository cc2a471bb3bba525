//! The wire's bounds: every number that a peer can run into, each with its reason.
//!
//! Owner: this file; nobody else writes such a number down. Invariant: what a sender may send is
//! never larger than what the receiver accepts, so two builds with these constants understand each
//! other. Next: [`crate::zmtp`] and [`crate::noise`] enforce them.

use std::time::Duration;

/// A Noise message is at most 65,535 bytes (Noise specification, section 3).
pub const MAX_SEALED_PART_BYTES: usize = 65_535;

/// The authentication tag of both suites.
pub const TAG_BYTES: usize = 16;

/// Plaintext of one sealed part, its trailer byte included: what Noise leaves after the tag.
pub const MAX_PART_PLAINTEXT_BYTES: usize = MAX_SEALED_PART_BYTES - TAG_BYTES;

/// Content of one sealed part: the plaintext without its trailer byte.
pub const MAX_PART_CONTENT_BYTES: usize = MAX_PART_PLAINTEXT_BYTES - 1;

/// A whole message from an authenticated peer: a large control message or a burst of bulk parts,
/// small enough that a peer's queue holds several.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// Parts in a message from an authenticated peer. 128 full parts make [`MAX_MESSAGE_BYTES`]; twice
/// that leaves room for parts that are not full.
pub const MAX_MESSAGE_PARTS: usize = 256;

/// Values in a message from a client, through all of its levels: a spawn with some ten thousand
/// arguments, variables and labels each. Built in memory, a value takes up to [`VALUE_MEMORY_BYTES`], which
/// is 64 times its shortest encoding. Messages of nodes and of the master, which are trusted more and tell
/// what many clients asked for, are bounded by [`MAX_MESSAGE_BYTES`] alone.
pub const MAX_REQUEST_VALUES: usize = 1 << 17;

/// Arrays and maps within each other in a message: the deepest of ours has 12.
pub const MAX_MESSAGE_NESTING: usize = 32;

/// What a value of a message takes in memory, besides its own bytes: a `String` and its allocation.
pub const VALUE_MEMORY_BYTES: usize = 64;

/// A whole message from a peer that has not authenticated: the largest legitimate one is an
/// INITIATE of [`MAX_INITIATE_PAYLOAD_BYTES`] and some overhead.
pub const MAX_HANDSHAKE_MESSAGE_BYTES: usize = 4 * 1024;

/// Parts in a message from a peer that has not authenticated: HELLO has five with its header.
pub const MAX_HANDSHAKE_PARTS: usize = 5;

/// Payload of INITIATE: so that F0, both noise tags, the sealed key and the payload fit in
/// [`MAX_HANDSHAKE_MESSAGE_BYTES`] with room to spare.
pub const MAX_INITIATE_PAYLOAD_BYTES: usize = 3 * 1024;

/// Payload of WELCOME: with its noise message it stays below [`HELLO_MIN_BYTES`], so the master
/// never answers a HELLO with more bytes than it received.
pub const MAX_WELCOME_PAYLOAD_BYTES: usize = 900;

/// All parts of HELLO together are at least this long (padding makes it so), F0 included.
pub const HELLO_MIN_BYTES: usize = 1_024;

/// A location's name: the longest DNS name (RFC 1035).
pub const MAX_FQDN_BYTES: usize = 253;

/// Rekey a direction after this many sealed messages (design 3.2).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 16;

/// Rekey a direction after its key has been used for this long (design 3.2).
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// Connect anew after this long (design 3.2), so that a stolen session key opens at most an hour.
pub const HANDSHAKE_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// How often the master replaces the secret behind its cookies; a cookie lives for one to two of
/// these.
pub const COOKIE_ROTATE_AFTER: Duration = Duration::from_secs(120);

/// From TCP accept (or connect) to the peer's INITIATE accepted: a few round trips on a bad line.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A link that has heard nothing for this long asks.
pub const PING_AFTER_IDLE: Duration = Duration::from_secs(10);

/// A link that has heard nothing for this long is lost: two pings went unanswered.
pub const LINK_LOST_AFTER: Duration = Duration::from_secs(30);
