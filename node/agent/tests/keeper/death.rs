//! Processes that die without notice, and what is left after many cycles.

use teu_node::keeper::{KeeperLink, socket_path, sweep};

use crate::rig::{Rig, eventually, sh};

fn kill9(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn is_alive(pid: i32) -> bool {
    // A zombie has no memory, hence an empty command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn a_killed_keeper_takes_its_container_along_and_the_sweep_takes_the_rest() {
    let rig = Rig::new().await;
    let boxed = rig.run("killed", "sleep 100 & sleep 100").await;
    let further = boxed.exec(1, sh("sleep 100")).await;
    kill9(boxed.link.pid());
    eventually("the container is dead", || !is_alive(boxed.pid)).await;
    let _ = further;
    assert!(
        !rig.leftovers().is_empty(),
        "cgroups and the socket are left to the sweep"
    );
    let (run_dir, parent, slot) = (rig.run_dir(), rig.parent.clone(), boxed.slot.clone());
    tokio::task::spawn_blocking(move || sweep(&run_dir, &parent, &slot))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    // The name is free again.
    rig.warm("killed").await.1.destroy().await.unwrap();
}

#[tokio::test]
async fn a_killed_warm_keeper_leaves_nothing_after_the_sweep() {
    let rig = Rig::new().await;
    let (slot, link) = rig.warm("warm").await;
    kill9(link.pid());
    eventually("the keeper is dead", || !is_alive(link.pid())).await;
    sweep(&rig.run_dir(), &rig.parent, &slot).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn keepers_outlive_the_launcher() {
    let mut rig = Rig::new().await;
    let boxed = rig.run("outlive", "sleep 100").await;
    let launcher = parent_of(boxed.link.pid());
    kill9(launcher);
    eventually("the launcher is dead", || !is_alive(launcher)).await;
    assert!(
        rig.launcher
            .fork_keeper(&"another".parse().unwrap())
            .await
            .is_err()
    );
    let path = socket_path(&rig.run_dir(), &boxed.slot);
    let (link, hello) = KeeperLink::connect(&path).await.unwrap();
    assert_eq!(hello.processes[0].pid, boxed.pid);
    // Another launcher works beside the keepers of the first.
    rig.relaunch().await;
    let second = rig.run("second", "sleep 100").await;
    second.link.destroy().await.unwrap();
    link.destroy().await.unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

fn parent_of(pid: i32) -> i32 {
    crate::rig::status_field(pid, "PPid").parse().unwrap()
}

#[tokio::test]
async fn an_exit_while_no_agent_is_there_is_on_disk() {
    let rig = Rig::new().await;
    let mut process = sh("read go; echo last words; exit 9");
    process.open_stdin = true;
    let boxed = rig.start("absent", rig.plan("absent", process)).await;
    boxed
        .link
        .stdin(boxed.main(), bytes::Bytes::from_static(b"go\n"), true)
        .await
        .unwrap();
    let (dir, id) = (boxed.dir.clone(), boxed.main());
    drop(boxed);
    eventually("the exit is recorded", || {
        teu_node::keeper::ExitRecord::read(&dir).unwrap().is_some()
    })
    .await;
    let record = teu_node::keeper::ExitRecord::read(&dir).unwrap().unwrap();
    assert_eq!(record.exit.status.code(), 9);
    let text: Vec<u8> = crate::rig::read_log(&dir, id)
        .into_iter()
        .flat_map(|one| one.1)
        .collect();
    assert_eq!(text, b"last words\n");
    eventually("nothing is left", || rig.leftovers().is_empty()).await;
}

#[tokio::test]
async fn fifty_cycles_leave_nothing() {
    let rig = Rig::new().await;
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for cycle in 0..50 {
        let name = format!("c{cycle}");
        let mut boxed = rig.run(&name, "echo hello").await;
        assert_eq!(boxed.finish().await.1, "hello\n");
        boxed.events.wait_gone().await;
        let keeper = boxed.link.pid();
        eventually("the keeper is gone", || !is_alive(keeper)).await;
        if cycle == 0 {
            before = fds();
        }
    }
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    // Other tests of this program hold descriptors too: only growth by cycles would be a leak.
    assert!(
        fds() < before + 200,
        "{before} descriptors became {}",
        fds()
    );
    let marker = rig.parent.clone();
    let left = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup")).ok())
        .filter(|text| text.contains(&format!("{marker}/c")))
        .count();
    assert_eq!(left, 0, "processes in the instance's groups");
}

#[tokio::test]
async fn twenty_at_once_all_run() {
    let rig = Rig::new().await;
    let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let started = names
        .iter()
        .map(|name| rig.run(name, "echo $HOSTNAME; sleep 100"));
    let all = futures::future::join_all(started).await;
    for boxed in &all {
        // The command line appears a moment after the point of no return of exec.
        eventually("it runs", || is_alive(boxed.pid)).await;
    }
    futures::future::join_all(all.iter().map(|one| one.link.destroy())).await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
