//! Numbers in libnvpair's lists, which the crate `nvpair` can read but not write.
//!
//! Owned by the ZFS pool's libzfs_core driver (`volumes/pool/zfs/core.rs`). Invariant: a list is only
//! touched through the reference that is passed. Next: docs/decisions/0012-zfs-core.md.

#![allow(unsafe_code)]

use std::{ffi::CStr, io};

use nvpair::NvListRef;

/// Adds a number, as ZFS takes the values of numeric properties.
///
/// # Errors
///
/// The library's, in practice that there is no memory.
pub fn add_number(list: &mut NvListRef, name: &CStr, value: u64) -> io::Result<()> {
    // SAFETY: the list is alive and ours alone for the call (`&mut`), and the name ends with a NUL;
    // the library copies it.
    let errno = unsafe { nvpair_sys::nvlist_add_uint64(list.as_mut_ptr(), name.as_ptr(), value) };
    match errno {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
