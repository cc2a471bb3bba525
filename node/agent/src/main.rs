//! `teu-node`: the agent of one machine.
//!
//! Owner: systemd, or `teu dev`. Invariant: the hidden subcommands `launcher` and `unpack` are
//! dispatched before any thread exists: keepers are forked from the one, the other confines itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "launcher") {
        return teu_node::launcher::main();
    }
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "unpack") {
        return teu_node::layers::unpack::main(&std::env::args().nth(2).unwrap_or_default());
    }
    ExitCode::FAILURE
}
