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
        .read(0.into(), 1 << 20)
        .unwrap();
    assert_eq!(chunk.next.cursor, log.end());
    assert_eq!(chunk.records[0].start, 0);
    assert_eq!(chunk.records[0].channel, Channel::Stdout);
    assert_eq!(chunk.records[1].channel, Channel::Stderr);
    assert_eq!(chunk.records[1].time_ms, 2);
    assert_eq!(text(&chunk), "onetwo");
    let rest = LogReader::new(dir.path(), PROCESS)
        .read(chunk.records[1].start.into(), 1)
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
    assert_eq!(log.end(), 30 * 10);
    assert_eq!(segments(dir.path()).len(), 2);
    let reader = LogReader::new(dir.path(), PROCESS);
    let first = reader.first_cursor().unwrap();
    let chunk = reader.read(0.into(), 1 << 20).unwrap();
    assert!(first > 0);
    assert_eq!(chunk.records[0].start, first, "all before is lost");
    assert_eq!(chunk.next.cursor, log.end());
    assert!(text(&chunk).ends_with("2929292929"));
    // Small reads see exactly the same, from any byte on.
    for begin in [first, first + 3, first + 10, log.end() - 1] {
        let (mut spot, mut pieces) = (Spot::from(begin), String::new());
        while Spot::from(log.end()).cursor > spot.cursor {
            let piece = reader.read(spot, 1).unwrap();
            assert_eq!(piece.records.len(), 1);
            let skip = spot.cursor - piece.records[0].start;
            pieces.push_str(&text(&piece)[skip as usize..]);
            spot = piece.next;
        }
        let skip = (begin - first) as usize;
        assert_eq!(pieces, text(&chunk)[skip..]);
    }
}

#[test]
fn what_was_not_written_is_a_gap_with_its_exact_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), LogLimits::default());
    log.append(Channel::Stdout, 0, b"before").unwrap();
    log.skip(1_000);
    log.append(Channel::Stderr, 0, b"behind").unwrap();
    let reader = LogReader::new(dir.path(), PROCESS);
    let chunk = reader.read(0.into(), 1 << 20).unwrap();
    let spans: Vec<_> = chunk
        .records
        .iter()
        .map(|one| (one.start, one.end()))
        .collect();
    assert_eq!(spans, [(0, 6), (1_006, 1_012)]);
    // Also after the keeper's end.
    assert_eq!(writer(dir.path(), LogLimits::default()).end(), 1_012);
}

#[test]
fn a_log_of_version_0_is_read_and_followed_by_the_present_form() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join(LOG_DIR);
    fs::create_dir_all(&logs).unwrap();
    let old = |channel: u8, bytes: &[u8]| {
        let mut record = vec![channel];
        record.extend(7_u64.to_le_bytes());
        record.extend((bytes.len() as u32).to_le_bytes());
        record.extend(bytes);
        record
    };
    let contents = [old(1, b"one"), old(2, b"three")].concat();
    let name = format!("{PROCESS}.{:020}.log", 100);
    fs::write(logs.join(name), &contents).unwrap();
    let end = 100 + contents.len() as u64;
    let mut log = writer(dir.path(), LogLimits::default());
    assert_eq!(log.end(), end);
    log.append(Channel::Stdout, 0, b"new").unwrap();
    let chunk = LogReader::new(dir.path(), PROCESS)
        .read(0.into(), 1 << 20)
        .unwrap();
    let spans: Vec<_> = chunk
        .records
        .iter()
        .map(|one| (one.start, one.cursor, one.end()))
        .collect();
    assert_eq!(spans, [(100, 113, 116), (116, 129, 134), (134, 134, 137)]);
    assert_eq!(text(&chunk), "onethreenew");
    // A cursor within an old record is found again.
    let rest = LogReader::new(dir.path(), PROCESS)
        .read(130.into(), 1)
        .unwrap();
    assert_eq!(rest.records[0].start, 116);
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
        let chunk = reader.read(0.into(), 1 << 20).unwrap();
        assert_eq!(
            (text(&chunk).as_str(), chunk.next.cursor),
            ("kept", end),
            "cut at {cut}"
        );
        let mut again = writer(dir.path(), LogLimits::default());
        assert_eq!(again.end(), end);
        again.append(Channel::Stdout, 0, b"more").unwrap();
        assert_eq!(text(&reader.read(0.into(), 1 << 20).unwrap()), "keptmore");
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
    let (mut cursor, mut back) = (0.into(), Vec::<u8>::new());
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
fn a_damaged_segment_is_an_error_and_a_cursor_beyond_the_end_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), LogLimits::default());
    log.append(Channel::Stdout, 0, &[0xff; 100]).unwrap();
    let reader = LogReader::new(dir.path(), PROCESS);
    let beyond = reader.read((log.end() + 5).into(), 100).unwrap();
    assert!(beyond.records.is_empty());
    let nobody = LogReader::new(dir.path(), ProcessId::from_bytes([1; 16]));
    assert!(nobody.read(0.into(), 100).unwrap().records.is_empty());
    let mut bytes = fs::read(log.path()).unwrap();
    bytes.extend([0xff; 100]);
    fs::write(log.path(), bytes).unwrap();
    assert!(matches!(
        reader.read(log.end().into(), 100),
        Err(LogReadError::NotARecord { offset: 121, .. })
    ));
}
