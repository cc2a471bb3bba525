//! Prints how fast one core seals and opens messages. Run it with `--release`.
//!
//! Owner: nobody; it is a measurement, for docs/decisions/0001-sealed-part-trailer.md.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use teu_protocol::{
    limits::MAX_PART_CONTENT_BYTES,
    noise::{
        ClientHandshake, ClientStep, HelloCheck, LocationIdentity, Opener, Sealer, ServerHandshake,
        StaticKey, Suite,
    },
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
    let (mut sealing, mut opening, mut copying) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut batches = 0u64;
    while sealing + opening + copying < 3 * TIME {
        let start = Instant::now();
        let sealed: Vec<_> = (0..BATCH)
            .map(|_| sealer.seal(&control, &bulk, Duration::ZERO).unwrap())
            .collect();
        sealing += start.elapsed();
        // Every other batch as `zeromq` hands parts over: shared, so they must be copied first.
        let shared = batches.is_multiple_of(2);
        let held = shared.then(|| sealed.clone());
        let start = Instant::now();
        for message in sealed {
            black_box(opener.open(message).unwrap());
        }
        *(if shared { &mut copying } else { &mut opening }) += start.elapsed();
        drop(held);
        batches += 1;
    }
    let rate = |count: u64, time: Duration| {
        let seconds = time.as_secs_f64();
        let (messages, bytes) = (
            count as f64 / seconds,
            (count * bytes as u64) as f64 / seconds,
        );
        format!("{:>10.0} /s {:>6.2} GB/s", messages, bytes / 1e9)
    };
    println!("  {name:<16} seal    {}", rate(batches * BATCH, sealing));
    println!(
        "  {name:<16} open    {}",
        rate(batches / 2 * BATCH, opening)
    );
    println!(
        "  {name:<16} copying {}",
        rate(batches / 2 * BATCH, copying)
    );
}
