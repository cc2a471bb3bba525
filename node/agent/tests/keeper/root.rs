//! Root filesystems: layers, files written ahead.

use std::{fs, os::unix::fs::MetadataExt};

use teu_node::keeper::{ExitStatus, HostEntry, PreBootFile};
use teu_protocol::image_config::user::IdInContainer;

use crate::rig::{BASE, Rig, sh};

fn file(path: &str, contents: &str, secret: bool) -> PreBootFile {
    PreBootFile {
        path: path.into(),
        contents: contents.into(),
        mode: 0o640,
        uid: IdInContainer::new(33),
        gid: IdInContainer::new(34),
        secret,
    }
}

#[tokio::test]
async fn many_layers_stack_and_the_upper_ones_win() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("layers", sh("cat /version; ls /l | wc -l"));
    for number in 0..126 {
        let layer = rig
            .dir
            .path()
            .join(format!("a-rather-long-layer-directory-name-{number:060}"));
        fs::create_dir_all(layer.join("l")).unwrap();
        fs::write(layer.join(format!("l/{number}")), "").unwrap();
        fs::write(layer.join("version"), format!("{number}\n")).unwrap();
        plan.root.layers.push(layer);
    }
    assert_eq!(plan.root.layers.len(), 127);
    let mut boxed = rig.start("layers", plan).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(
        (exit.status, text.as_str()),
        (ExitStatus::Code(0), "125\n126\n")
    );
}

#[tokio::test]
async fn no_layers_at_all_is_an_empty_root() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("empty", sh("true"));
    plan.root.layers.clear();
    plan.process.args = vec!["/prog".to_owned(), "echo".to_owned(), "alone".to_owned()];
    plan.files.push(PreBootFile {
        path: "/prog".into(),
        contents: fs::read("/bin/busybox").unwrap(),
        mode: 0o755,
        uid: IdInContainer::ROOT,
        gid: IdInContainer::ROOT,
        secret: false,
    });
    // busybox looks at its name.
    plan.files[0].path = "/busybox".into();
    plan.process.args[0] = "/busybox".to_owned();
    let mut boxed = rig.start("empty", plan).await;
    assert_eq!(boxed.finish().await.1, "alone\n");
}

#[tokio::test]
async fn files_are_there_first_and_secrets_never_touch_the_disk() {
    let rig = Rig::new().await;
    let script =
        "cat /etc/app/conf /run/secrets/key; stat -c '%a %u %g' /etc/app/conf /run/secrets/key";
    let mut plan = rig.plan("files", sh(script));
    plan.files = vec![
        file("/etc/app/conf", "plain\n", false),
        file("/run/secrets/key", "s3cret\n", true),
    ];
    let mut boxed = rig.start("files", plan).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(0), "{text}");
    assert_eq!(text, "plain\ns3cret\n640 33 34\n640 33 34\n");
    let upper = boxed.dir.join("upper");
    assert_eq!(fs::read(upper.join("etc/app/conf")).unwrap(), b"plain\n");
    assert_eq!(
        fs::metadata(upper.join("etc/app/conf")).unwrap().uid(),
        BASE + 33
    );
    assert_eq!(fs::read(upper.join("run/secrets/key")).unwrap(), b"");
}

#[tokio::test]
async fn names_are_resolved_by_generated_files_also_later() {
    let rig = Rig::new().await;
    let mut plan = rig.plan(
        "hosts",
        sh("cat /etc/hosts /etc/resolv.conf /etc/hostname; echo up; sleep 100"),
    );
    plan.hosts = vec![HostEntry {
        address: "10.9.9.9".parse().unwrap(),
        names: vec!["db".into(), "sql".into()],
    }];
    let mut boxed = rig.start("hosts", plan).await;
    boxed.wait_output(boxed.main(), "up\n").await;
    let text = boxed.output(boxed.main());
    for expected in [
        "127.0.0.1\tlocalhost",
        "10.1.2.3\tboxed",
        "10.9.9.9\tdb sql",
        "nameserver 9.9.9.9",
        "boxed\nup",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let cache = HostEntry {
        address: "10.9.9.8".parse().unwrap(),
        names: vec!["cache".into()],
    };
    boxed.link.write_hosts(vec![cache]).await.unwrap();
    let id = boxed.exec(1, sh("cat /etc/hosts")).await;
    boxed.events.exit_of(id).await;
    let text = boxed.output(id);
    assert!(
        text.contains("10.9.9.8\tcache") && !text.contains("db sql"),
        "{text}"
    );
    assert!(text.contains("10.1.2.3\tboxed"), "{text}");
}

#[tokio::test]
async fn a_read_only_root_stays_so() {
    let rig = Rig::new().await;
    let mut plan = rig.plan(
        "ro",
        sh("touch /x || echo refused; touch /dev/shm/x && echo shm"),
    );
    plan.root.read_only = true;
    let mut boxed = rig.start("ro", plan).await;
    let (_, text) = boxed.finish().await;
    assert!(
        text.contains("refused\n") && text.contains("shm\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_link_in_the_image_does_not_lead_a_file_out_of_it() {
    let rig = Rig::new().await;
    let trap = rig.dir.path().join("trap");
    fs::create_dir(&trap).unwrap();
    let layer = rig.dir.path().join("layer");
    std::os::unix::fs::symlink(&trap, layer.join("out")).unwrap();
    std::os::unix::fs::symlink("/../../../../out2/resolv", layer.join("etc/resolv.conf")).unwrap();
    let mut plan = rig.plan("link", sh("cat /etc/resolv.conf"));
    plan.files = vec![file("/etc/ok", "ok", false)];
    let mut boxed = rig.start("link", plan).await;
    assert!(boxed.finish().await.1.contains("nameserver"));
    let inside = trap.display();
    let mut plan = rig.plan("link2", sh(&format!("cat {inside}/file {inside}/key")));
    plan.files = vec![
        file("/out/file", "in", false),
        file("/out/key", "side", true),
    ];
    let mut boxed = rig.start("link2", plan).await;
    assert_eq!(boxed.finish().await.1, "inside");
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0);
}
