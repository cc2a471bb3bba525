//! What travels between TEU's parts, and nothing else.
//!
//! Pure: no sockets, files, clock or randomness. Time, random bytes and ids are inputs.
//! `docs/protocol.md` describes the same bytes in prose, exactly enough for another language.
//!
//! Start at [`message`] for what can be said, [`noise`] for how it is sealed,
//! [`zmtp`] for how it is framed.

pub mod flow;
pub mod header;
pub mod heartbeat;
pub mod ids;
pub mod image_config;
pub mod limits;
pub mod message;
pub mod noise;
pub mod tar_stream;
pub mod zmtp;
