//! Images whose top is not what programs expect: links to nowhere, circles, FIFOs and files where
//! directories should be. Docker runs them.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use teu_node::keeper::ExitStatus;

use crate::rig::{Rig, sh};

/// Makes something at a path.
type Maker = fn(&Path);

fn fifo(at: &Path) {
    mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
}

#[tokio::test]
async fn whatever_lies_where_the_kernels_directories_go_gives_way() {
    let rig = Rig::new().await;
    let makers: [(&str, Maker); 6] = [
        ("file", |at| fs::write(at, "file").unwrap()),
        ("fifo", fifo),
        ("loop", |at| symlink(at.file_name().unwrap(), at).unwrap()),
        ("dangling", |at| symlink("/nowhere/at/all", at).unwrap()),
        ("to-root", |at| symlink("/", at).unwrap()),
        ("to-etc", |at| symlink("etc", at).unwrap()),
    ];
    for (kind, make) in makers {
        for top in ["proc", "sys", "dev"] {
            let odd = rig.dir.path().join(format!("{kind}-{top}"));
            fs::create_dir(&odd).unwrap();
            make(&odd.join(top));
            let name = format!("{kind}{top}");
            let script =
                "ls /proc/self/status /sys/kernel /dev/null /etc/passwd > /dev/null && echo here";
            let mut plan = rig.plan(&name, sh(script));
            plan.root.layers.push(odd);
            let mut boxed = rig.start(&name, plan).await;
            let (exit, text) = boxed.finish().await;
            assert_eq!(
                (exit.status, text.as_str()),
                (ExitStatus::Code(0), "here\n"),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn generated_files_are_there_whatever_the_image_has_in_their_place() {
    let rig = Rig::new().await;
    let makers: [(&str, Maker); 6] = [
        ("dangling", |etc| symlink("/nowhere", etc).unwrap()),
        ("fifo", fifo),
        ("loop", |etc| symlink("etc", etc).unwrap()),
        ("links", |etc| {
            fs::create_dir(etc).unwrap();
            symlink("../run/resolve/stub.conf", etc.join("resolv.conf")).unwrap();
            symlink("/proc/self/mounts", etc.join("hosts")).unwrap();
            symlink("hostname", etc.join("hostname")).unwrap();
        }),
        ("fifos", |etc| {
            fs::create_dir(etc).unwrap();
            for name in ["resolv.conf", "hosts", "hostname"] {
                fifo(&etc.join(name));
            }
        }),
        ("kernel", |etc| symlink("/proc/etc", etc).unwrap()),
    ];
    let base = rig.dir.path().join("base");
    fs::create_dir_all(base.join("bin")).unwrap();
    for entry in fs::read_dir(rig.dir.path().join("layer/bin")).unwrap() {
        let name = entry.unwrap().file_name();
        let to = base.join("bin").join(&name);
        if name == "busybox" {
            fs::copy("/bin/busybox", to).unwrap();
        } else {
            symlink("busybox", to).unwrap();
        }
    }
    for (kind, make) in makers {
        let odd = rig.dir.path().join(kind);
        fs::create_dir(&odd).unwrap();
        make(&odd.join("etc"));
        let mut plan = rig.plan(kind, sh("cat /etc/hostname /etc/hosts /etc/resolv.conf"));
        plan.root.layers = vec![base.clone(), odd];
        let mut boxed = rig.start(kind, plan).await;
        let (exit, text) = boxed.finish().await;
        assert_eq!(exit.status, ExitStatus::Code(0), "{kind}: {text}");
        for expected in ["boxed\n", "127.0.0.1\tlocalhost", "nameserver 9.9.9.9"] {
            assert!(
                text.contains(expected),
                "{kind}: {expected} is not in {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_directory_in_the_place_of_a_generated_file_is_told_by_its_path() {
    let rig = Rig::new().await;
    fs::create_dir(rig.dir.path().join("layer/etc/hosts")).unwrap();
    let (_, link) = rig.warm("dirhosts").await;
    let error = link
        .start(rig.plan("dirhosts", sh("true")))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("/etc/hosts: is a directory"),
        "{error}"
    );
}

/// Nothing of the image is read by whoever waits for it.
#[tokio::test]
async fn a_fifo_as_the_users_file_does_not_hold_the_start_up() {
    let rig = Rig::new().await;
    let passwd = rig.dir.path().join("layer/etc/passwd");
    fs::remove_file(&passwd).unwrap();
    fifo(&passwd);
    let (_, link) = rig.warm("fifopw").await;
    let error = link
        .start(rig.plan("fifopw", sh("true")))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/etc/passwd: not a regular file"),
        "{error}"
    );
}
