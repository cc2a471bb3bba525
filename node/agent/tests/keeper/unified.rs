//! The cgroup v2 ways, on whatever v2 hierarchy this machine has (an empty one will do).

use teu_node::sys::cgroup::{Cgroup, Hierarchies};

use crate::rig::eventually;

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
