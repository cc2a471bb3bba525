//! A real log, read in every way.

use proptest::prelude::*;

use super::*;
use crate::keeper::{LogLimits, LogWriter};

fn write(dir: &Path, process: ProcessId, pieces: &[&str]) -> u64 {
    let logs = dir.join(keeper::LOG_DIR);
    let mut writer = LogWriter::open(&logs, process, LogLimits::default()).unwrap();
    for piece in pieces {
        writer
            .append(keeper::Channel::Stdout, 0, piece.as_bytes())
            .unwrap();
    }
    writer.end()
}

fn rest(mut source: LogSource, max: u64) -> (String, u64) {
    let mut text = Vec::new();
    loop {
        let cursor = source.cursor();
        if source.is_empty() {
            let (reader, from) = source.missing();
            source.add(reader.read(from, 7).unwrap());
        }
        let Some(batch) = source.take(max) else {
            return (String::from_utf8(text).unwrap(), cursor);
        };
        assert!(batch.bytes <= max && batch.bytes > 0);
        text.extend(batch.bulk.concat());
    }
}

const PROCESS: ProcessId = ProcessId::from_bytes([7; 16]);

#[test]
fn the_last_lines_are_the_last_lines_however_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let end = write(
        dir.path(),
        PROCESS,
        &["one\ntw", "o\nthree", "\nfour\nfi", "ve"],
    );
    for (lines, expected) in [
        (0, ""),
        (1, "five"),
        (2, "four\nfive"),
        (3, "three\nfour\nfive"),
        (4, "two\nthree\nfour\nfive"),
        (5, "one\ntwo\nthree\nfour\nfive"),
        (99, "one\ntwo\nthree\nfour\nfive"),
    ] {
        let source = LogSource::open(dir.path(), PROCESS, LogStart::Tail(lines), end).unwrap();
        assert_eq!(
            rest(source, 1000),
            (expected.to_owned(), end),
            "{lines} lines"
        );
    }
    let source = LogSource::open(dir.path(), PROCESS, LogStart::Now, end).unwrap();
    assert_eq!(rest(source, 9).0, "");
}

#[test]
fn who_wants_all_lines_does_not_hold_all_lines() {
    let dir = tempfile::tempdir().unwrap();
    let kib = format!("{}\n", "x".repeat(1023));
    let end = write(dir.path(), PROCESS, &vec![kib.as_str(); 2_000]);
    for lines in [1_990, u32::MAX] {
        let source = LogSource::open(dir.path(), PROCESS, LogStart::Tail(lines), end).unwrap();
        let held: usize = source.pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert!(held <= 2 * SCAN_BYTES, "{held} bytes for {lines} lines");
        let whole = usize::try_from(lines.min(2_000)).unwrap() * kib.len();
        assert_eq!(rest(source, 1 << 20).0.len(), whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_reader_that_stops_anywhere_goes_on_there(
        pieces in proptest::collection::vec("[a-z\n]{1,30}", 1..10),
        max in 1..20_u64,
        stop_after in 0..12_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let end = write(dir.path(), PROCESS, &pieces);
        let mut first = LogSource::open(dir.path(), PROCESS, LogStart::Oldest, end).unwrap();
        let mut text = String::new();
        let mut cursor = first.cursor();
        for _ in 0..stop_after {
            if first.is_empty() {
                let (reader, from) = first.missing();
                first.add(reader.read(from, 5).unwrap());
            }
            let Some(batch) = first.take(max) else { break };
            cursor = batch.cursor;
            text.push_str(std::str::from_utf8(&batch.bulk.concat()).unwrap());
        }
        let again = LogSource::open(dir.path(), PROCESS, LogStart::Cursor(cursor), end).unwrap();
        text.push_str(&rest(again, max).0);
        prop_assert_eq!(text, pieces.concat());
    }
}

#[test]
fn a_batch_has_no_gap_in_it_and_the_next_one_says_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join(keeper::LOG_DIR);
    let mut writer = LogWriter::open(&logs, PROCESS, LogLimits::default()).unwrap();
    let channel = keeper::Channel::Stdout;
    for piece in ["one", "two"] {
        writer.append(channel, 0, piece.as_bytes()).unwrap();
    }
    writer.skip(10);
    writer.append(channel, 0, b"three").unwrap();
    let from = LogStart::Cursor(1);
    let mut source = LogSource::open(dir.path(), PROCESS, from, writer.end()).unwrap();
    let (reader, spot) = source.missing();
    source.add(reader.read(spot, 1_000).unwrap());
    let mut spans = Vec::new();
    while let Some(batch) = source.take(4) {
        spans.push((batch.from, batch.cursor, batch.bulk.concat()));
    }
    let expected = [(1, 5, "netw"), (5, 6, "o"), (16, 20, "thre"), (20, 21, "e")];
    assert_eq!(
        spans,
        expected.map(|(from, to, text)| (from, to, text.into()))
    );
    // What is not in the log follows on, also where it overlaps.
    let record = LogRecord {
        start: 19,
        cursor: 19,
        channel,
        time_ms: 0,
        bytes: b"ee, four".to_vec(),
    };
    source.add_unwritten(vec![record]);
    let batch = source.take(100).unwrap();
    assert_eq!((batch.from, batch.cursor), (21, 27));
    assert_eq!(batch.bulk.concat(), b", four");
}
