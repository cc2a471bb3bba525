//! What keepers leave to the host: its mounts, its memory, its processes.

use std::fs;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use teu_node::sys::cgroup::{Cgroup, Hierarchies, node_pids};

use crate::rig::Rig;

fn read(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

/// Some sandboxes take CAP_SYS_RESOURCE (bit 24) from root.
fn may_lower_scores() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(caps.unwrap().trim(), 16).unwrap() & (1 << 24) != 0
}

/// A mount of the host's, made before there was a launcher.
struct HostsMount(tempfile::TempDir);

impl HostsMount {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("hosts", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        Self(dir)
    }
}

impl Drop for HostsMount {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_keeper_holds_no_mount_of_the_hosts_and_dies_after_its_container() {
    let hosts = HostsMount::new();
    let rig = Rig::new().await;
    let boxed = rig.run("host", "sleep 1000").await;
    let keeper = boxed.link.pid();
    if may_lower_scores() {
        assert_eq!(read(keeper, "oom_score_adj").trim(), "-900");
    } else {
        eprintln!("not looked at: no CAP_SYS_RESOURCE here, which keepers say on stderr");
    }
    let point = hosts.0.path().to_str().unwrap();
    assert!(
        read(
            rustix::process::getpid().as_raw_nonzero().get(),
            "mountinfo"
        )
        .contains(point)
    );
    for pid in [keeper, boxed.pid] {
        assert!(!read(pid, "mountinfo").contains(point), "{pid} holds it");
    }
    assert_eq!(read(boxed.pid, "oom_score_adj").trim(), "0");
    let all = Cgroup::named(&Hierarchies::detect().unwrap(), "", &rig.parent);
    assert_eq!(all.pids_bound().unwrap(), Some(node_pids()));
    boxed.link.destroy().await.unwrap();
}
