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
    println!("{}", listing.stdout_str());

    let mut sort = container.run(["sort"]).stdin(true).await?;
    let mut sorted = sort.stdout();
    if let Some(mut stdin) = sort.stdin() {
        stdin.write_all(b"pear\napple\nfig\n").await?;
        stdin.shutdown().await?;
        let mut text = String::new();
        sorted.read_to_string(&mut text).await?;
        print!("{text}");
    }
    println!("sort ended: {}", sort.wait().await?.status);

    container.destroy().await?;
    location.close().await;
    Ok(())
}
