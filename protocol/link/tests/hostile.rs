//! Dialling somebody who is not the location, or not kind: a typed error in time, and no memory
//! beyond the bounds.

#![allow(clippy::unwrap_used, clippy::panic)]

mod router;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use router::{Router, Said, key, location};
use teu_link::{Awaited, Connection, DialError, Dialer, LinkError};
use teu_protocol::zmtp::{ZmtpError, greeting};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// Long enough for a handshake on a loaded machine, short enough for tests that run into it.
const DEADLINE: Duration = Duration::from_millis(600);

/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(5);

/// A header that claims a terabyte; `flags` say of what.
fn terabyte(flags: u8) -> Vec<u8> {
    [&[flags], &(1u64 << 40).to_be_bytes()[..]].concat()
}

const LONG_MESSAGE: u8 = 0b010;
const LONG_COMMAND: u8 = 0b110;
const PING: &[u8] = b"\x04\x0a\x04PING\0\x0aabc";

/// Dials a peer that does as the script says and then neither speaks nor hangs up.
async fn dial_against<S, F>(script: S) -> DialError
where
    S: FnOnce(TcpStream) -> F,
    F: Future<Output = TcpStream>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peer = async {
        let (stream, _) = listener.accept().await.unwrap();
        let _open = script(stream).await;
        std::future::pending::<()>().await
    };
    dial_beside(address, peer).await
}

/// The same with a peer that is ready to talk ZMTP: the script gets the connection after HELLO.
async fn dial_against_ready<S, F>(script: S) -> DialError
where
    S: FnOnce(TcpStream) -> F,
    F: Future<Output = TcpStream>,
{
    let router = Router::bind().await;
    let address = router.address().to_string();
    let peer = async {
        let mut wire = router.accept_zmtp().await;
        wire.recv().await.unwrap();
        let _open = script(wire.stream).await;
        std::future::pending::<()>().await
    };
    dial_beside(address, peer).await
}

async fn dial_beside(address: String, peer: impl Future<Output = ()>) -> DialError {
    let dialer = Dialer::new(address, location(), key(2)).with_deadline(DEADLINE);
    let start = Instant::now();
    let dialled: Result<Connection<Said, Said>, _> = tokio::select! {
        dialled = dialer.dial(b"initiate") => dialled,
        () = peer => unreachable!("the peer waits for ever"),
    };
    assert!(start.elapsed() < DEADLINE + SLACK);
    assert_memory_is_bounded();
    dialled.unwrap_err()
}

/// Neither used nor even reserved, by all these tests together: a reserved terabyte, or the gigabytes
/// of a flood, would show.
fn assert_memory_is_bounded() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(kib("VmPeak:") < 4 << 20, "{status}");
    assert!(kib("VmHWM:") < 256 << 10, "{status}");
}

async fn say(mut stream: TcpStream, bytes: Vec<u8>) -> TcpStream {
    // The dialler may hang up before it has read everything.
    let _ = stream.write_all(&bytes).await;
    stream
}

async fn drip(mut stream: TcpStream, bytes: impl IntoIterator<Item = u8>) -> TcpStream {
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    stream
}

fn violation(error: DialError) -> ZmtpError {
    assert!(error.is_retryable(), "{error:?}");
    let DialError::NotZmtp { source, .. } = error else {
        panic!("{error:?}")
    };
    source
}

fn awaited(error: DialError) -> Awaited {
    let DialError::TimedOut { awaited, .. } = error else {
        panic!("{error:?}")
    };
    awaited
}

#[tokio::test]
async fn a_greeting_and_a_header_of_a_terabyte_are_refused() {
    let message = [&greeting()[..], &terabyte(LONG_MESSAGE)].concat();
    assert_eq!(message.len(), 73);
    let error = dial_against(|stream| say(stream, message)).await;
    assert_eq!(violation(error), ZmtpError::NotReady);
    let command = [&greeting()[..], &terabyte(LONG_COMMAND)].concat();
    let error = dial_against(|stream| say(stream, command)).await;
    assert_eq!(violation(error), ZmtpError::CommandTooLong(1 << 40));
}

#[tokio::test]
async fn another_protocol_is_refused_at_its_first_byte() {
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
        vec![0; 100_000],
    ] {
        let error = dial_against(|stream| say(stream, bytes)).await;
        assert_eq!(violation(error), ZmtpError::Signature);
    }
}

#[tokio::test]
async fn a_socket_that_is_no_router_is_refused() {
    for name in ["DEALER", "PUB", "ROUTER2"] {
        let mut ready = b"\x05READY\x0bSocket-Type\0\0\0".to_vec();
        ready.push(u8::try_from(name.len()).unwrap());
        ready.extend(name.as_bytes());
        let header = [4, u8::try_from(ready.len()).unwrap()];
        let bytes = [&greeting()[..], &header, &ready].concat();
        let error = dial_against(|stream| say(stream, bytes)).await;
        assert_eq!(violation(error), ZmtpError::SocketType);
    }
}

#[tokio::test]
async fn endless_slow_bytes_run_into_the_deadline() {
    let error = dial_against(|stream| drip(stream, greeting().into_iter().cycle().take(63))).await;
    assert_eq!(awaited(error), Awaited::Connection);
    let frame = [0b010, 0, 0, 0, 0, 0, 0, 0x0f, 0xff];
    let bytes = frame.into_iter().chain(std::iter::repeat(7));
    let error = dial_against_ready(|stream| drip(stream, bytes)).await;
    assert_eq!(awaited(error), Awaited::Welcome);
}

#[tokio::test]
async fn endless_pings_run_into_the_deadline() {
    let error = dial_against_ready(|stream| say(stream, PING.repeat(2_000_000))).await;
    assert_eq!(awaited(error), Awaited::Welcome);
}

#[tokio::test]
async fn an_answer_to_hello_beyond_the_bounds_is_refused() {
    let error = dial_against_ready(|stream| say(stream, terabyte(LONG_MESSAGE))).await;
    assert!(matches!(
        violation(error),
        ZmtpError::FrameTooLong { claimed, .. } if claimed == 1 << 40
    ));
    let error = dial_against_ready(|stream| say(stream, b"\x01\x01x".repeat(100))).await;
    assert!(matches!(violation(error), ZmtpError::TooManyParts { .. }));
    let error = dial_against_ready(|stream| say(stream, vec![0, 4, 1, 2, 3, 4])).await;
    assert!(matches!(error, DialError::Handshake(_)), "{error:?}");
}

#[tokio::test]
async fn whoever_breaks_into_a_link_ends_it_and_no_more() {
    for bytes in [
        terabyte(LONG_MESSAGE),
        terabyte(LONG_COMMAND),
        vec![0xff; 99],
    ] {
        let router = Router::bind().await;
        let dialer = Dialer::new(router.address().to_string(), location(), key(2));
        let (mut peer, connection) = tokio::join!(router.accept(), dialer.dial(b""));
        let connection: Connection<Said, Said> = connection.unwrap();
        let (sender, mut receiver) = connection.split();
        peer.wire.stream.write_all(&bytes).await.unwrap();
        let error = timeout(SLACK, receiver.recv()).await.unwrap().unwrap_err();
        assert!(matches!(error, LinkError::Framing(_)), "{error:?}");
        assert!(sender.is_closed());
        assert_memory_is_bounded();
    }
}

#[tokio::test]
async fn a_flood_of_pings_on_a_link_piles_nothing_up() {
    let router = Router::bind().await;
    let dialer = Dialer::new(router.address().to_string(), location(), key(2));
    let (mut peer, connection) = tokio::join!(router.accept(), dialer.dial(b""));
    let connection: Connection<Said, Said> = connection.unwrap();
    let (_sender, mut receiver) = connection.split();
    let flood = tokio::spawn(async move {
        // Takes none of the answers.
        peer.wire
            .stream
            .write_all(&PING.repeat(4_000_000))
            .await
            .unwrap();
        peer.send(&Said::Text("after".into()), &[]).await;
        peer
    });
    let (said, _) = timeout(12 * SLACK, receiver.recv()).await.unwrap().unwrap();
    assert_eq!(said, Said::Text("after".into()));
    assert_memory_is_bounded();
    drop(flood.await.unwrap());
}
