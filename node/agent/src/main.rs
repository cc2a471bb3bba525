//! `teu-node`: the agent of one machine.
//!
//! Owner: systemd, or `teu dev`. Invariant: the hidden subcommand `launcher` is dispatched before
//! any thread exists, because keepers are forked from that process.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "launcher") {
        return teu_node::launcher::main();
    }
    ExitCode::FAILURE
}
