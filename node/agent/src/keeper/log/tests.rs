//! The log, damaged on purpose and read while it grows.

use std::{fs, path::Path};

use teu_protocol::ids::ProcessId;

use super::*;
use crate::keeper::{LOG_DIR, LogLimits};

const PROCESS: ProcessId = ProcessId::from_bytes([7; 16]);
const SMALL: LogLimits = LogLimits {
    segment_bytes: 100,
    segments: 2,
};

fn writer(dir: &Path, limits: LogLimits) -> LogWriter {
    LogWriter::open(&dir.join(LOG_DIR), PROCESS, limits).unwrap()
}

fn text(chunk: &LogChunk) -> String {
    chunk
        .records
        .iter()
        .map(|one| String::from_utf8_lossy(&one.bytes).into_owned())
        .collect()
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir.join(LOG_DIR))
        .unwrap()
        .map(|one| one.unwrap().path())
        .collect();
    all.sort();
    all
}

#[test]
fn what_is_written_is_read_in_order_with_its_channel() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), LogLimits::default());
    log.append(Channel::Stdout, 1, b"one").unwrap();
    log.append(Channel::Stderr, 2, b"two").unwrap();
    let chunk = LogReader::new(dir.path(), PROCESS)
        .read(0, 1 << 20)
        .unwrap();
    assert_eq!(chunk.next, log.end());
    assert_eq!(chunk.lost_before, None);
    assert_eq!(chunk.records[0].channel, Channel::Stdout);
    assert_eq!(chunk.records[1].channel, Channel::Stderr);
    assert_eq!(chunk.records[1].time_ms, 2);
    assert_eq!(text(&chunk), "onetwo");
    let rest = LogReader::new(dir.path(), PROCESS)
        .read(chunk.records[1].cursor, 1)
        .unwrap();
    assert_eq!(text(&rest), "two");
}

#[test]
fn cursors_grow_over_rotation_and_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), SMALL);
    for number in 0..30 {
        log.append(
            Channel::Stdout,
            0,
            format!("{number:02}").repeat(5).as_bytes(),
        )
        .unwrap();
    }
    assert_eq!(log.end(), 30 * (HEADER_BYTES + 10));
    assert_eq!(segments(dir.path()).len(), 2);
    let reader = LogReader::new(dir.path(), PROCESS);
    let first = reader.first_cursor().unwrap();
    let chunk = reader.read(0, 1 << 20).unwrap();
    assert_eq!(chunk.lost_before, Some(first));
    assert_eq!(chunk.records[0].cursor, first);
    assert_eq!(chunk.next, log.end());
    assert!(text(&chunk).ends_with("2929292929"));
    // Small reads see exactly the same.
    let (mut cursor, mut pieces) = (first, String::new());
    while cursor < log.end() {
        let piece = reader.read(cursor, 1).unwrap();
        assert_eq!((piece.records.len(), piece.lost_before), (1, None));
        pieces.push_str(&text(&piece));
        cursor = piece.next;
    }
    assert_eq!(pieces, text(&chunk));
}

#[test]
fn a_torn_last_record_is_not_there_and_is_cut_off_by_the_next_writer() {
    let whole = {
        let dir = tempfile::tempdir().unwrap();
        writer(dir.path(), LogLimits::default())
            .append(Channel::Stdout, 0, b"torn")
            .unwrap();
        fs::read(&segments(dir.path())[0]).unwrap()
    };
    for cut in 0..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), LogLimits::default());
        log.append(Channel::Stdout, 0, b"kept").unwrap();
        let end = log.end();
        let mut bytes = fs::read(&segments(dir.path())[0]).unwrap();
        bytes.extend(&whole[..cut]);
        fs::write(&segments(dir.path())[0], bytes).unwrap();
        let reader = LogReader::new(dir.path(), PROCESS);
        let chunk = reader.read(0, 1 << 20).unwrap();
        assert_eq!(
            (text(&chunk).as_str(), chunk.next),
            ("kept", end),
            "cut at {cut}"
        );
        let mut again = writer(dir.path(), LogLimits::default());
        assert_eq!(again.end(), end);
        again.append(Channel::Stdout, 0, b"more").unwrap();
        assert_eq!(text(&reader.read(0, 1 << 20).unwrap()), "keptmore");
    }
}

#[test]
fn large_output_is_split_and_comes_back_byte_exact() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(
        dir.path(),
        LogLimits {
            segment_bytes: 200_000,
            segments: 100,
        },
    );
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    log.append(Channel::Stdout, 0, &bytes).unwrap();
    let reader = LogReader::new(dir.path(), PROCESS);
    let (mut cursor, mut back) = (0, Vec::<u8>::new());
    loop {
        let chunk = reader.read(cursor, 50_000).unwrap();
        if chunk.records.is_empty() {
            break;
        }
        chunk.records.iter().for_each(|one| back.extend(&one.bytes));
        cursor = chunk.next;
    }
    assert_eq!(back, bytes);
}

#[test]
fn a_cursor_inside_a_record_is_an_error_and_one_beyond_the_end_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), LogLimits::default());
    log.append(Channel::Stdout, 0, &[0xff; 100]).unwrap();
    let reader = LogReader::new(dir.path(), PROCESS);
    assert!(matches!(
        reader.read(14, 100),
        Err(LogReadError::NotARecord { cursor: 14, .. })
    ));
    let beyond = reader.read(log.end() + 5, 100).unwrap();
    assert!(beyond.records.is_empty());
    let nobody = LogReader::new(dir.path(), ProcessId::from_bytes([1; 16]));
    assert!(nobody.read(0, 100).unwrap().records.is_empty());
}
