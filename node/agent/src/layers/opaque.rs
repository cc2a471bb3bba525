//! Marks directories opaque for overlayfs, on the confined child's behalf.
//!
//! Owner: `ingest`. Why here: `trusted.*` attributes need CAP_SYS_ADMIN, which the child lacks.
//! Invariant: the path is resolved with the layer's root as root (`sys::open_in_root`), so
//! whatever links the layer holds, nothing outside it is touched.

use std::{fs::File, io, path::Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};

use crate::sys::open_in_root::open_in_root;

/// What overlayfs looks for (kernel documentation, "Overlay Filesystem", whiteouts and opaque
/// directories).
const OPAQUE: &str = "trusted.overlay.opaque";

pub(super) fn mark(root: &Path, directories: &[Vec<u8>]) -> io::Result<()> {
    if directories.is_empty() {
        return Ok(());
    }
    let root = File::open(root)?;
    for path in directories {
        // The root itself is the empty path.
        let path = if path.is_empty() { b"." } else { &path[..] };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let directory = open_in_root(&root, path, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
        rustix::fs::fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?;
    }
    Ok(())
}
