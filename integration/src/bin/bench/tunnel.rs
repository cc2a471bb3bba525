//! `tunnel`: bytes a second from a container to localhost; `ssh -L` and plain loopback beside it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use teu_integration::world::{World, free_port};

use super::{peers, statistics::Failure};

/// Bytes to move for one measurement.
const BYTES: u64 = 2 << 30;

pub(crate) async fn run(world: &World) -> Result<(), Failure> {
    println!("tunnel: {} GiB, one connection", BYTES >> 30);
    let location = world.connect().await?;
    let source = ["nc", "-ll", "-p", "9", "-e", "cat", "/dev/zero"];
    let container = location.spawn("busybox").command(source).start().await?;
    container
        .wait_tcp(9, std::time::Duration::from_secs(20))
        .await?;
    let tunnel = container.tunnel(9).await?;
    print(
        "teu    container to localhost",
        download(tunnel.local_addr()).await?,
    );
    container.destroy().await?;
    location.close().await;

    let zero = zeros()?;
    let ssh = peers::Ssh::start()?;
    for cipher in ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        let (mut client, port) = ssh.forward(zero, cipher)?;
        let speed = download(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        print(&format!("ssh -L {cipher}"), speed);
        client.kill()?;
        client.wait()?;
    }
    print(
        "loopback, nothing between",
        download(SocketAddr::from(([127, 0, 0, 1], zero))).await?,
    );
    Ok(())
}

fn print(name: &str, bytes_per_second: f64) {
    println!("{name:<44} {:>9.2} Gbit/s", bytes_per_second * 8.0 / 1e9);
}

/// Bytes a second that come from an address.
async fn download(address: SocketAddr) -> Result<f64, Failure> {
    let measured = tokio::task::spawn_blocking(move || -> std::io::Result<f64> {
        let mut stream = TcpStream::connect(address)?;
        let mut buffer = vec![0; 256 * 1024];
        let started = Instant::now();
        let mut received = 0;
        while received < BYTES {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => received += count as u64,
            }
        }
        Ok(received as f64 / started.elapsed().as_secs_f64())
    });
    Ok(measured.await??)
}

/// Serves zeros to whoever connects; gives the port.
fn zeros() -> Result<u16, Failure> {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let block = vec![0; 256 * 1024];
                while stream.write_all(&block).is_ok() {}
            });
        }
    });
    Ok(port)
}
