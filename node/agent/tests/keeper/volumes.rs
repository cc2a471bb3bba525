//! Volumes from a container's start on: owners, places, hostile images, what warm slots keep.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::PathBuf,
};

use teu_node::keeper::{ExitStatus, PreBootFile, VolumeMountPlan};
use teu_protocol::image_config::user::IdInContainer;

use crate::{
    rig::{BASE, Rig, eventually, sh},
    volume_lab::{Pool, mount},
};

fn volume(rig: &Rig, name: &str) -> PathBuf {
    let dir = rig.dir.path().join(format!("volume-{name}"));
    fs::create_dir(&dir).unwrap();
    dir
}

#[tokio::test]
async fn volumes_are_mounted_with_mapped_owners_and_survive() {
    let rig = Rig::new().await;
    let source = volume(&rig, "volume");
    fs::write(source.join("old"), "old\n").unwrap();
    let mut plan = rig.plan(
        "vol",
        sh("exec 2>&1; cat /data/old; echo new > /data/new; echo x > /ro/x; cat /ro/new; sleep 100"),
    );
    let read_only = VolumeMountPlan {
        read_only: true,
        ..mount(&source, "/ro")
    };
    plan.mounts = vec![mount(&source, "/data"), read_only];
    let mut boxed = rig.start("vol", plan).await;
    let main = boxed.main();
    boxed.wait_output(main, "new\n").await;
    let text = boxed.output(main);
    assert!(text.starts_with("old\n"), "{text}");
    assert!(text.contains("Read-only"), "{text}");
    let id = boxed.exec(1, sh("cat /data/new /ro/old")).await;
    boxed.events.exit_of(id).await;
    assert_eq!(boxed.output(id), "new\nold\n");
    boxed.link.destroy().await.unwrap();
    boxed.events.wait_gone().await;
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "new\n");
    let owner = fs::metadata(source.join("new")).unwrap().uid();
    assert_eq!(owner, 0, "any node, any account");
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_fresh_volume_takes_the_look_of_what_it_covers_and_its_user_works_in_it() {
    let rig = Rig::new().await;
    let home = rig.dir.path().join("layer/srv/www");
    fs::create_dir_all(&home).unwrap();
    chown(&home, Some(33), Some(34)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o2750)).unwrap();
    let source = volume(&rig, "fresh");
    let script = "pwd; stat -c '%a %u %g' /srv/www .; echo mine > here; cat here; sleep 100";
    let mut plan = rig.plan("fresh", sh(script));
    plan.process.user = "web".to_owned();
    // Missing in the image and in the volume.
    plan.process.cwd = "/srv/www/deep/er".into();
    plan.mounts = vec![mount(&source, "/srv/www")];
    let mut boxed = rig.start("fresh", plan).await;
    let main = boxed.main();
    boxed.wait_output(main, "mine\n").await;
    let expected = "/srv/www/deep/er\n2750 33 34\n2755 33 34\nmine\n";
    assert_eq!(boxed.output(main), expected);
    let file = fs::metadata(source.join("deep/er/here")).unwrap();
    assert_eq!((file.uid(), fs::metadata(&source).unwrap().gid()), (33, 34));
    // A further process: another directory that is missing, as another user.
    let mut further = sh("pwd; cat ../deep/er/here");
    further.cwd = "/srv/www/other".into();
    let id = boxed.exec(1, further).await;
    boxed.events.exit_of(id).await;
    assert_eq!(boxed.output(id), "/srv/www/other\nmine\n");
    assert_eq!(fs::metadata(source.join("other")).unwrap().uid(), 0);
}

#[tokio::test]
async fn a_volume_that_was_used_keeps_its_look() {
    let rig = Rig::new().await;
    let home = rig.dir.path().join("layer/www");
    fs::create_dir_all(&home).unwrap();
    chown(&home, Some(33), Some(34)).unwrap();
    let (full, given) = (volume(&rig, "full"), volume(&rig, "given"));
    fs::write(full.join("x"), "").unwrap();
    chown(&given, Some(7), Some(0)).unwrap();
    let mut plan = rig.plan("kept", sh("stat -c '%u %g' /www /www/in"));
    plan.mounts = vec![mount(&given, "/www/in"), mount(&full, "/www")];
    let mut boxed = rig.start("kept", plan).await;
    assert_eq!(boxed.finish().await.1, "0 0\n7 0\n");
}

#[tokio::test]
async fn without_mapping_the_tree_belongs_to_the_accounts_own_range() {
    let rig = Rig::new().await;
    let source = volume(&rig, "plain");
    let mut plan = rig.plan(
        "plain",
        sh("echo x > /data/x; stat -c '%u %g' /data /data/x"),
    );
    plan.mounts = vec![VolumeMountPlan {
        idmapped: false,
        ..mount(&source, "/data")
    }];
    let mut boxed = rig.start("plain", plan).await;
    assert_eq!(boxed.finish().await.1, "0 0\n0 0\n");
    assert_eq!(fs::metadata(source.join("x")).unwrap().uid(), BASE);
}

#[tokio::test]
async fn volumes_in_volumes_and_files_in_both() {
    let rig = Rig::new().await;
    let (outer, inner) = (volume(&rig, "outer"), volume(&rig, "inner"));
    let file = |path: &str, secret| PreBootFile {
        path: path.into(),
        contents: format!("{path}\n").into(),
        mode: 0o640,
        uid: IdInContainer::new(33),
        gid: IdInContainer::new(34),
        secret,
    };
    let script =
        "cat /data/in/conf /data/key /data/in/key; stat -c '%a %u' /data/in/conf /data/key";
    let mut plan = rig.plan("nested", sh(script));
    // Inner ones first: the order of the plan does not matter.
    plan.mounts = vec![mount(&inner, "/data/in"), mount(&outer, "/data")];
    plan.files = vec![
        file("/data/in/conf", false),
        file("/data/key", true),
        file("/data/in/key", true),
    ];
    let mut boxed = rig.start("nested", plan).await;
    let (_, text) = boxed.finish().await;
    assert_eq!(
        text,
        "/data/in/conf\n/data/key\n/data/in/key\n640 33\n640 33\n"
    );
    assert_eq!(fs::metadata(inner.join("conf")).unwrap().uid(), 33);
    assert_eq!(fs::read(outer.join("key")).unwrap(), b"", "only a place");
    assert_eq!(fs::read(inner.join("key")).unwrap(), b"", "only a place");
}

#[tokio::test]
async fn links_of_the_image_stay_inside_and_reserved_places_are_refused() {
    let rig = Rig::new().await;
    let source = volume(&rig, "volume");
    let trap = volume(&rig, "trap");
    let layer = rig.dir.path().join("layer");
    symlink(&trap, layer.join("out")).unwrap();
    symlink("../../../../../../etc/inside", layer.join("up")).unwrap();
    symlink("/proc", layer.join("kernel")).unwrap();
    fs::create_dir(layer.join("etc/inside")).unwrap();
    // A link that leads upwards ends in the root.
    let mut plan = rig.plan("up", sh("echo x > /etc/inside/x; sleep 100"));
    plan.mounts = vec![mount(&source, "/up")];
    let _boxed = rig.start("up", plan).await;
    eventually("it is written", || source.join("x").exists()).await;
    // One that leads to what is not there: it is made inside, as other engines do.
    for (name, target) in [("t0", "/out"), ("t1", "/out/below")] {
        let script = format!("echo {name} > {target}/{name}");
        let mut plan = rig.plan(name, sh(&script));
        plan.mounts = vec![mount(&source, target)];
        let mut boxed = rig.start(name, plan).await;
        let (exit, text) = boxed.finish().await;
        assert_eq!(exit.status, ExitStatus::Code(0), "{text}");
        assert!(source.join(name).exists(), "{target}");
    }
    for (name, target) in [
        ("t2", "/"),
        ("t3", "/../.."),
        ("t4", "/proc"),
        ("t5", "/kernel"),
        ("t7", "/kernel/1"),
        ("t8", "/dev/x"),
        ("t6", "/etc/plain"),
    ] {
        let (_, link) = rig.warm(name).await;
        let mut plan = rig.plan(name, sh("true"));
        plan.mounts = vec![mount(&source, target)];
        let error = link.start(plan).await.unwrap_err().to_string();
        assert!(error.contains("cannot mount the volumes"), "{error}");
        assert!(error.contains(target), "{error}");
    }
    let (_, link) = rig.warm("twice").await;
    let mut plan = rig.plan("twice", sh("true"));
    plan.mounts = vec![mount(&source, "/a"), mount(&source, "/a/")];
    let error = link.start(plan).await.unwrap_err().to_string();
    assert!(error.contains("same place"), "{error}");
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0);
}

#[tokio::test]
async fn a_volume_that_is_not_there_is_told_and_the_slot_is_still_warm() {
    let rig = Rig::new().await;
    let (_, link) = rig.warm("none").await;
    let mut plan = rig.plan("none", sh("true"));
    plan.mounts = vec![mount(&rig.dir.path().join("nowhere"), "/data")];
    let error = link.start(plan).await.unwrap_err().to_string();
    assert!(error.contains("/data: No such file"), "{error}");
    link.start(rig.plan("none", sh("true"))).await.unwrap();
}

#[tokio::test]
async fn neither_warm_slots_nor_other_containers_keep_a_pool_busy() {
    let rig = Rig::new().await;
    let mut pool = Pool::new(&rig);
    let tree = pool.versioned("tree", "one");
    // Both are older than the unmounting, both younger than the pool.
    let (_, _warm) = rig.warm("warm").await;
    let mut other = rig.run("other", "echo up; sleep 100").await;
    let main = other.main();
    other.wait_output(main, "up").await;
    // One that had a volume holds it for as long as it runs, and no longer.
    let mut plan = rig.plan("user", sh("cat /data/version; sleep 100"));
    plan.mounts = vec![mount(&tree, "/data")];
    let mut user = rig.start("user", plan).await;
    let main = user.main();
    user.wait_output(main, "one").await;
    pool.unmount();
    assert!(pool.is_busy(), "its user still runs");
    let id = user.exec(1, sh("cat /data/version")).await;
    user.events.exit_of(id).await;
    assert_eq!(user.output(id), "one\n");
    user.link.destroy().await.unwrap();
    eventually("the file system goes", || !pool.is_busy()).await;
}
