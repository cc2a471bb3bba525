//! Memory that was freed goes back to the system.
//!
//! The C library keeps what is freed, for it may be wanted again; after an attack or a burst that is
//! gigabytes which other programs of the machine cannot have.
#![allow(unsafe_code)]

/// Gives back what is free on every heap of the process. Walks them: milliseconds for a large one.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) has no precondition and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
