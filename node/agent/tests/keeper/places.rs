//! Clients' places at real processes: output that waits, input that is counted, a disk that is full.

use bytes::Bytes;
use teu_node::keeper::{
    Channel, FOLLOWER_LAG_MAX, KeeperLink, LogLimits, PlaceAsk, Refusal, STDIN_WINDOW, StartError,
    socket_path,
};
use teu_protocol::{
    ids::{AttachmentId, ProcessId, ReaderId},
    message::Place,
};

use crate::rig::{Events, Rig, Running, command, read_log, sh};

const READER: ReaderId = ReaderId::from_bytes([1; 16]);
const OWNER: AttachmentId = AttachmentId::from_bytes([2; 16]);

fn ask(process: ProcessId, generation: u64) -> PlaceAsk {
    PlaceAsk {
        process,
        place: Place {
            reader: READER,
            generation,
        },
        owner: Some(OWNER),
    }
}

fn is(outcome: Result<u64, StartError>, expected: &Refusal) -> bool {
    matches!(outcome, Err(StartError::Refused(refusal)) if refusal == *expected)
}

/// Waits until the process stands still, some MiB ahead of its reader.
async fn stands_still(boxed: &mut Running, place: &PlaceAsk) -> u64 {
    let id = place.process;
    while boxed.events.ends.get(&id).copied().unwrap_or(0) <= FOLLOWER_LAG_MAX {
        assert!(boxed.events.next().await);
    }
    // A reply comes after everything that the keeper could read: the end stands still.
    boxed.link.place(place, Some(0)).await.unwrap();
    assert!(!boxed.events.exits.contains_key(&id));
    let held = boxed.events.ends[&id];
    assert!(held < FOLLOWER_LAG_MAX + (256 << 10), "{held}");
    held
}

#[tokio::test]
async fn a_process_waits_for_its_reader_from_its_first_byte_on_over_any_loss_of_agents() {
    let rig = Rig::new().await;
    // It writes before anybody could attach: three times what its log keeps.
    let mut process = sh("head -c 30000000 /dev/zero; echo done >&2");
    process.reader = Some((READER, OWNER));
    let mut boxed = rig.start("first", rig.plan("first", process)).await;
    let id = boxed.main();
    stands_still(&mut boxed, &ask(id, 1)).await;
    // Its agent dies, and the one after it.
    let socket = socket_path(&rig.run_dir(), &boxed.slot);
    for _ in 0..2 {
        let (link, hello) = KeeperLink::connect(&socket).await.unwrap();
        assert_eq!(hello.processes[0].readers, [OWNER]);
        assert!(hello.processes[0].log_end < FOLLOWER_LAG_MAX + (256 << 10));
        boxed.events = Events::new(&link);
        boxed.link = link;
    }
    // The client comes back, and reads all.
    let (mut spot, mut got, mut generation) = (0.into(), 0, 2);
    let log = teu_node::keeper::LogReader::new(&boxed.dir, id);
    loop {
        let chunk = log.read(spot, 1 << 20).unwrap();
        let mut due = spot.cursor;
        for record in &chunk.records {
            assert_eq!(record.start, due, "a gap");
            due = record.end();
            got += record.bytes.len();
        }
        spot = chunk.next;
        generation += 1;
        let place = ask(id, generation);
        // Refused once the process and its keeper are gone.
        let placed = boxed.link.place(&place, Some(spot.cursor)).await;
        if chunk.records.is_empty() && (placed.is_err() || boxed.events.exits.contains_key(&id)) {
            break;
        }
        if chunk.records.is_empty() {
            boxed.events.next().await;
        }
    }
    assert_eq!(got, 30_000_000 + "done\n".len());
}

#[tokio::test]
async fn a_process_goes_on_when_its_readers_attachment_ends_or_it_leaves() {
    for leave in [false, true] {
        let rig = Rig::new().await;
        let mut process = sh("head -c 30000000 /dev/zero");
        process.reader = Some((READER, OWNER));
        let mut boxed = rig.start("leave", rig.plan("leave", process)).await;
        let place = ask(boxed.main(), 1);
        stands_still(&mut boxed, &place).await;
        // What an older stream says counts no more; nor does another attachment's end.
        let newer = ask(boxed.main(), 2);
        boxed.link.place(&newer, Some(0)).await.unwrap();
        boxed.link.release(&place).await.unwrap();
        let other = AttachmentId::from_bytes([3; 16]);
        boxed.link.release_owned(other).await.unwrap();
        boxed.link.place(&newer, Some(0)).await.unwrap();
        assert!(boxed.events.exits.is_empty());
        if leave {
            boxed.link.release(&newer).await.unwrap();
        } else {
            boxed.link.release_owned(OWNER).await.unwrap();
        }
        boxed.exit().await;
    }
}

#[tokio::test]
async fn input_is_taken_once_in_order_and_as_much_as_there_is_room_for() {
    let rig = Rig::new().await;
    let mut process = command(&["cat"]);
    process.open_stdin = true;
    let mut boxed = rig.start("input", rig.plan("input", process)).await;
    let id = boxed.main();
    let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let piece = |from: usize, to: usize| Bytes::copy_from_slice(&sent[from..to.min(sent.len())]);
    let (mut has, mut generation) = (0_usize, 0);
    while has < sent.len() {
        // Each round is another stream of the client, which begins too early.
        generation += 1;
        let place = ask(id, generation);
        let told = boxed.link.place(&place, None).await.unwrap();
        assert_eq!(told, Some(has as u64));
        let hole = Refusal::InputMissing {
            expected: has as u64,
            offset: has as u64 + 1,
        };
        let skipping = boxed
            .link
            .input(&place, has as u64 + 1, piece(has, has + 9), false)
            .await;
        assert!(is(skipping, &hole));
        let from = has.saturating_sub(1_000);
        let given = piece(from, from + 400_000);
        let taken = boxed.link.input(&place, from as u64, given, false).await;
        has = usize::try_from(taken.unwrap()).unwrap();
        let old = ask(id, generation - 1);
        if generation > 1 {
            let late = boxed
                .link
                .input(&old, has as u64, piece(has, has + 9), false);
            assert!(is(late.await, &Refusal::Superseded));
        }
        let consumed = boxed.events.consumed.get(&id).copied().unwrap_or(0);
        if has as u64 - consumed >= STDIN_WINDOW {
            boxed.events.next().await;
        }
    }
    let place = ask(id, generation);
    boxed
        .link
        .input(&place, has as u64, Bytes::new(), true)
        .await
        .unwrap();
    boxed.exit().await;
    let got: Vec<u8> = read_log(&boxed.dir, id)
        .into_iter()
        .flat_map(|one| one.1)
        .collect();
    assert!(
        got == sent,
        "{} of {} bytes, or others",
        got.len(),
        sent.len()
    );
}

#[tokio::test]
async fn what_a_full_disk_does_not_take_is_given_to_a_live_reader_and_counted_as_lost_by_others() {
    let mut rig = Rig::new().await;
    let plan = rig.plan("full", sh("sleep 100"));
    let _disk = FullDisk::mount(&plan.dir.join("logs"));
    // A launcher takes the mounts that are there when it starts.
    rig.relaunch().await;
    let mut boxed = rig.start("full", plan).await;
    let mut exec = sh("seq 1 20000; echo oops >&2");
    exec.reader = Some((READER, OWNER));
    let id = boxed.exec(8, exec).await;
    let (exit, end) = boxed.events.exit_of(id).await;
    assert_eq!(exit.status.code(), 0);
    let mut expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    expected.push_str("oops\n");
    assert_eq!(end, expected.len() as u64, "each byte has its cursor");
    assert!(read_log(&boxed.dir, id).is_empty(), "the disk is full");
    let (mut cursor, mut got) = (0, Vec::new());
    while cursor < end {
        let records = boxed.link.unwritten(id, cursor).await.unwrap();
        assert_eq!(records[0].start, cursor);
        cursor = records.last().unwrap().end();
        got.extend(records.into_iter().flat_map(|one| one.bytes));
    }
    got.sort_unstable();
    let mut sorted = expected.clone().into_bytes();
    sorted.sort_unstable();
    assert!(got == sorted);
}

#[tokio::test]
async fn without_a_reader_a_full_disk_costs_output_and_the_gap_is_exact() {
    let mut rig = Rig::new().await;
    let plan = rig.plan("gap", sh("sleep 100"));
    let disk = FullDisk::mount(&plan.dir.join("logs"));
    rig.relaunch().await;
    let mut boxed = rig.start("gap", plan).await;
    let mut exec = sh("head -c 5000000 /dev/zero; read go; echo end");
    exec.open_stdin = true;
    let id = boxed.exec(8, exec).await;
    while boxed.events.ends.get(&id).copied().unwrap_or(0) < 5_000_000 {
        assert!(boxed.events.next().await);
    }
    disk.make_room();
    boxed
        .link
        .stdin(id, Bytes::from_static(b"go\n"), true)
        .await
        .unwrap();
    let (_, end) = boxed.events.exit_of(id).await;
    assert_eq!(end, 5_000_004);
    let log = teu_node::keeper::LogReader::new(&boxed.dir, id);
    let chunk = log.read(0.into(), 100 << 20).unwrap();
    let (first, kept) = (&chunk.records[0], read_log(&boxed.dir, id));
    let bytes: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(
        first.start > 0 && bytes >= 1 << 20,
        "{} {bytes}",
        first.start
    );
    assert_eq!(first.start + bytes as u64, end);
    assert_eq!(kept.last().unwrap(), &(Channel::Stdout, b"end\n".to_vec()));
}

/// A tiny file system over a container's logs, full but for empty files.
struct FullDisk {
    dir: std::path::PathBuf,
}

impl FullDisk {
    fn mount(dir: &std::path::Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "full"])
            .arg(dir)
            .status()
            .unwrap();
        assert!(status.success());
        let this = Self {
            dir: dir.to_owned(),
        };
        let mut file = std::fs::File::create(this.dir.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        this
    }

    fn make_room(&self) {
        std::fs::remove_file(self.dir.join("ballast")).unwrap();
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.dir)
            .status();
    }
}

#[tokio::test]
async fn a_small_log_holds_a_process_back_sooner() {
    let rig = Rig::new().await;
    let mut process = sh("head -c 30000000 /dev/zero");
    process.reader = Some((READER, OWNER));
    let mut plan = rig.plan("small", process);
    plan.log = LogLimits {
        segment_bytes: 4 << 20,
        segments: 2,
    };
    let mut boxed = rig.start("small", plan).await;
    let id = boxed.main();
    let most = plan_lag();
    while boxed.events.ends.get(&id).copied().unwrap_or(0) <= most {
        assert!(boxed.events.next().await);
    }
    boxed.link.place(&ask(id, 1), Some(0)).await.unwrap();
    assert!(boxed.events.ends[&id] < most + (256 << 10));
    assert_eq!(boxed.bytes(id).len() as u64, boxed.events.ends[&id]);
}

/// What is kept of 4 MiB beside what may be under way.
const fn plan_lag() -> u64 {
    (4 << 20) - (1 << 20) - (256 << 10)
}
