//! Prints what one link carries over loopback, in each direction, and its round-trip time. Both ends
//! run in this process and share its cores. Run it with `--release`.
//!
//! Owner: nobody; it is a measurement, for docs/decisions/0010-own-dealer.md.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/router/mod.rs"]
mod router;

use std::time::{Duration, Instant};

use bytes::Bytes;
use router::{Peer, Router, Said, key, location};
use teu_link::{Dialer, LinkReceiver, LinkSender};
use teu_protocol::limits::MAX_PART_CONTENT_BYTES;

const BULK_MESSAGES: u64 = 60_000;
const SMALL_MESSAGES: u64 = 400_000;
/// The far end writes as the link does: several messages at once.
const WRITE_BYTES: usize = 256 * 1024;
const ROUND_TRIPS: u64 = 20_000;

type Link = (LinkSender<Said>, LinkReceiver<Said, Said>);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let router = Router::bind().await;
    let dialer = Dialer::new(router.address().to_string(), location(), key(2));
    let (peer, connection) = tokio::join!(router.accept(), dialer.dial(b""));
    let link = connection.unwrap().split();
    let part = Bytes::from(vec![7; MAX_PART_CONTENT_BYTES]);
    let small = Bytes::from(vec![7; 200]);

    let (peer, link) = upwards("up, full parts", peer, link, BULK_MESSAGES, &part).await;
    let (peer, link) = upwards("up, 200 B", peer, link, SMALL_MESSAGES, &small).await;
    let (peer, link) = downwards("down, full parts", peer, link, BULK_MESSAGES, &part).await;
    let (peer, link) = downwards("down, 200 B", peer, link, SMALL_MESSAGES / 4, &small).await;
    round_trips(peer, link).await;
}

async fn upwards(name: &str, mut peer: Peer, link: Link, count: u64, bulk: &Bytes) -> (Peer, Link) {
    let sender = link.0.clone();
    let piece = bulk.clone();
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for number in 0..count {
            sender
                .send(Said::Number(number), vec![piece.clone()])
                .await
                .unwrap();
        }
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..count {
            let parts = peer.wire.recv_mut().await.unwrap();
            peer.opener.open(parts).unwrap();
        }
        peer
    });
    let peer = receiving.await.unwrap();
    sending.await.unwrap();
    report(name, count, bulk.len(), start.elapsed());
    (peer, link)
}

async fn downwards(
    name: &str,
    mut peer: Peer,
    mut link: Link,
    count: u64,
    bulk: &Bytes,
) -> (Peer, Link) {
    let piece = bulk.clone();
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for number in 0..count {
            let waiting = peer.queue(&Said::Number(number), std::slice::from_ref(&piece));
            if waiting >= WRITE_BYTES {
                peer.flush().await;
            }
        }
        peer.flush().await;
        peer
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..count {
            link.1.recv().await.unwrap();
        }
        link
    });
    let (peer, link) = (sending.await.unwrap(), receiving.await.unwrap());
    report(name, count, bulk.len(), start.elapsed());
    (peer, link)
}

async fn round_trips(mut peer: Peer, mut link: Link) {
    let echo = tokio::spawn(async move {
        while let Some((said, _)) = peer.recv().await {
            peer.send(&said, &[]).await;
        }
    });
    let mut times = Vec::new();
    for number in 0..ROUND_TRIPS {
        let start = Instant::now();
        link.0.send(Said::Number(number), Vec::new()).await.unwrap();
        link.1.recv().await.unwrap();
        times.push(start.elapsed());
    }
    drop(link);
    echo.await.unwrap();
    times.sort();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    println!("{:<18} p50 {:?}, p99 {:?}", "round trip", at(50), at(99));
}

fn report(name: &str, count: u64, size: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    let bits = count as f64 * size as f64 * 8.0;
    println!(
        "{name:<18} {:>9.0} /s {:>7.2} Gbit/s",
        count as f64 / seconds,
        bits / seconds / 1e9
    );
}
