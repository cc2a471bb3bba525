//! Who processes run as: numbers that no container has, what the image's files say, what programs with
//! capabilities of their own can get.

use std::fs;

use teu_node::keeper::{ExecPlan, ExitStatus, ProcessPlan, Refusal, StartError};
use teu_protocol::ids::ProcessId;

use crate::rig::{BASE, Rig, Running, command, sh, status_field};

/// setresuid(2) and setresgid(2) read -1 as "unchanged"; the others are outside of the range.
const NOBODYS: [&str; 8] = [
    "4294967295",
    "0:4294967295",
    "-1",
    "0:-1",
    "65536",
    "1000680000",
    "minus",
    "far",
];

fn as_user(user: &str, mut process: ProcessPlan) -> ProcessPlan {
    process.user = user.to_owned();
    process
}

/// Files of the image that name numbers which no container has.
fn add_users(rig: &Rig) {
    let etc = rig.dir.path().join("layer/etc");
    let add = |name: &str, lines: &str| {
        let text = fs::read_to_string(etc.join(name)).unwrap();
        fs::write(etc.join(name), text + lines).unwrap();
    };
    add("passwd", "minus:x:4294967295:0::/:\nfar:x:7:7::/:\n");
    add("group", "big:x:70000:far\n");
}

async fn refused(boxed: &Running, number: u8, process: ProcessPlan) -> String {
    let id = ProcessId::from_bytes([number; 16]);
    let outcome = boxed.link.exec(ExecPlan { id, process }).await;
    match outcome {
        Err(StartError::Refused(Refusal::UnknownUser(text))) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn numbers_that_no_container_has_are_refused_and_nothing_runs() {
    let rig = Rig::new().await;
    add_users(&rig);
    let mut boxed = rig.run("nobodys", "sleep 100").await;
    for (number, user) in (1..).zip(NOBODYS) {
        let text = refused(&boxed, number, as_user(user, sh("echo ran > /ran"))).await;
        assert!(text.contains("0 to 65535"), "exec as {user}: {text}");
        let name = format!("n{number}");
        let (_, link) = rig.warm(&name).await;
        let plan = rig.plan(&name, as_user(user, sh("echo ran > /ran")));
        let dir = plan.dir.clone();
        let error = link.start(plan).await.unwrap_err();
        assert!(
            matches!(error, StartError::Refused(Refusal::UnknownUser(_))),
            "run as {user}: {error:?}"
        );
        assert!(!dir.join("upper/ran").exists(), "run as {user}");
    }
    assert!(!boxed.dir.join("upper/ran").exists());
    // The last number that there is.
    let process = as_user("65535:65535", sh("id -u; id -g"));
    let id = boxed.exec(100, process).await;
    boxed.events.exit_of(id).await;
    assert_eq!(boxed.output(id), "65535\n65535\n");
    boxed.link.destroy().await.unwrap();
}

/// First and further processes end with the same ids and the same rights.
#[tokio::test]
async fn every_id_is_the_users_and_a_user_has_no_rights_left() {
    let rig = Rig::new().await;
    for (user, uid, gid, groups, kept) in [
        ("web", 33, 34, "1000077", 0),
        ("1234:77", 1234, 77, "", 0),
        ("root", 0, 0, "", 0x8004_05fb_u64),
        ("0:77", 0, 77, "", 0x8004_05fb),
    ] {
        let name = format!("as{uid}x{gid}");
        let process = || as_user(user, command(&["sleep", "100"]));
        let boxed = rig.start(&name, rig.plan(&name, process())).await;
        let id = ProcessId::from_bytes([1; 16]);
        let plan = ExecPlan {
            id,
            process: process(),
        };
        let further = boxed.link.exec(plan).await.unwrap();
        let four = |id: u32| [(); 4].map(|()| (BASE + id).to_string()).join("\t");
        for pid in [boxed.pid, further.pid] {
            assert_eq!(status_field(pid, "Uid"), four(uid), "{user}");
            assert_eq!(status_field(pid, "Gid"), four(gid), "{user}");
            assert_eq!(status_field(pid, "Groups"), groups, "{user}");
            // With `no_new_privs` the bounding set gives nothing.
            assert_eq!(status_field(pid, "CapBnd"), "00000000800405fb");
            for set in ["CapPrm", "CapEff"] {
                assert_eq!(
                    status_field(pid, set),
                    format!("{kept:016x}"),
                    "{user} {set}"
                );
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(
                    status_field(pid, set),
                    format!("{:016x}", 0),
                    "{user} {set}"
                );
            }
            assert_eq!(status_field(pid, "NoNewPrivs"), "1");
        }
        boxed.link.destroy().await.unwrap();
    }
}

/// `no_new_privs` keeps what a process has: what it has must be nothing.
#[tokio::test]
async fn capabilities_of_a_file_give_a_user_nothing() {
    let rig = Rig::new().await;
    let program = rig.dir.path().join("layer/capable/busybox");
    fs::create_dir(program.parent().unwrap()).unwrap();
    fs::copy("/bin/busybox", &program).unwrap();
    // VFS_CAP_REVISION_2 with the effective flag: CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_SETUID.
    let caps: [u32; 5] = [0x0200_0001, 0x83, 0, 0, 0];
    let bytes = caps.map(u32::to_le_bytes).concat();
    rustix::fs::setxattr(
        &program,
        "security.capability",
        &bytes,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let process = || {
        as_user(
            "web",
            command(&[
                "/capable/busybox",
                "grep",
                "^Cap[^B]..:.*[1-9a-f]",
                "/proc/self/status",
            ]),
        )
    };
    let mut boxed = rig.start("filecaps", rig.plan("filecaps", process())).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!((exit.status, text.as_str()), (ExitStatus::Code(1), ""));
    let mut boxed = rig.run("filecapx", "sleep 100").await;
    let id = boxed.exec(1, process()).await;
    assert_eq!(boxed.events.exit_of(id).await.0.status, ExitStatus::Code(1));
    assert_eq!(boxed.output(id), "");
    boxed.link.destroy().await.unwrap();
}
