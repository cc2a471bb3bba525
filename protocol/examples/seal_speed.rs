//! Prints how fast one core seals and opens messages. Run it with `--release`.
//!
//! Owner: nobody; it is a measurement, for docs/decisions/0001-sealed-part-trailer.md and 0010-own-dealer.md.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use teu_protocol::{
    limits::MAX_PART_CONTENT_BYTES,
    noise::{
        ClientHandshake, ClientStep, HelloCheck, LocationIdentity, Opener, Sealer, ServerHandshake,
        StaticKey, Suite,
    },
    zmtp::{Decoder, Event, Limits, SocketRole, greeting},
};

const BATCH: u64 = 16;
const TIME: Duration = Duration::from_millis(700);

fn main() {
    for suite in [Suite::AesGcmSha256, Suite::ChaChaPolyBlake2s] {
        println!("{}", suite.noise_name());
        handshakes(suite);
        for (name, control, bulk) in [
            ("256 B control", 256, vec![]),
            ("full bulk part", 60, vec![MAX_PART_CONTENT_BYTES]),
            ("16 bulk parts", 60, vec![MAX_PART_CONTENT_BYTES; 16]),
        ] {
            messages(suite, name, control, &bulk);
        }
    }
}

fn connect(suite: Suite) -> (Sealer, Opener) {
    let key = StaticKey::from_bytes([1; 32]).unwrap();
    let location = LocationIdentity::new("x.example.org", key.public(), 1).unwrap();
    let check = HelloCheck::new(vec![(location.clone(), key)]);
    let ours = StaticKey::from_bytes([2; 32]).unwrap();
    let (client, hello) = ClientHandshake::new(&location, &ours, suite, [3; 32]).unwrap();
    let hello = check.check(&hello).unwrap();
    let (server, welcome) = ServerHandshake::accept(&hello, [4; 32], b"").unwrap();
    let Ok(ClientStep::Welcomed(welcomed)) = client.on_message(&welcome) else {
        return connect(suite);
    };
    let (initiate, sealer, _) = welcomed.initiate(b"", Duration::ZERO).unwrap();
    (
        sealer,
        server
            .on_initiate(&initiate, Duration::ZERO)
            .unwrap()
            .opener,
    )
}

fn handshakes(suite: Suite) {
    let start = Instant::now();
    let mut count = 0u32;
    while start.elapsed() < TIME {
        black_box(connect(suite));
        count += 1;
    }
    println!(
        "  handshake, both sides   {:>9.0} /s",
        f64::from(count) / start.elapsed().as_secs_f64()
    );
}

fn messages(suite: Suite, name: &str, control: usize, bulk: &[usize]) {
    let (mut sealer, mut opener) = connect(suite);
    let control = vec![7; control];
    let bulk: Vec<Bytes> = bulk
        .iter()
        .map(|size| Bytes::from(vec![9; *size]))
        .collect();
    let bytes = control.len() + bulk.iter().map(Bytes::len).sum::<usize>();
    let mut decoder = ready_decoder();
    let mut out = BytesMut::new();
    let [mut sealing, mut framing, mut opening, mut copying] = [Duration::ZERO; 4];
    let mut batches = 0u64;
    while sealing + framing + opening + copying < 4 * TIME {
        let start = Instant::now();
        let sealed: Vec<_> = (0..BATCH)
            .map(|_| sealer.seal(&control, &bulk, Duration::ZERO).unwrap())
            .collect();
        sealing += start.elapsed();
        // The parts of a message share one allocation: they are copied first.
        let start = Instant::now();
        for message in sealed {
            black_box(opener.open(message).unwrap());
        }
        copying += start.elapsed();
        for _ in 0..BATCH {
            let start = Instant::now();
            sealer
                .seal_framed(&control, &bulk, Duration::ZERO, &mut out)
                .unwrap();
            framing += start.elapsed();
            let Ok(Some(Event::Message(parts))) = decoder.decode_mut(&mut out) else {
                return;
            };
            let start = Instant::now();
            black_box(opener.open(parts).unwrap());
            opening += start.elapsed();
        }
        batches += 1;
    }
    for (what, time) in [
        ("seal", sealing),
        ("seal_framed", framing),
        ("open", opening),
        ("copy, open", copying),
    ] {
        let seconds = time.as_secs_f64() / (batches * BATCH) as f64;
        let (messages, gigabytes) = (1.0 / seconds, bytes as f64 / seconds / 1e9);
        println!("  {name:<16} {what:<12} {messages:>9.0} /s {gigabytes:>6.2} GB/s");
    }
}

/// A master's decoder whose peer is ready.
fn ready_decoder() -> Decoder {
    let mut decoder = Decoder::new(SocketRole::Router, Limits::AUTHENTICATED);
    let mut received = BytesMut::from(&greeting()[..]);
    received.extend_from_slice(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER");
    while decoder.decode(&mut received).unwrap().is_some() {}
    decoder
}
