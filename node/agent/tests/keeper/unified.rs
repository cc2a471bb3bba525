//! The cgroup v2 ways, on whatever v2 hierarchy this machine has (an empty one will do; limits and
//! the view from inside need one with controllers, as in the guest of deploy/vm).

use teu_node::{
    keeper::IoLimit,
    sys::cgroup::{Cgroup, Hierarchies},
};

use crate::rig::{Rig, eventually, sh};

fn unified_mount() -> String {
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))
        .expect("these tests need a cgroup v2 hierarchy, also an empty one")
        .to_owned()
}

#[tokio::test]
async fn groups_are_made_killed_and_removed() {
    let line = format!("30 22 0:26 / {} rw - cgroup2 cgroup2 rw", unified_mount());
    let hierarchies = Hierarchies::parse(&line);
    let parent = format!("teutest{}unified", std::process::id());
    let group = Cgroup::named(&hierarchies, &parent, "slot");
    group.create().unwrap();
    let below = group.below("further");
    below.create_tracking().unwrap();
    let put = |group: &Cgroup| {
        let mut child = tokio::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let procs = group.birthplace().unwrap().join("cgroup.procs");
        std::fs::write(procs, child.id().unwrap().to_string()).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child
    };
    let (mut first, mut further) = (put(&group), put(&below));
    assert_eq!(group.pids().len(), 2);
    below.kill_all().unwrap();
    assert!(!further.wait().await.unwrap().success());
    assert!(
        first.try_wait().unwrap().is_none(),
        "only the group below was killed"
    );
    below.remove_tracking().unwrap();
    group.kill_all().unwrap();
    assert!(!first.wait().await.unwrap().success());
    group.remove().unwrap();
    assert!(!group.exists());
    eventually("the parent is empty", || {
        std::fs::remove_dir(std::path::Path::new(&unified_mount()).join(&parent)).is_ok()
    })
    .await;
}

#[tokio::test]
async fn groups_stand_still_and_go_on() {
    let line = format!("30 22 0:26 / {} rw - cgroup2 cgroup2 rw", unified_mount());
    let hierarchies = Hierarchies::parse(&line);
    let parent = format!("teutest{}freeze", std::process::id());
    let group = Cgroup::named(&hierarchies, &parent, "slot");
    group.create().unwrap();
    // A further process stands still with its container.
    let below = group.below("further");
    below.create_tracking().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ticks");
    let mut child = tokio::process::Command::new("/bin/busybox")
        .args([
            "sh",
            "-c",
            "while :; do echo >> $0; busybox usleep 1000; done",
        ])
        .arg(&file)
        .spawn()
        .unwrap();
    let procs = below.birthplace().unwrap().join("cgroup.procs");
    std::fs::write(procs, child.id().unwrap().to_string()).unwrap();
    let ticks = || std::fs::metadata(&file).map_or(0, |data| data.len());
    eventually("it runs", || ticks() > 0).await;
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let before = ticks();
    // A hundred times what one tick takes.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(ticks(), before);
    group.thaw().unwrap();
    group.thaw().unwrap();
    eventually("it goes on", || ticks() > before).await;
    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert!(!child.wait().await.unwrap().success());
    group.remove().unwrap();
    group.thaw().unwrap();
    eventually("the parent is empty", || {
        std::fs::remove_dir(std::path::Path::new(&unified_mount()).join(&parent)).is_ok()
    })
    .await;
}

/// Whether v2 has the controllers here; else there is nothing to see from inside.
fn is_unified_host() -> bool {
    Hierarchies::detect()
        .unwrap()
        .iter()
        .all(|hierarchy| hierarchy.unified)
}

const LOOK: &str = "cat /proc/self/cgroup; cd /sys/fs/cgroup; \
                    cat memory.max memory.swap.max cpu.max pids.max io.max; \
                    echo 0 > pids.max || echo refused; echo done";

#[tokio::test]
async fn a_container_sees_its_limits_and_cannot_lift_them() {
    if !is_unified_host() {
        eprintln!("not a cgroup v2 host: deploy/test --vm runs this");
        return;
    }
    // The disk that the machine itself runs from.
    let disk = std::fs::read_to_string("/sys/class/block/vda/dev").unwrap();
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let rig = Rig::new().await;
    let mut plan = rig.plan("seen", sh(&format!("exec 2>&1; {LOOK}; sleep 100")));
    plan.limits.memory_bytes = Some(64 << 20);
    plan.limits.cpu_millis = Some(500);
    plan.limits.pids = 33;
    plan.limits.io = vec![IoLimit {
        major: major.parse().unwrap(),
        minor: minor.parse().unwrap(),
        read_bytes_per_s: Some(7 << 20),
        write_bytes_per_s: None,
        read_ops_per_s: None,
        write_ops_per_s: Some(99),
    }];
    let mut boxed = rig.start("seen", plan).await;
    let limits = format!(
        "67108864\n0\n50000 100000\n33\n{major}:{minor} rbps=7340032 wbps=max riops=max wiops=99\n"
    );
    let main = boxed.main();
    boxed.wait_output(main, "done").await;
    let text = boxed.output(main);
    assert!(text.starts_with(&format!("0::/\n{limits}")), "{text}");
    assert!(text.contains("refused"), "{text}");
    // A further process is born below, in the same limits.
    let further = boxed.exec(1, sh(&format!("exec 2>&1; {LOOK}"))).await;
    boxed.events.exit_of(further).await;
    let text = boxed.output(further);
    let (group, rest) = text.split_once('\n').unwrap();
    assert!(group.len() > "0::/".len(), "{text}");
    assert!(rest.starts_with(&limits), "{text}");
    boxed.link.destroy().await.unwrap();
    boxed.events.wait_gone().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
