//! What a container cannot do, and what it is limited to.

use teu_node::keeper::{ExecPlan, ExitStatus};
use teu_protocol::ids::ProcessId;

use crate::rig::{BASE, Rig, command, sh, status_field};

#[tokio::test]
async fn root_in_a_container_is_nobody_on_the_host() {
    let rig = Rig::new().await;
    let mut boxed = rig
        .run(
            "userns",
            "id -u; touch /made; stat -c %u /bin/busybox; echo up; sleep 100",
        )
        .await;
    boxed.wait_output(boxed.main(), "up").await;
    assert_eq!(
        boxed.output(boxed.main()),
        "0\n0\nup\n",
        "root inside, and the layer is root's"
    );
    assert!(status_field(boxed.pid, "Uid").starts_with(&BASE.to_string()));
    assert!(status_field(boxed.pid, "Gid").starts_with(&BASE.to_string()));
    assert_eq!(status_field(boxed.pid, "Groups"), "");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata(boxed.dir.join("upper/made"))
            .unwrap()
            .uid(),
        BASE
    );
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn privileges_are_gone_for_the_first_and_for_further_processes() {
    let rig = Rig::new().await;
    let boxed = rig
        .start("privs", rig.plan("privs", command(&["sleep", "100"])))
        .await;
    let id = ProcessId::from_bytes([1; 16]);
    let plan = ExecPlan {
        id,
        process: command(&["sleep", "100"]),
    };
    let further = boxed.link.exec(plan).await.unwrap();
    for (field, expected) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapBnd", "00000000800405fb"),
        ("CapEff", "00000000800405fb"),
        ("CapPrm", "00000000800405fb"),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("SigBlk", "0000000000000000"),
        ("SigIgn", "0000000000000000"),
        ("Umask", "0022"),
        ("Groups", ""),
    ] {
        assert_eq!(
            status_field(boxed.pid, field),
            expected,
            "first process: {field}"
        );
        assert_eq!(
            status_field(further.pid, field),
            expected,
            "further process: {field}"
        );
    }
    let fds = |pid: i32| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    assert_eq!(
        (fds(boxed.pid), fds(further.pid)),
        (3, 3),
        "nothing but the streams is inherited"
    );
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn a_plain_user_has_no_capabilities() {
    let rig = Rig::new().await;
    let mut process = sh("id -u; id -g; id -G; grep CapEff /proc/self/status; echo $HOME; pwd");
    process.user = "web".to_owned();
    process.cwd = "/var/www/made".into();
    let mut boxed = rig.start("plain", rig.plan("plain", process)).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert_eq!(
        text,
        "33\n34\n34 77\nCapEff:\t0000000000000000\n/var/www\n/var/www/made\n"
    );
}

#[tokio::test]
async fn the_host_is_out_of_sight_and_out_of_reach() {
    let rig = Rig::new().await;
    let script = "
        echo kcore $(cat /proc/kcore /proc/timer_list /proc/keys 2>/dev/null | wc -c)
        echo firmware $(ls /sys/firmware | wc -l)
        echo net $(ls /sys/class/net)
        echo 1 > /proc/sys/kernel/panic && echo BAD
        echo 1 > /sys/kernel/mm/ksm/run && echo BAD
        mount -t tmpfs none /tmp && echo BAD
        unshare -r true && echo BAD
        mknod /tmp/disk b 254 0 && cat /tmp/disk && echo BAD
        kill -0 2 && echo BAD
        ip link add dummy0 type dummy && echo BAD
        hostname; readlink /proc/self/exe; ls /proc/1/root/
        ";
    let mut boxed = rig.run("host", script).await;
    let (_, text) = boxed.finish().await;
    for expected in ["kcore 0\n", "firmware 0\n", "net lo\n", "boxed\n"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!text.contains("BAD"), "{text}");
}

/// The keeper looks users up, and writes hosts files, as the host's root: a container must not
/// borrow that by a link into its own `/proc`.
#[tokio::test]
async fn links_into_proc_lend_no_power() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::new().await;
    let script = "rm -f /etc/hosts /etc/group; ln -s /proc/vmstat /etc/hosts; \
                  ln -s /proc/kmsg /etc/group; echo up; sleep 100";
    let mut boxed = rig.run("links", script).await;
    boxed.wait_output(boxed.main(), "up\n").await;
    assert!(boxed.link.write_hosts(Vec::new()).await.is_err());
    // Owners in /proc are the same for the whole host.
    assert_eq!(std::fs::metadata("/proc/vmstat").unwrap().uid(), 0);
    let plan = ExecPlan {
        id: ProcessId::from_bytes([1; 16]),
        process: command(&["true"]),
    };
    let refusal = boxed.link.exec(plan).await.unwrap_err().to_string();
    // It is read as the container's root, who may not open it.
    assert!(
        refusal.contains("/etc/group: Permission denied"),
        "{refusal}"
    );
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn low_ports_and_ping_are_allowed_without_privilege() {
    let rig = Rig::new().await;
    let script = "nc -l -p 80 & until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':0050 '; do usleep 20000; done; \
                  echo bound; sleep 100";
    let mut process = sh(script);
    process.user = "33:34".to_owned();
    let mut boxed = rig.start("ports", rig.plan("ports", process)).await;
    boxed.wait_output(boxed.main(), "bound\n").await;
    // busybox's ping knows raw sockets only; others use what this setting allows.
    let range = std::process::Command::new("nsenter")
        .args(["-n", "-t", &boxed.link.pid().to_string()])
        .args(["cat", "/proc/sys/net/ipv4/ping_group_range"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&range.stdout), "0\t2147483647\n");
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn too_much_memory_is_an_oom_death() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("oom", command(&["tail", "/dev/zero"]));
    plan.limits.memory_bytes = Some(32 << 20);
    let mut boxed = rig.start("oom", plan).await;
    let exit = boxed.exit().await;
    assert_eq!(exit.status, ExitStatus::Signal(libc::SIGKILL));
    assert!(exit.oom);
    assert!(boxed.exit_record().exit.oom);
}

#[tokio::test]
async fn a_fork_bomb_hits_its_limit() {
    let rig = Rig::new().await;
    let script = "for i in $(seq 1 40); do sleep 100 & done; echo survived";
    let mut plan = rig.plan("pids", sh(script));
    plan.limits.pids = 10;
    let mut boxed = rig.start("pids", plan).await;
    let (exit, text) = boxed.finish().await;
    assert!(
        text.contains("fork"),
        "busybox says that it cannot fork: {text}"
    );
    assert_ne!(exit.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn cpu_is_limited() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("cpu", sh("echo up; while :; do :; done"));
    plan.limits.cpu_millis = Some(100);
    let mut boxed = rig.start("cpu", plan).await;
    boxed.wait_output(boxed.main(), "up").await;
    let ticks = |pid: i32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks(boxed.pid);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let used = ticks(boxed.pid) - before;
    // A tenth of a CPU is 10 ticks a second; a free loop would use 100 (or half, on a full host).
    assert!(used < 30, "{used} ticks");
    boxed.link.destroy().await.unwrap();
}
