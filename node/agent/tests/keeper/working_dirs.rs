//! Where processes stand: in the container, whatever the path of the working directory says
//! (CVE-2024-21626's kind).

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use teu_node::keeper::{ExecPlan, ExitStatus, ProcessPlan, Refusal, StartError, StartStep};
use teu_protocol::ids::ProcessId;

use crate::{
    rig::{Rig, Running, command, sh},
    volume_lab::mount,
};

/// Descriptors that stub and tenant may have had open.
const DESCRIPTORS: std::ops::RangeInclusive<u32> = 3..=64;
/// What the host's root has and the container's has not.
const HOSTS: &str = "usr";
/// Says so if a directory of the host can be reached.
const LOOK: &str =
    "ls .. ../.. ../../.. ../../../.. ../../../../../.. ../../../../../../../..; pwd";

/// Processors that have something else to do, for as long as it lives: what is open for a moment is then
/// open for longer.
struct Busy {
    over: Arc<AtomicBool>,
}

impl Busy {
    fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..3 {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self { over }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// How often the race is run: more by hand (`TEU_TEST_TRIES`).
fn tries() -> u32 {
    std::env::var("TEU_TEST_TRIES").map_or(62, |tries| tries.parse().unwrap())
}

/// Every way to write "what descriptor `n` is open on", and what else leads out of a root.
fn spellings(n: u32) -> Vec<String> {
    vec![
        format!("/proc/self/fd/{n}"),
        format!("/proc/thread-self/fd/{n}"),
        format!("/proc/1/fd/{n}"),
        format!("/proc/self/task/../fd/{n}/../.."),
        format!("/dev/fd/{n}"),
        format!("/image/x{n}"),
        format!("/volume/x{n}"),
        format!("/volume/up/x{n}"),
        "/proc/self/cwd".to_owned(),
        "/proc/1/cwd/..".to_owned(),
        "/proc/self/root".to_owned(),
        "/proc/1/root/tmp".to_owned(),
        "/image/cwd".to_owned(),
        "/volume/root".to_owned(),
    ]
}

/// Links to all of that, and links that go up and come back.
fn fill_with_links(dir: &std::path::Path) {
    fs::create_dir_all(dir).unwrap();
    for n in DESCRIPTORS {
        symlink(format!("/proc/self/fd/{n}"), dir.join(format!("x{n}"))).unwrap();
    }
    symlink("/proc/1/cwd", dir.join("cwd")).unwrap();
    symlink("/proc/self/root", dir.join("root")).unwrap();
    symlink("../../../../../volume", dir.join("up")).unwrap();
}

fn links(rig: &Rig) -> std::path::PathBuf {
    fill_with_links(&rig.dir.path().join("layer/image"));
    let volume = rig.dir.path().join("volume");
    fill_with_links(&volume);
    volume
}

fn standing_in(cwd: &str, mut process: ProcessPlan) -> ProcessPlan {
    process.cwd = cwd.into();
    process
}

/// `None`: refused, by its path. Else what the process saw.
fn refused(cwd: &str, outcome: &Result<(), StartError>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(StartError::Refused(Refusal::Failed {
            step: StartStep::MakeWorkingDirectory,
            reason,
        })) => {
            assert!(reason.starts_with(cwd), "{cwd}: {reason}");
            true
        }
        Err(other) => panic!("{cwd}: {other:?}"),
    }
}

#[tokio::test]
async fn no_first_process_stands_outside_however_the_way_is_written() {
    let rig = Rig::new().await;
    let volume = links(&rig);
    let _busy = Busy::new();
    for number in 0..tries() {
        let n = DESCRIPTORS.start() + number % 62;
        let all = spellings(n);
        let cwd = &all[usize::try_from(number).unwrap() % all.len()];
        let name = format!("f{number}");
        let (_, link) = rig.warm(&name).await;
        let mut plan = rig.plan(&name, standing_in(cwd, sh(LOOK)));
        plan.mounts = vec![mount(&volume, "/volume")];
        let dir = plan.dir.clone();
        let outcome = link.start(plan).await.map(drop);
        assert!(refused(cwd, &outcome), "try {number}: {cwd} was entered");
        assert!(!dir.join("upper/proc/self").exists(), "{cwd}");
        fs::remove_dir_all(dir).unwrap();
    }
}

#[tokio::test]
async fn no_further_process_stands_outside_however_the_way_is_written() {
    let rig = Rig::new().await;
    let volume = links(&rig);
    let mut plan = rig.plan("further", sh("sleep 1000"));
    plan.mounts = vec![mount(&volume, "/volume")];
    let boxed = rig.start("further", plan).await;
    let _busy = Busy::new();
    for n in DESCRIPTORS {
        // Those without a number once.
        let count = if n == *DESCRIPTORS.start() {
            usize::MAX
        } else {
            8
        };
        for (at, cwd) in (1..).zip(spellings(n)).take(count) {
            let id = ProcessId::from_bytes([at; 16]);
            let process = standing_in(&cwd, sh(LOOK));
            let outcome = boxed.link.exec(ExecPlan { id, process }).await.map(drop);
            assert!(refused(&cwd, &outcome), "{cwd} was entered");
        }
    }
    boxed.link.destroy().await.unwrap();
}

/// What is looked for by name is looked for with nothing open.
#[tokio::test]
async fn no_program_is_found_by_way_of_a_descriptor() {
    let rig = Rig::new().await;
    let boxed = rig.run("byfd", "sleep 1000").await;
    for n in DESCRIPTORS {
        let program = format!("/proc/self/fd/{n}/../../../../../../../bin/busybox");
        let id = ProcessId::from_bytes([1; 16]);
        let process = command(&[&program, "true"]);
        let outcome = boxed.link.exec(ExecPlan { id, process }).await;
        assert!(
            matches!(
                outcome,
                Err(StartError::Refused(
                    Refusal::CommandNotFound { .. } | Refusal::NotExecutable { .. }
                ))
            ),
            "{program}: {outcome:?}"
        );
        if n % 8 == 3 {
            let name = format!("b{n}");
            let (_, link) = rig.warm(&name).await;
            let outcome = link
                .start(rig.plan(&name, command(&[&program, "true"])))
                .await;
            assert!(outcome.is_err(), "{program}");
        }
    }
    boxed.link.destroy().await.unwrap();
}

async fn finish(boxed: &mut Running, id: ProcessId) -> (ExitStatus, String) {
    let (exit, _) = boxed.events.exit_of(id).await;
    (exit.status, boxed.output(id))
}

/// A container that exchanges what the path leads through, while it is walked.
#[tokio::test]
async fn who_changes_the_way_while_it_is_walked_gains_nothing() {
    let rig = Rig::new().await;
    links(&rig);
    let script = "mkdir -p /a/deep; ln -s /proc/self/fd /b; ln -s /proc/1/root /c; ln -s ../../../../../.. /d; echo up; \
                  while :; do mv /a /e; mv /b /a; mv /a /b; mv /c /a; mv /a /c; mv /d /a; mv /a /d; mv /e /a; done";
    let mut boxed = rig.run("flip", script).await;
    let main = boxed.main();
    boxed.wait_output(main, "up").await;
    let (mut entered, mut kept_out) = (0, 0);
    for number in 0..tries() {
        let id = ProcessId::from_bytes(u128::from(number + 1).to_be_bytes());
        let n = DESCRIPTORS.start() + number % 12;
        let cwd = ["/a/deep".to_owned(), format!("/a/{n}"), "/a/tmp".to_owned()];
        let cwd = &cwd[usize::try_from(number).unwrap() % 3];
        let process = standing_in(cwd, sh(LOOK));
        match boxed.link.exec(ExecPlan { id, process }).await {
            Ok(_) => {
                let (_, text) = finish(&mut boxed, id).await;
                let seen = text.lines().any(|line| line == HOSTS);
                assert!(!seen && !text.contains("unreachable"), "{cwd}: {text}");
                boxed.link.forget(id).await.unwrap();
                entered += 1;
            }
            Err(StartError::Refused(_)) => kept_out += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(entered > 0, "{kept_out} refused");
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn directories_behind_dangling_links_are_made_where_they_lead() {
    let rig = Rig::new().await;
    let layer = rig.dir.path().join("layer");
    fs::create_dir(layer.join("app")).unwrap();
    for (target, at) in [
        ("/run-here", "run"),
        ("releases/1", "app/current"),
        ("../../../../../../escape", "app/out"),
    ] {
        symlink(target, layer.join(at)).unwrap();
    }
    let cases = [
        ("/run/app", "/run-here/app"),
        ("/app/current", "/app/releases/1"),
        ("/app/current/x", "/app/releases/1/x"),
        ("/app/out/y", "/escape/y"),
        ("", "/"),
    ];
    let mut boxed = rig.run("dangle", "sleep 100").await;
    for (number, (cwd, real)) in (1..).zip(cases) {
        let mut process = standing_in(cwd, sh("pwd -P; stat -c '%u %g' ."));
        process.user = "web".to_owned();
        let owner = if real == "/" { "0 0" } else { "33 34" };
        let expected = (ExitStatus::Code(0), format!("{real}\n{owner}\n"));
        let id = boxed.exec(number, process.clone()).await;
        assert_eq!(finish(&mut boxed, id).await, expected, "exec in {cwd}");
        let name = format!("d{number}");
        let mut first = rig.start(&name, rig.plan(&name, process)).await;
        let id = first.main();
        assert_eq!(finish(&mut first, id).await, expected, "run in {cwd}");
    }
    assert!(!std::path::Path::new("/escape").exists());
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn a_working_directory_in_a_volume_is_made_in_the_volume() {
    let rig = Rig::new().await;
    let volume = rig.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mut plan = rig.plan(
        "cwdvol",
        standing_in("/volume/a/b", sh("pwd; echo x > made")),
    );
    plan.mounts = vec![mount(&volume, "/volume")];
    let mut boxed = rig.start("cwdvol", plan).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(
        (exit.status, text.as_str()),
        (ExitStatus::Code(0), "/volume/a/b\n")
    );
    assert_eq!(fs::read(volume.join("a/b/made")).unwrap(), b"x\n");
}

#[tokio::test]
async fn nothing_is_made_in_the_kernels_directories() {
    let rig = Rig::new().await;
    let boxed = rig.run("kernels", "sleep 100").await;
    for (number, cwd) in (1..).zip(["/proc/made", "/sys/made", "/dev/made", "/dev/shm/made"]) {
        let id = ProcessId::from_bytes([number; 16]);
        let process = standing_in(cwd, sh("true"));
        let outcome = boxed.link.exec(ExecPlan { id, process }).await.map(drop);
        assert!(refused(cwd, &outcome), "{cwd}");
    }
    boxed.link.destroy().await.unwrap();
}
