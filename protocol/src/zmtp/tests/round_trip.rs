//! What one side encodes, the other decodes.

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::zmtp::{encode_chunks, encode_message};

#[test]
fn router_and_dealer_get_ready_with_each_other() {
    let mut router = Decoder::new(SocketRole::Router, TIGHT);
    let mut dealer = Decoder::new(SocketRole::Dealer, TIGHT);
    let [Event::Reply(router_ready)] = &everything(&mut router, &greeting()).unwrap()[..] else {
        panic!("the router answers a greeting");
    };
    let [Event::Reply(dealer_ready)] = &everything(&mut dealer, &greeting()).unwrap()[..] else {
        panic!("the dealer answers a greeting");
    };
    assert_eq!(
        &router_ready[..],
        b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"
    );
    assert_eq!(
        everything(&mut router, dealer_ready).unwrap(),
        [Event::Ready]
    );
    assert_eq!(
        everything(&mut dealer, router_ready).unwrap(),
        [Event::Ready]
    );
}

#[test]
fn greetings_of_3_0_and_3_1_are_accepted_whatever_their_filler() {
    for minor in [0, 1, 9] {
        let mut bytes = greeting();
        bytes[11] = minor;
        bytes[32] = 1;
        bytes[40] = 99;
        let mut decoder = Decoder::new(SocketRole::Router, TIGHT);
        assert_eq!(everything(&mut decoder, &bytes).unwrap().len(), 1);
    }
}

#[test]
fn ping_is_answered_with_its_context_and_pong_is_not() {
    let mut decoder = ready(TIGHT);
    let events = everything(&mut decoder, b"\x04\x0a\x04PING\0\x0aabc").unwrap();
    assert_eq!(
        events,
        [Event::Reply(Bytes::from_static(b"\x04\x08\x04PONGabc"))]
    );
    assert_eq!(everything(&mut decoder, b"\x04\x05\x04PONG").unwrap(), []);
    let longest = b"\x04\x17\x04PING\0\0sixteen bytes ok";
    assert!(matches!(
        everything(&mut decoder, longest).unwrap()[..],
        [Event::Reply(_)]
    ));
}

#[test]
fn frames_of_both_lengths_are_the_rfcs() {
    let mut encoded = BytesMut::new();
    encode_message(
        &[Bytes::from_static(b"ab"), Bytes::from(vec![7; 256])],
        &mut encoded,
    );
    assert_eq!(&encoded[..4], b"\x01\x02ab");
    assert_eq!(&encoded[4..13], b"\x02\0\0\0\0\0\0\x01\0");
    assert_eq!(encoded.len(), 13 + 256);
}

#[test]
fn limits_can_be_raised_between_messages() {
    let mut decoder = ready(TIGHT);
    let mut encoded = BytesMut::new();
    encode_message(&[Bytes::from(vec![1; 1500])], &mut encoded);
    decoder.set_limits(Limits::AUTHENTICATED);
    assert_eq!(everything(&mut decoder, &encoded).unwrap().len(), 1);
}

#[test]
fn the_hint_is_what_the_next_step_needs_and_no_more_than_the_limits() {
    let mut decoder = Decoder::new(SocketRole::Router, TIGHT);
    assert_eq!(decoder.bytes_missing(60), 4);
    decoder = ready(TIGHT);
    assert_eq!(
        everything(&mut decoder, b"\x02\0\0\0\0\0\0\x03\xe8abc").unwrap(),
        []
    );
    assert_eq!(decoder.bytes_missing(3), 997);
}

fn messages() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let part = prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 250..400)];
    vec(vec(part, 1..=4), 0..6)
}

proptest! {
    #[test]
    fn any_messages_survive_any_fragmentation(
        messages in messages(),
        cuts in vec(1usize..300, 1..50),
        vectored in any::<bool>(),
    ) {
        let messages: Vec<Vec<Bytes>> = messages
            .into_iter()
            .map(|message| message.into_iter().map(Bytes::from).collect())
            .collect();
        let mut wire = Vec::new();
        wire.extend_from_slice(&greeting());
        wire.extend_from_slice(LIBZMQ_READY);
        let (mut scratch, mut encoded) = (BytesMut::new(), BytesMut::new());
        let mut chunks = VecDeque::new();
        for message in &messages {
            encode_chunks(message, &mut scratch, &mut chunks);
            encode_message(message, &mut encoded);
        }
        let chunks = Vec::from(chunks).concat();
        prop_assert_eq!(&chunks[..], &encoded[..]);
        wire.extend_from_slice(if vectored { &chunks } else { &encoded });

        let mut decoder = Decoder::new(SocketRole::Router, TIGHT);
        let mut buffer = BytesMut::new();
        let mut received = Vec::new();
        let mut rest = &wire[..];
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            buffer.extend_from_slice(piece);
            rest = after;
            while let Some(event) = decoder.decode(&mut buffer).unwrap() {
                if let Event::Message(parts) = event {
                    received.push(parts);
                }
            }
        }
        prop_assert_eq!(received, messages);
        prop_assert!(buffer.is_empty());
    }
}

#[test]
fn large_parts_are_not_copied_for_vectored_writing() {
    let large = Bytes::from(vec![1; 60_000]);
    let (mut scratch, mut queue) = (BytesMut::new(), VecDeque::new());
    let parts = [
        Bytes::from_static(b"head"),
        large.clone(),
        Bytes::from_static(b"tail"),
    ];
    encode_chunks(&parts, &mut scratch, &mut queue);
    assert_eq!(queue.len(), 3);
    assert_eq!(queue[1].as_ptr(), large.as_ptr());
}

#[test]
fn bodies_are_split_off_and_not_copied() {
    let mut decoder = ready(TIGHT);
    let mut encoded = BytesMut::new();
    encode_message(&[Bytes::from(vec![1; 900])], &mut encoded);
    let body = encoded[9..].as_ptr();
    let event = decoder.decode(&mut encoded).unwrap().unwrap();
    let Event::Message(parts) = event else {
        panic!("a message was sent")
    };
    assert_eq!(parts[0].as_ptr(), body);
}
