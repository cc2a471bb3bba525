//! Prints TEU's numbers beside its peers', measured in the same run on the same machine.
//!
//! `cargo run --release -p teu-integration --bin bench -- spawn tunnel rpc volume`, as root, after a release
//! build of the workspace. Peers: the Docker engine (if one runs), OpenSSH. Numbers are printed, never
//! asserted: docs/explanation/performance.md holds a dated copy.

mod peers;
mod rpc;
mod spawn;
mod statistics;
mod tunnel;
mod volume;

use std::process::ExitCode;

use teu_integration::world::World;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = ["spawn", "tunnel", "rpc", "volume"];
    if wanted.is_empty() || wanted.iter().any(|name| !known.contains(&name.as_str())) {
        eprintln!("usage: bench [spawn] [tunnel] [rpc] [volume]");
        return ExitCode::from(2);
    }
    let world = World::start();
    world.import_busybox();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    for name in wanted {
        let outcome = runtime.block_on(async {
            match name.as_str() {
                "spawn" => spawn::run(&world).await,
                "tunnel" => tunnel::run(&world).await,
                "volume" => volume::run(&world).await,
                _ => rpc::run(&world).await,
            }
        });
        if let Err(error) = outcome {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
