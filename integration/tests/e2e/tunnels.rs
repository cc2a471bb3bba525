//! Tunnels: many at once, half-close, back-pressure, large transfers byte for byte.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use teu::Container;
use teu_integration::world::{World, get};

use crate::{Shared, wait};

pub(crate) const TRIALS: &[Shared] = &[
    (
        "tunnels::large_transfers_are_exact_in_both_directions",
        large,
    ),
    ("tunnels::many_connections_at_once", many),
    (
        "tunnels::a_full_tunnel_answers_on_all_connections_and_resets_one_more",
        full,
    ),
    ("tunnels::half_close_is_respected", half_close),
    (
        "tunnels::a_closed_port_closes_the_connection_at_once",
        closed_port,
    ),
    ("tunnels::a_reader_that_stalls_stalls_nobody_else", stalled),
    ("tunnels::a_server_on_loopback_only_is_reached", loopback),
];

/// Echoes each connection to its end of input.
const ECHO: [&str; 6] = ["nc", "-ll", "-p", "7", "-e", "cat"];

async fn spawn(world: &World, command: &[&str]) -> (teu::Location, Container) {
    let location = world.connect().await.expect("connected");
    let container = location
        .spawn("busybox")
        .command(command.iter().copied())
        .start()
        .await
        .expect("spawned");
    (location, container)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the tunnel listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    stream
}

fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Sends all, half-closes, reads to the end.
fn exchange(mut stream: TcpStream, sent: Vec<u8>) -> Vec<u8> {
    let mut writer = stream.try_clone().expect("a second handle");
    let sender = thread::spawn(move || {
        writer.write_all(&sent).expect("sent");
        writer.shutdown(Shutdown::Write).expect("half-closed");
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("received");
    sender.join().expect("the sender");
    received
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("the thread ends well")
}

fn large(world: &World) {
    wait(async {
        let (location, container) = spawn(world, &ECHO).await;
        container
            .wait_tcp(7, Duration::from_secs(20))
            .await
            .expect("it listens");
        let tunnel = container.tunnel(7).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let sent = pattern(64 << 20, 1);
        let expected = Sha256::digest(&sent);
        let received = blocking(move || exchange(connect(address), sent)).await;
        assert_eq!(received.len(), 64 << 20);
        assert_eq!(Sha256::digest(&received), expected);
        location.close().await;
    });
}

/// All are open before any of them moves bytes. They are opened one by one, for busybox's nc has a
/// backlog of one, and resets connections itself when more than that arrive at once.
fn many(world: &World) {
    wait(async {
        let (location, container) = spawn(world, &ECHO).await;
        container
            .wait_tcp(7, Duration::from_secs(20))
            .await
            .expect("it listens");
        let tunnel = container.tunnel(7).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let open = blocking(move || -> Vec<TcpStream> {
            let open = || {
                let mut stream = connect(address);
                stream.write_all(b"!").expect("sent");
                stream.read_exact(&mut [0; 1]).expect("echoed");
                stream
            };
            (0..64).map(|_| open()).collect()
        });
        let all = open.await.into_iter().zip(0u32..).map(|(stream, seed)| {
            blocking(move || {
                let sent = pattern(500_000, seed);
                assert!(exchange(stream, sent.clone()) == sent, "connection {seed}");
            })
        });
        futures::future::join_all(all).await;
        location.close().await;
    });
}

/// One after the other, each open and idle from then on; then all are asked again.
fn full(world: &World) {
    const CONNECTIONS: usize = 512;
    raise_file_limit();
    wait(async {
        let location = world.connect().await.expect("connected");
        let container = location
            .spawn("busybox")
            .command(ECHO)
            .pids(1_000)
            .start()
            .await
            .expect("spawned");
        container
            .wait_tcp(7, Duration::from_secs(20))
            .await
            .expect("it listens");
        let mut tunnel = container.tunnel(7).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let ask = |stream: &mut TcpStream, n: usize| {
            stream.write_all(b"!").expect("sent");
            let answered = stream.read_exact(&mut [0; 1]);
            assert!(answered.is_ok(), "connection {n}: {answered:?}");
        };
        let open = blocking(move || -> Vec<TcpStream> {
            let open = |n| {
                let mut stream = connect(address);
                ask(&mut stream, n);
                stream
            };
            (0..CONNECTIONS).map(open).collect()
        });
        let mut open = open.await;
        let began = std::time::Instant::now();
        let one_more = blocking(move || connect(address).read(&mut [0; 1])).await;
        assert!(one_more.is_err(), "it is reset: {one_more:?}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        let why = tunnel.refused().await.to_string();
        assert!(why.contains("512 connections"), "{why}");
        blocking(move || {
            for (n, stream) in open.iter_mut().enumerate() {
                ask(stream, n);
            }
        })
        .await;
        location.close().await;
    });
}

/// Both ends of a tunnel's connections are files of this process.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a higher limit of files");
}

fn half_close(world: &World) {
    wait(async {
        // Answers only after the end of input: would hang if the half-close were lost.
        let (location, container) =
            spawn(world, &["nc", "-ll", "-p", "7", "-e", "sha256sum"]).await;
        container
            .wait_tcp(7, Duration::from_secs(20))
            .await
            .expect("it listens");
        let tunnel = container.tunnel(7).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let sum = blocking(move || exchange(connect(address), b"abc".to_vec())).await;
        assert!(
            sum.starts_with(b"ba7816bf8f01cfea"),
            "{}",
            String::from_utf8_lossy(&sum)
        );
        location.close().await;
    });
}

fn closed_port(world: &World) {
    wait(async {
        let (location, container) = spawn(world, &["sleep", "1000"]).await;
        let tunnel = container.tunnel(81).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let read = blocking(move || connect(address).read(&mut [0; 1])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "nothing comes, and soon");
        location.close().await;
    });
}

fn stalled(world: &World) {
    wait(async {
        let (location, container) = spawn(world, &ECHO).await;
        container
            .wait_tcp(7, Duration::from_secs(20))
            .await
            .expect("it listens");
        let flood = ["nc", "-ll", "-p", "8", "-e", "cat", "/dev/zero"];
        let flooding = location
            .spawn("busybox")
            .command(flood)
            .start()
            .await
            .expect("spawned");
        flooding
            .wait_tcp(8, Duration::from_secs(20))
            .await
            .expect("it listens");
        let flood = flooding.tunnel(8).await.expect("a tunnel");
        let unread: Vec<TcpStream> = (0..8).map(|_| connect(flood.local_addr())).collect();
        let tunnel = container.tunnel(7).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let sent = pattern(4 << 20, 3);
        let expected = sent.clone();
        let received = blocking(move || exchange(connect(address), sent)).await;
        assert!(received == expected, "the other connection is exact");
        drop(unread);
        location.close().await;
    });
}

fn loopback(world: &World) {
    wait(async {
        let command = ["httpd", "-f", "-p", "127.0.0.1:80", "-h", "/var/www"];
        let (location, container) = spawn(world, &command).await;
        let tunnel = container.tunnel(80).await.expect("a tunnel");
        let address = tunnel.local_addr();
        let page = blocking(move || get(address, "/")).await;
        assert!(String::from_utf8_lossy(&page).contains("Hello"));
        location.close().await;
    });
}
