//! Connect, spawn a web server, tunnel to it, fetch a page, destroy it.
#![allow(clippy::print_stdout)]
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let location = teu::Location::connect().await?;
    let command = ["httpd", "-f", "-p", "80", "-h", "/www"];
    let web = location
        .spawn("busybox")
        .file("/www/index.html", "hello from a container\n")
        .command(command)
        .await?;
    web.wait_tcp(80, std::time::Duration::from_secs(10)).await?;
    let tunnel = web.tunnel(80).await?;
    let mut http = tokio::net::TcpStream::connect(tunnel.local_addr()).await?;
    http.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    http.read_to_string(&mut answer).await?;
    print!("{answer}");
    web.destroy().await?;
    location.close().await;
    Ok(())
}
