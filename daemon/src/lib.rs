//! What every daemon of TEU needs: a log that cannot end it, tasks that cannot end unseen, files that
//! are whole and durable, and memory that goes back.
//!
//! Invariant: nothing here knows what a daemon does. Start at [`log`], [`tasks`], [`file`].

pub mod file;
pub mod log;
pub mod memory;
pub mod tasks;
