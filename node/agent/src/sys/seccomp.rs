//! The system calls that a container may make: Docker's default profile as a table.
//!
//! Owner: the launcher compiles it once; every keeper inherits the program and every container
//! process installs it as its last act before exec. Invariant: what is not allowed answers EPERM
//! (`clone3` ENOSYS, so that libc falls back to `clone`, whose flags can be looked at); a system call
//! that is newer than this file answers ENOSYS, because libc falls back on that and not on EPERM.
//! The tables themselves are in `seccomp::allowed` and `seccomp::requests`; `seccomp::prelude` is what
//! libseccomp cannot express.
#![allow(unsafe_code)]

mod allowed;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod machine;
mod prelude;
mod requests;

use std::io;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

/// A compiled BPF program.
#[derive(Debug, Clone)]
pub struct SeccompProgram {
    instructions: Vec<libc::sock_filter>,
}

/// `clone` flags that make namespaces; a container may not nest them.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
/// `AF_VSOCK` talks to the hypervisor.
const AF_VSOCK: u64 = 40;
/// `personality` values that are harmless: Linux, 32-bit, and "tell me".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// Why the profile cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("libseccomp refuses the profile")]
    Profile(#[from] libseccomp::error::SeccompError),
    #[error("cannot read the compiled profile back")]
    Export(#[from] io::Error),
}

/// Compiles the default profile. Takes a few milliseconds: done once, ahead of any spawn.
///
/// # Errors
/// What libseccomp said.
pub fn compile() -> Result<SeccompProgram, SeccompError> {
    let refused = ScmpAction::Errno(libc::EPERM);
    let mut filter = ScmpFilterContext::new(refused)?;
    // 32-bit programs on a 64-bit kernel, as Docker allows.
    if cfg!(target_arch = "x86_64") {
        filter.add_arch(ScmpArch::X86)?.add_arch(ScmpArch::X32)?;
    }
    filter.set_ctl_optimize(2)?;
    for name in allowed::ALWAYS {
        // Names of newer kernels or other architectures are unknown to this libseccomp.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        filter.add_rule(ScmpAction::Allow, call)?;
    }
    let clone = ScmpSyscall::from_name("clone")?;
    let no_namespace = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(NAMESPACE_FLAGS), 0);
    filter.add_rule_conditional(ScmpAction::Allow, clone, &[no_namespace])?;
    filter.add_rule(
        ScmpAction::Errno(libc::ENOSYS),
        ScmpSyscall::from_name("clone3")?,
    )?;
    let socket = ScmpSyscall::from_name("socket")?;
    let not_vsock = ScmpArgCompare::new(0, ScmpCompareOp::NotEqual, AF_VSOCK);
    filter.add_rule_conditional(ScmpAction::Allow, socket, &[not_vsock])?;
    let personality = ScmpSyscall::from_name("personality")?;
    for value in PERSONALITIES {
        let equal = ScmpArgCompare::new(0, ScmpCompareOp::Equal, value);
        filter.add_rule_conditional(ScmpAction::Allow, personality, &[equal])?;
    }
    let bytes = exported(&filter)?;
    let mut instructions = prelude::program();
    instructions.extend(bytes.chunks_exact(8).map(|raw| libc::sock_filter {
        code: u16::from_ne_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    }));
    Ok(SeccompProgram { instructions })
}

/// libseccomp 2.5 can write a program to a file only.
fn exported(filter: &ScmpFilterContext) -> Result<Vec<u8>, SeccompError> {
    use std::io::{Read, Seek};
    let fd = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(io::Error::from)?;
    let mut file = std::fs::File::from(fd);
    filter.export_bpf(&file)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl SeccompProgram {
    /// Restricts the calling thread, and all that it becomes, for ever. `no_new_privs` must be
    /// set already.
    ///
    /// # Errors
    /// What seccomp(2) said.
    pub fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.instructions.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let program = libc::sock_fprog {
            len,
            filter: self.instructions.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which outlives the call and is not written to.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_compiles_and_is_small_enough_to_install() {
        let program = compile().unwrap();
        assert!(program.instructions.len() > 100);
        assert!(program.instructions.len() < 4096, "BPF_MAXINSNS");
    }

    #[test]
    fn dangerous_calls_are_not_in_the_table() {
        for name in [
            "mount",
            "umount2",
            "setns",
            "unshare",
            "kexec_load",
            "init_module",
            "bpf",
            "reboot",
            "swapon",
            "open_by_handle_at",
            "keyctl",
            "add_key",
            "perf_event_open",
            "userfaultfd",
            "clone",
            "clone3",
            "pivot_root",
            "move_mount",
            "open_tree",
            "fsopen",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "settimeofday",
        ] {
            assert!(!allowed::ALWAYS.contains(&name), "{name}");
        }
    }

    /// A filter holds for the thread that installs it, so a test can look from inside.
    #[test]
    fn the_kernel_agrees() {
        let program = compile().unwrap();
        let answers = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            program.install().unwrap();
            let errno = |number: libc::c_long| {
                // SAFETY: every argument is -1 or null-like, so no call can do anything.
                unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
                io::Error::last_os_error().raw_os_error().unwrap()
            };
            let request = |request: i64| {
                // SAFETY: there is no such descriptor, so the call can do nothing.
                unsafe { libc::syscall(libc::SYS_ioctl, -1, request, 0) };
                io::Error::last_os_error().raw_os_error().unwrap()
            };
            [
                errno(libc::SYS_mount),
                errno(libc::SYS_setns),
                errno(libc::SYS_unshare),
                errno(libc::SYS_clone3),
                errno(libc::SYS_read),
                errno(452),
                errno(467),
                errno(999),
                request(0xffff_ffff_5000_940e_u64 as i64),
                request(0x5000_9417),
                request(0x4004_9409),
                request(0x5401),
            ]
        })
        .join()
        .unwrap();
        let (no, missing) = (libc::EPERM, libc::ENOSYS);
        let bad_fd = libc::EBADF;
        assert_eq!(answers[..5], [no, no, no, missing, bad_fd]);
        // fchmodat2 is let through (and answers as the kernel likes), newer ones do not exist.
        assert!(answers[5] != no, "{answers:?}");
        assert_eq!(answers[6..8], [missing, missing]);
        // No subvolume, whatever the upper half of the request; no snapshot; but FICLONE and TCGETS.
        assert_eq!(answers[8..], [no, no, bad_fd, bad_fd]);
    }
}
