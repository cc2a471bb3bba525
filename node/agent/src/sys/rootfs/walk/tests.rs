//! Paths that strangers made: links to nowhere, upwards, in circles; FIFOs; the kernel's directories.

use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::{keeper::IdRange, sys::rootfs::FileLook};

struct Lab {
    dir: tempfile::TempDir,
    root: Root,
}

const LOOK: FileLook = FileLook {
    mode: 0o640,
    owner: Owner::ROOT,
};

impl Lab {
    /// A root, and beside it what must stay as it is.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("in/etc")).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        let ids = IdRange {
            base: rustix::process::geteuid().as_raw(),
            count: 1,
        };
        let root = Root::open(&dir.path().join("in"), ids).unwrap();
        Self { dir, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.dir.path().join("in").join(path)
    }

    fn link(&self, target: &str, at: &str) {
        symlink(target, self.inside(at)).unwrap();
    }

    fn make(&self, path: &str) -> io::Result<()> {
        self.root.make_dirs(Path::new(path), Owner::ROOT).map(drop)
    }

    fn write(&self, path: &str) -> io::Result<()> {
        self.root.write_file(Path::new(path), b"x", LOOK)
    }

    fn assert_outside_is_empty(&self) {
        let names = |path: &Path| -> Vec<_> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        assert!(names(&self.dir.path().join("out")).is_empty());
        assert_eq!(names(self.dir.path()).len(), 2);
    }
}

#[test]
fn directories_behind_dangling_links_are_made_inside() {
    let lab = Lab::new();
    lab.link("/run", "var-run");
    lab.link("releases/1", "current");
    lab.link("../../../../../../escape", "up");
    lab.link(lab.dir.path().join("out/made").to_str().unwrap(), "away");
    lab.link("current", "twice");
    for (path, made) in [
        ("/var-run/app", "run/app"),
        ("/current", "releases/1"),
        ("/current/x", "releases/1/x"),
        ("/up/y", "escape/y"),
        ("/twice/z", "releases/1/z"),
        ("/a/b/../c", "a/c"),
        ("/../../d", "d"),
    ] {
        lab.make(path).unwrap_or_else(|error| panic!("{error}"));
        assert!(lab.inside(made).is_dir(), "{path} is {made}");
        // Again, where it is there.
        lab.make(path).unwrap();
    }
    lab.make("/away/x").unwrap();
    let inner = lab.dir.path().join("out/made/x");
    assert!(
        lab.inside(inner.to_str().unwrap().trim_start_matches('/'))
            .is_dir()
    );
    lab.assert_outside_is_empty();
}

#[test]
fn files_behind_dangling_links_are_made_inside() {
    let lab = Lab::new();
    lab.link("../run/resolve/stub.conf", "etc/resolv.conf");
    lab.link("../../../../hosts", "etc/hosts");
    lab.link(lab.dir.path().join("out").to_str().unwrap(), "escape");
    lab.write("/etc/resolv.conf").unwrap();
    lab.write("/etc/hosts").unwrap();
    lab.write("/escape/file").unwrap();
    lab.write("/a/../../b").unwrap();
    for made in ["run/resolve/stub.conf", "hosts", "b"] {
        assert_eq!(fs::read(lab.inside(made)).unwrap(), b"x", "{made}");
    }
    assert!(lab.inside("etc/hosts").is_symlink(), "the link stays");
    lab.assert_outside_is_empty();
}

#[test]
fn what_cannot_be_is_refused_by_its_name() {
    let lab = Lab::new();
    lab.link("b", "a");
    lab.link("a", "b");
    lab.link("self/x", "self");
    fs::write(lab.inside("file"), "").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        lab.inside("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for path in [
        "/a", "/a/x", "/self/y", "/file/x", "/fifo/x", "/file", "/fifo",
    ] {
        let error = lab.make(path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: ")), "{error}");
    }
    for path in ["/a", "/a/x", "/file/x", "/fifo", "/etc", "/", "/.."] {
        let error = lab.write(path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: ")), "{error}");
    }
    // A terminal obeys none of it.
    let error = lab.make("/file/\u{1b}[2J").unwrap_err().to_string();
    assert!(!error.contains('\u{1b}'), "{error}");
}

#[test]
fn nothing_is_made_where_the_kernels_file_systems_will_be() {
    let lab = Lab::new();
    fs::create_dir(lab.inside("proc")).unwrap();
    lab.link("/proc/self/fd/13", "x13");
    lab.link("proc/../dev/shm", "shm");
    for path in [
        "/proc/self/fd/13",
        "/proc/1",
        "/sys/x",
        "/dev/shm/x",
        "/x13",
        "/x13/y",
        "/shm",
        "/etc/../proc/x",
    ] {
        assert!(lab.make(path).is_err(), "{path}");
        assert!(lab.write(path).is_err(), "{path}");
    }
    for made in ["proc/self", "sys", "dev"] {
        assert!(!lab.inside(made).exists(), "{made}");
    }
    // In a volume these are names as any other.
    let fd = rustix::fs::open(lab.inside(""), OFlags::PATH, Mode::empty()).unwrap();
    let volume = Root::of(fd, lab.root.ids);
    volume.make_dirs(Path::new("/sys/x"), Owner::ROOT).unwrap();
    assert!(lab.inside("sys/x").is_dir());
}

#[test]
fn the_kernels_own_links_are_not_followed() {
    let root = Root::own().unwrap();
    let file = fs::File::open("/").unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    for path in [
        format!("/proc/self/fd/{number}"),
        format!("/proc/self/fd/{number}/tmp"),
        format!("/proc/thread-self/fd/{number}"),
        "/proc/self/cwd".to_owned(),
        "/proc/self/root".to_owned(),
        "/proc/1/root/tmp".to_owned(),
        "/proc/self/fd/99999".to_owned(),
        "/dev/fd/99999/x".to_owned(),
    ] {
        let error = root
            .make_dirs(Path::new(&path), Owner::ROOT)
            .expect_err(&path)
            .to_string();
        assert!(error.starts_with(&path), "{error}");
    }
    root.make_dirs(Path::new("/proc/self/fd"), Owner::ROOT)
        .unwrap();
}

#[test]
fn a_mount_point_is_a_directory_whatever_the_image_has_there() {
    let lab = Lab::new();
    lab.link("nowhere", "proc");
    lab.link("sys", "sys");
    fs::write(lab.inside("dev"), "file").unwrap();
    fs::create_dir(lab.inside("kept")).unwrap();
    fs::write(lab.inside("kept/file"), "").unwrap();
    for name in ["proc", "sys", "dev", "kept", "fresh"] {
        lab.root.make_mount_point(name).unwrap();
        assert!(lab.inside(name).symlink_metadata().unwrap().is_dir());
    }
    assert!(lab.inside("kept/file").exists());
    assert!(!lab.inside("nowhere").exists());
}

#[test]
fn a_long_way_ends() {
    let lab = Lab::new();
    // Each link is walked once more by every one after it.
    lab.link("/etc", "l0");
    for number in 1..60 {
        let before = number - 1;
        lab.link(&format!("l{before}/../l{before}"), &format!("l{number}"));
    }
    let error = lab.make("/l59/x").unwrap_err().to_string();
    assert!(error.contains("loop of links"), "{error}");
    let deep = "/d".repeat(2_000);
    lab.make(&deep).unwrap();
}

/// What the C library's getcwd(3) may miss: it looks for a way up by names.
#[test]
#[allow(unsafe_code)]
fn a_directory_outside_of_the_root_is_told_from_one_inside() {
    let lab = Lab::new();
    let (inside, outside) = (lab.inside("etc"), lab.dir.path().join("out"));
    let top = lab.inside("");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: this thread's root and directory become its own.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
            must_stand_in_root().unwrap();
            let out = fs::File::open(&outside).unwrap();
            rustix::process::chdir(&inside).unwrap();
            rustix::process::chroot(&top).unwrap();
            must_stand_in_root().unwrap();
            rustix::process::fchdir(&out).unwrap();
            let error = must_stand_in_root().unwrap_err().to_string();
            assert_eq!(error, "lies outside of the container");
        });
    });
}
