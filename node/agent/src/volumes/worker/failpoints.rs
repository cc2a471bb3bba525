//! The named places between two steps of an order, where tests end the process.
//!
//! Owner: the worker. Invariant: each name here is reached by one `fail_point!`. They exist only with
//! the cargo feature `failpoints`. Next: the pools' own, in `pool/failpoints.rs`.

/// All of them.
pub const FAILPOINTS: &[&str] = &[
    // The pool has the volume; its owner is not set yet.
    "volume-create-made",
    // It is durable; nobody has been told.
    "volume-create-answer",
    // Nothing of it is left; nobody has been told.
    "volume-destroy-answer",
    // What is about to be done is in the journal.
    "volume-snapshot-begun",
    // It is durable; nobody has been told.
    "volume-snapshot-answer",
    // What is about to be done is in the journal.
    "volume-destroy-snapshot-begun",
    // It is gone; nobody has been told.
    "volume-destroy-snapshot-answer",
    // Containers stand still; the pool has rolled back; they do not see it yet.
    "volume-rollback-made",
    // Containers see it and run; nobody has been told.
    "volume-rollback-answer",
    // It is durable; nobody has been told.
    "volume-clone-answer",
    // The bound is changed; the record does not say so yet.
    "volume-quota-made",
    // The pool has all of the stream; nobody has been told.
    "volume-import-answer",
    // A scheduled snapshot is made; the oldest is still there.
    "volume-schedule-made",
];
