//! An image out of the machine's own static busybox.
//!
//! Owner: [`super::ImageBuilder::busybox`]. Invariant: a dynamically linked busybox is refused
//! (it would find no loader in the image), and only plain applet names become links.

use std::{path::Path, process::Command};

use super::{ImageBuilder, ImageError};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                      www-data:x:33:33:www-data:/var/www:/bin/false\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n";

pub(super) fn image(program: &Path) -> Result<ImageBuilder, ImageError> {
    let open = |source| ImageError::Open {
        path: program.to_owned(),
        source,
    };
    let program = program.canonicalize().map_err(open)?;
    let content = std::fs::read(&program).map_err(open)?;
    if !is_static_elf(&content) {
        let why = format!(
            "`{}` is not a statically linked program; install busybox-static",
            program.display()
        );
        return Err(ImageError::Build { why });
    }
    let output = Command::new(&program)
        .arg("--list")
        .output()
        .map_err(open)?;
    let applets = String::from_utf8_lossy(&output.stdout);
    let mut image = ImageBuilder::new()
        .file("bin/busybox", 0o755, content)
        .dir("tmp", 0o1777)
        .dir("var/tmp", 0o1777)
        .dir("root", 0o700)
        .dir("var/www", 0o755)
        .dir("dev", 0o755)
        .dir("proc", 0o555)
        .dir("sys", 0o555)
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
        .file("etc/nsswitch.conf", 0o644, "hosts: files dns\n")
        .symlink("usr/bin/env", "../../bin/busybox")
        .cmd(["sh"]);
    for applet in applets.lines().filter(|name| is_applet(name)) {
        image = image.symlink(&format!("bin/{applet}"), "busybox");
    }
    Ok(image)
}

fn is_applet(name: &str) -> bool {
    !name.is_empty()
        && name != "busybox"
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

/// No interpreter (PT_INTERP) among the program headers of a 64-bit little-endian ELF file.
fn is_static_elf(file: &[u8]) -> bool {
    const PT_INTERP: [u8; 4] = 3_u32.to_le_bytes();
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = file.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0_usize, |value, byte| (value << 8) | usize::from(*byte)),
        )
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).all(|index| {
        let at = index
            .checked_mul(size)
            .and_then(|offset| offset.checked_add(table));
        let header = at.and_then(|at| file.get(at..at.checked_add(4)?));
        header.is_some_and(|kind| kind != PT_INTERP)
    })
}
