//! Daemons that die at a named place, once, as if by `kill -9`.
//!
//! ```text
//! <scratch>/programs/teu                  the same as ever: `teu dev` starts what lies beside it
//! <scratch>/programs/teu-node, teu-master scripts: take `<name>.due`, if it is there, as FAILPOINTS, and become
//! <scratch>/programs/real/<name>          the daemon that was built with its failpoints (deploy/lib/build-failpoints)
//! ```
//! Owner: [`World`]. Invariant: a failpoint is armed for one life of one daemon; the supervisor starts
//! the next one without.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{World, eventually, program};

const DAEMONS: [&str; 2] = ["teu-node", "teu-master"];

const SCRIPT: &str = "#!/bin/sh
here=$(dirname \"$0\") name=$(basename \"$0\")
if [ -e \"$here/$name.due\" ]; then
  FAILPOINTS=$(cat \"$here/$name.due\")
  export FAILPOINTS
  rm \"$here/$name.due\"
fi
exec \"$here/real/$name\" \"$@\"
";

/// Why daemons with failpoints cannot be had here, if so.
#[must_use]
pub fn cannot_build() -> Option<String> {
    let cargo = Command::new("cargo").arg("--version").output();
    let can = script().exists() && cargo.is_ok_and(|done| done.status.success());
    (!are_there(&place()) && !can)
        .then(|| "daemons with failpoints are not built, and there is no cargo".to_owned())
}

/// `<target>/failpoints/debug`, for `teu` is `<target>/debug/teu`.
fn place() -> PathBuf {
    let teu = program("teu");
    let target = teu.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.join("failpoints/debug")
}

fn are_there(place: &Path) -> bool {
    DAEMONS.iter().all(|name| place.join(name).is_file())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/lib/build-failpoints")
}

/// Where they are. Built if there are none; as with all programs, whoever changes them builds them anew.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let place = place();
        if !are_there(&place) {
            let target = place.ancestors().nth(2).expect("a target directory");
            let mut build = Command::new(script());
            let done = build.env("CARGO_TARGET_DIR", target).output();
            let done = done.expect("the script runs");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{said}");
        }
        place
    })
}

/// Makes the directory of programs; gives the `teu` in it.
pub(super) fn programs(scratch: &Path) -> PathBuf {
    let built = built();
    let programs = scratch.join("programs");
    fs::create_dir_all(programs.join("real")).expect("a directory");
    for name in DAEMONS {
        let script = programs.join(name);
        fs::write(&script, SCRIPT).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
        symlink(built.join(name), programs.join("real").join(name)).expect("a link");
    }
    // `teu dev` looks beside the file that it is, so a symbolic link would not do.
    let teu = programs.join("teu");
    if fs::hard_link(program("teu"), &teu).is_err() {
        fs::copy(program("teu"), &teu).expect("a copy of teu");
    }
    teu
}

impl World {
    /// Ends a daemon and has it started with this in FAILPOINTS (such as `volume-create-made=panic`,
    /// which ends it there as `kill -9` does); waits until containers can be spawned again.
    pub fn arm(&self, daemon: &str, failpoints: &str) {
        let due = self.scratch().join(format!("programs/{daemon}.due"));
        fs::write(&due, failpoints).expect("what is due");
        self.kill_daemon(daemon);
        eventually("the daemon knows what is due", || !due.exists());
        self.wait_up();
    }

    /// How often a daemon of this location has died at that failpoint.
    #[must_use]
    pub fn deaths_at(&self, failpoint: &str) -> usize {
        let line = format!("failpoint {failpoint} panic");
        self.log().matches(&line).count()
    }
}
