//! Run further processes in a container: collect output, and talk to one over its input.
#![allow(clippy::print_stdout)]

use teu::Lifetime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main]
async fn main() -> teu::Result<()> {
    let location = teu::Location::connect().await?;
    let container = location
        .spawn("busybox")
        .command(["sleep", "3600"])
        .lifetime(Lifetime::Attachment)
        .await?;

    let listing = container.run(["ps"]).output().await?;
    println!("{}", String::from_utf8_lossy(&listing.stdout));

    let mut sort = container.run(["sort"]).stdin(true).await?;
    let mut sorted = sort.stdout();
    if let Some(mut stdin) = sort.stdin() {
        let io = |source| teu::Error::Io {
            attempt: "talk to sort",
            source,
        };
        stdin.write_all(b"pear\napple\nfig\n").await.map_err(io)?;
        stdin.shutdown().await.map_err(io)?;
        let mut text = String::new();
        sorted.read_to_string(&mut text).await.map_err(io)?;
        print!("{text}");
    }
    println!("sort ended: {}", sort.wait().await?.status);

    container.destroy().await?;
    location.close().await;
    Ok(())
}
