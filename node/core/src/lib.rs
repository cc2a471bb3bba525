//! What a node decides, without doing it: containers, processes, volumes and the firewall.
//!
//! Owned by the node agent, which performs the effects. Invariant: no sockets, files, clock,
//! randomness or locks in this crate; time and ids come in as inputs. Next: `firewall`.

pub mod firewall;
