//! Making files as another user of the host, for a moment.
//!
//! Owner: whoever makes files on a mount with mapped owners: there the host's root does not exist, so
//! it cannot be the owner of a new file (`EOVERFLOW`). Invariant: only the calling thread changes, only
//! while `work` runs, and it keeps root's rights over files.
#![allow(unsafe_code)]

use std::io;

use caps::{CapSet, Capability};

/// Root's rights over files, which go with the user id.
const RIGHTS: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];

/// Runs `work` with these ids as owners of what it makes.
///
/// # Errors
/// What `work` or taking the rights said.
pub fn making_as<T>(uid: u32, gid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: both calls change ids of the calling thread only, and cannot fail for root.
    let (old_uid, old_gid) = unsafe { (libc::setfsuid(uid), libc::setfsgid(gid)) };
    let raised = RIGHTS
        .into_iter()
        .try_for_each(|right| caps::raise(None, CapSet::Effective, right))
        .map_err(io::Error::other);
    let outcome = raised.and_then(|()| work());
    // SAFETY: as above; going back to root gives its rights back.
    unsafe {
        libc::setfsgid(old_gid.cast_unsigned());
        libc::setfsuid(old_uid.cast_unsigned());
    }
    outcome
}
