//! What a container may ask of the file system of its volumes, with Debian's own programs on a real
//! btrfs: nothing that would get around the quota or in the way of the node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use teu_node::keeper::ExitStatus;

use crate::{
    rig::{Rig, sh},
    volume_lab::{Pool, mount},
};

/// Puts a program of this machine into the image, with the libraries that it needs.
fn add_program(rig: &Rig, name: &str) {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    let found = places.map(|dir| Path::new(dir).join(name));
    let program = found.iter().find(|path| path.exists()).unwrap();
    let layer = rig.dir.path().join("layer");
    let put = |from: &Path, to: PathBuf| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    put(program, layer.join("programs").join(name));
    let needed = Command::new("ldd").arg(program).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    for library in needed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        put(Path::new(library), layer.join(&library[1..]));
    }
}

/// The test of the filter itself, request by request, is `sys::seccomp`'s own.
#[tokio::test]
async fn subvolumes_and_snapshots_are_not_made_in_volumes_but_clones_of_files_are() {
    let rig = Rig::new().await;
    let pool = Pool::new(&rig);
    let tree = pool.versioned("tree", "one");
    for name in ["btrfs", "cp"] {
        add_program(&rig, name);
    }
    let script = "
        cd /data
        btrfs=/programs/btrfs
        $btrfs subvolume create own 2>&1; echo create $?
        $btrfs subvolume snapshot . copy 2>&1; echo snapshot $?
        $btrfs subvolume snapshot -r . frozen 2>&1; echo read-only snapshot $?
        $btrfs property set -ts . ro true 2>&1; echo property $?
        head -c 1000000 /dev/zero > file
        /programs/cp --reflink=always file clone; echo clone $?
        $btrfs property get -ts . ro; echo end
        ";
    let mut plan = rig.plan("requests", sh(script));
    plan.mounts = vec![mount(&tree, "/data")];
    let mut boxed = rig.start("requests", plan).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(0), "{text}");
    for refused in [
        "create 1",
        "snapshot 1",
        "read-only snapshot 1",
        "property 1",
    ] {
        assert!(
            text.contains(&format!("\n{refused}\n")),
            "{refused}: {text}"
        );
    }
    let not_permitted = text.matches("Operation not permitted").count();
    assert_eq!(not_permitted, 4, "{text}");
    let end = "\nclone 0\nro=false\nend\n";
    assert!(text.ends_with(end), "{text}");
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&tree), ["clone", "file", "version"]);
    let (clone, file) = (fs::read(tree.join("clone")), fs::read(tree.join("file")));
    assert_eq!(clone.unwrap(), file.unwrap());
}
