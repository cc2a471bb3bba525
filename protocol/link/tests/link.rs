//! Sealed messages over loopback: order, bulk, back-pressure, heartbeats, and losing the peer.

#![allow(clippy::unwrap_used, clippy::panic)]

mod router;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use router::{Peer, Router, Said, key, location};
use socket2::SockRef;
use teu_link::{Dialer, LinkError, LinkReceiver, LinkSender};
use tokio::{io::AsyncWriteExt, time::timeout};

/// "At once", for a machine under load.
const AT_ONCE: Duration = Duration::from_millis(800);

type Link = (LinkSender<Said>, LinkReceiver<Said, Said>);

async fn connected() -> (Peer, Link) {
    let router = Router::bind().await;
    let dialer = Dialer::new(router.address().to_string(), location(), key(2));
    let (peer, connection) = tokio::join!(router.accept(), dialer.dial(b"initiate"));
    (peer, connection.unwrap().split())
}

#[tokio::test]
async fn messages_and_bulk_cross_in_both_directions_in_order() {
    let (mut peer, (sender, mut receiver)) = connected().await;
    let bulk = Bytes::from(
        (0..200_000u32)
            .flat_map(u32::to_be_bytes)
            .collect::<Vec<u8>>(),
    );
    for number in 0..50 {
        sender
            .send(Said::Number(number), vec![bulk.slice(..number as usize)])
            .await
            .unwrap();
    }
    sender
        .send(Said::Text("large".into()), vec![bulk.clone()])
        .await
        .unwrap();
    for number in 0..50 {
        let (said, received) = peer.recv().await.unwrap();
        assert_eq!(said, Said::Number(number));
        assert_eq!(received, bulk.slice(..number as usize));
        peer.send(&Said::Number(number), &[received]).await;
    }
    assert_eq!(
        peer.recv().await.unwrap(),
        (Said::Text("large".into()), bulk.clone())
    );
    for number in 0..50 {
        let (said, received) = receiver.recv().await.unwrap();
        assert_eq!(said, Said::Number(number));
        assert_eq!(received.concat(), bulk.slice(..number as usize));
    }
    peer.send(&Said::Text("large".into()), std::slice::from_ref(&bulk))
        .await;
    assert_eq!(receiver.recv().await.unwrap().1.concat(), bulk);
}

#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_sender_within_a_bound() {
    let (mut peer, (sender, _receiver)) = connected().await;
    let piece = Bytes::from(vec![7; 64 * 1024]);
    let mut sent = 0u64;
    // The kernel's buffers hold some megabytes, the link one and what it has just sealed.
    let bound = 64 * 1024 * 1024;
    loop {
        let send = sender.send(Said::Number(sent), vec![piece.clone()]);
        if timeout(Duration::from_millis(500), send).await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent * 64 * 1024 < bound, "the sender is not stopped");
    }
    // And it goes on where it stopped, nothing lost.
    for number in 0..sent {
        assert_eq!(peer.recv().await.unwrap().0, Said::Number(number));
    }
    sender.send(Said::Number(sent), vec![]).await.unwrap();
    assert_eq!(peer.recv().await.unwrap().0, Said::Number(sent));
}

#[tokio::test]
async fn a_ping_is_answered_and_kept_from_the_reader() {
    let (mut peer, (_sender, mut receiver)) = connected().await;
    peer.send(&Said::Ping(77), &[]).await;
    peer.send(&Said::Text("after".into()), &[]).await;
    assert_eq!(receiver.recv().await.unwrap().0, Said::Text("after".into()));
    assert_eq!(peer.recv().await.unwrap().0, Said::Pong(77));
}

#[tokio::test]
async fn an_idle_link_pings_and_a_silent_peer_is_given_up() {
    let (mut peer, (sender, mut receiver)) = connected().await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let (error, pings) = tokio::join!(receiver.recv(), async {
        let mut pings = 0;
        while let Ok(Some((Said::Ping(_), _))) = timeout(Duration::from_secs(25), peer.recv()).await
        {
            pings += 1;
        }
        pings
    });
    assert!(matches!(error, Err(LinkError::Silent(_))), "{error:?}");
    assert!(start.elapsed() >= Duration::from_secs(30));
    assert_eq!(pings, 2);
    assert!(sender.send(Said::Number(1), vec![]).await.is_err());
}

#[tokio::test]
async fn a_large_message_on_a_slow_line_is_no_silence() {
    let (mut peer, (_sender, mut receiver)) = connected().await;
    let control = rmp_serde::to_vec_named(&Said::Number(1)).unwrap();
    let bulk = vec![Bytes::from_static(b"piece"); 5];
    let mut frames = BytesMut::new();
    peer.sealer
        .seal_framed(&control, &bulk, Duration::ZERO, &mut frames)
        .unwrap();
    // Two bytes of header, eight of F0; then a part and its header each time.
    let mut rest = frames.split_off(2 + 8);
    let part = 2 + 5 + 17;
    peer.wire.stream.write_all(&frames).await.unwrap();
    tokio::time::pause();
    let slow_line = async {
        while !rest.is_empty() {
            let next = rest.split_to(part.min(rest.len()));
            peer.wire.stream.write_all(&next).await.unwrap();
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
    };
    let (received, ()) = tokio::join!(receiver.recv(), slow_line);
    let (said, bulk) = received.unwrap();
    assert_eq!((said, bulk.concat().len()), (Said::Number(1), 25));
}

/// How long `recv` takes to notice that the peer is gone.
async fn time_to_notice(receiver: &mut LinkReceiver<Said, Said>) -> Duration {
    let start = Instant::now();
    let error = timeout(Duration::from_secs(20), receiver.recv())
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, LinkError::Closed), "{error:?}");
    start.elapsed()
}

#[tokio::test]
async fn a_peer_that_dies_is_noticed_at_once() {
    for reset in [false, true] {
        let (peer, (sender, mut receiver)) = connected().await;
        if reset {
            // What a machine says that has rebooted, and a process that died with data unread.
            SockRef::from(&peer.wire.stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        drop(peer);
        assert!(time_to_notice(&mut receiver).await < AT_ONCE);
        assert!(sender.is_closed());
        assert!(matches!(
            sender.send(Said::Number(1), vec![]).await,
            Err(LinkError::Closed)
        ));
        assert!(receiver.recv().await.is_err());
    }
}

#[tokio::test]
async fn a_sender_that_waits_for_room_is_told_when_the_peer_dies() {
    let (peer, (sender, mut receiver)) = connected().await;
    let piece = Bytes::from(vec![7; 64 * 1024]);
    // Until one send waits, because the kernel's buffers and the link's budget are full.
    let blocked = loop {
        let (sender, piece) = (sender.clone(), piece.clone());
        let mut send = tokio::spawn(async move { sender.send(Said::Number(0), vec![piece]).await });
        if timeout(Duration::from_millis(300), &mut send)
            .await
            .is_err()
        {
            break send;
        }
    };
    drop(peer);
    assert!(time_to_notice(&mut receiver).await < AT_ONCE);
    let error = timeout(AT_ONCE, blocked).await.unwrap().unwrap();
    assert!(matches!(error, Err(LinkError::Closed)), "{error:?}");
}

#[tokio::test]
async fn what_was_sent_before_the_end_arrives() {
    let (mut peer, (sender, receiver)) = connected().await;
    for number in 0..100 {
        sender
            .send(Said::Number(number), vec![Bytes::from(vec![1; 10_000])])
            .await
            .unwrap();
    }
    drop((sender, receiver));
    for number in 0..100 {
        assert_eq!(peer.recv().await.unwrap().0, Said::Number(number));
    }
    assert!(peer.recv().await.is_none());
}

#[tokio::test]
async fn what_the_peer_said_before_it_hung_up_is_read() {
    let (mut peer, (_sender, mut receiver)) = connected().await;
    for number in 0..10 {
        peer.send(&Said::Number(number), &[]).await;
    }
    drop(peer);
    for number in 0..10 {
        assert_eq!(receiver.recv().await.unwrap().0, Said::Number(number));
    }
    assert!(matches!(receiver.recv().await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn a_forged_message_ends_the_link() {
    let (mut peer, (_sender, mut receiver)) = connected().await;
    let mut parts = peer.sealer.seal(b"\xc0", &[], Duration::ZERO).unwrap();
    let mut damaged = parts.pop().unwrap().to_vec();
    damaged[0] ^= 1;
    parts.push(damaged.into());
    peer.wire.send(&parts).await;
    assert!(matches!(receiver.recv().await, Err(LinkError::Open(_))));
}

#[tokio::test]
async fn a_message_too_long_is_refused_and_the_link_goes_on() {
    let (mut peer, (sender, _receiver)) = connected().await;
    let too_long = vec![Bytes::from(vec![0; 9 * 1024 * 1024])];
    let refused = sender.send(Said::Number(1), too_long).await;
    assert!(matches!(refused, Err(LinkError::Seal(_))), "{refused:?}");
    sender.send(Said::Number(2), vec![]).await.unwrap();
    assert_eq!(peer.recv().await.unwrap().0, Said::Number(2));
}
