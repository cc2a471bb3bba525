//! Every call that is filtered by its arguments, and calls that are not allowed, tried at every door to
//! the kernel: native numbers, x32's and i386's.
//!
//! Invariant: what one door refuses, no other one allows.

use libseccomp::{ScmpArch, ScmpSyscall};

use super::{NAMESPACE_FLAGS, SeccompProgram, compile, machine::run};

const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Linux's names of architectures (linux/audit.h). x32 is x86-64 with a bit in its numbers.
#[cfg(target_arch = "x86_64")]
const DOORS: &[(ScmpArch, u32)] = &[
    (ScmpArch::X8664, 0xC000_003E),
    (ScmpArch::X32, 0xC000_003E),
    (ScmpArch::X86, 0x4000_0003),
];
#[cfg(target_arch = "aarch64")]
const DOORS: &[(ScmpArch, u32)] = &[(ScmpArch::Aarch64, 0xC000_00B7)];

/// libseccomp 2.5 numbers i386's calls for sockets as if there was only socketcall(2).
const OF_I386: [(&str, u32); 2] = [("socket", 359), ("connect", 362)];

fn number(name: &str, arch: ScmpArch) -> Option<u32> {
    let own = OF_I386
        .iter()
        .find(|one| arch == ScmpArch::X86 && one.0 == name);
    if let Some((_, number)) = own {
        return Some(*number);
    }
    let call = ScmpSyscall::from_name_by_arch(name, arch).ok()?;
    u32::try_from(call.as_raw_syscall()).ok()
}

fn asked(program: &SeccompProgram, architecture: u32, number: u32, args: [u64; 2]) -> u32 {
    let mut data = [0; 16];
    (data[0], data[1]) = (number, architecture);
    for (at, arg) in args.into_iter().enumerate() {
        data[4 + 2 * at] = arg as u32;
        data[5 + 2 * at] = (arg >> 32) as u32;
    }
    run(&program.instructions, &data).expect("a program answers")
}

/// What must be refused, with the arguments for which it must be. The kernel ignores the upper half of
/// a socket's family and of a request.
fn refused() -> Vec<(&'static str, [u64; 2])> {
    let mut all = vec![
        ("socket", [40, 1]),
        ("socket", [0xdead_beef_0000_0028, 1]),
        ("ioctl", [0, 0x5412]),
        ("ioctl", [0, 0xffff_ffff_0000_5412]),
        ("ioctl", [0, 0x5000_940e]),
        ("personality", [0x040_0000, 0]),
        ("socketcall", [1, 0]),
        ("socketcall", [3, 0]),
    ];
    for bit in 0..32 {
        let flag = 1 << bit;
        if NAMESPACE_FLAGS & flag != 0 {
            all.push(("clone", [flag | 17, 0]));
        }
    }
    let never = [
        "mount",
        "umount2",
        "setns",
        "unshare",
        "bpf",
        "keyctl",
        "add_key",
        "request_key",
        "perf_event_open",
        "userfaultfd",
        "open_by_handle_at",
        "init_module",
        "finit_module",
        "kexec_load",
        "pivot_root",
        "swapon",
        "reboot",
        "settimeofday",
        "iopl",
        "ioperm",
        "acct",
        "quotactl",
        "vm86",
        "vm86old",
        "stime",
        "umount",
        "io_uring_setup",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsmount",
    ];
    all.extend(never.map(|name| (name, [0, 0])));
    all
}

#[test]
fn what_is_refused_is_refused_at_every_door() {
    let program = compile().unwrap();
    let mut tried = 0;
    for (name, args) in refused() {
        for &(arch, architecture) in DOORS {
            let Some(number) = number(name, arch) else {
                continue;
            };
            tried += 1;
            let answer = asked(&program, architecture, number, args);
            assert_eq!(answer, REFUSE, "{name} {args:x?} by {arch:?} ({number:#x})");
        }
    }
    assert!(tried > 40 * DOORS.len(), "{tried}");
}

#[test]
fn what_is_allowed_is_allowed_at_every_door() {
    let program = compile().unwrap();
    let allowed: [(&str, [u64; 2]); 8] = [
        ("socket", [1, 1]),
        ("socket", [2, 1]),
        ("socket", [16, 3]),
        ("ioctl", [0, 0x5401]),
        ("clone", [17, 0]),
        ("personality", [0, 0]),
        ("read", [0, 0]),
        ("connect", [0, 0]),
    ];
    for (name, args) in allowed {
        for &(arch, architecture) in DOORS {
            let number = number(name, arch).unwrap();
            let answer = asked(&program, architecture, number, args);
            assert_eq!(answer, libc::SECCOMP_RET_ALLOW, "{name} by {arch:?}");
        }
    }
    for &(arch, architecture) in DOORS {
        let number = number("clone3", arch).unwrap();
        let answer = asked(&program, architecture, number, [0, 0]);
        assert_eq!(answer, MISSING, "clone3 by {arch:?}");
    }
}

/// The same, by the kernel: 64-bit code may call it as 32-bit code does.
#[cfg(target_arch = "x86_64")]
mod by_the_kernel {
    use std::io::{Read, Write};

    use super::*;

    /// i386's way in: number and three arguments in eax, ebx, ecx and edx.
    unsafe fn int80(number: u32, args: [u32; 3]) -> i32 {
        let answer: u32;
        // SAFETY: rbx, which the compiler keeps for itself, is put back; the call itself is the caller's
        // matter.
        unsafe {
            std::arch::asm!(
                "xchg {first:r}, rbx",
                "int 0x80",
                "xchg {first:r}, rbx",
                first = inout(reg) u64::from(args[0]) => _,
                inlateout("eax") number => answer,
                in("ecx") args[1],
                in("edx") args[2],
                out("r8") _,
                out("r9") _,
                out("r10") _,
                out("r11") _,
            );
        }
        answer.cast_signed()
    }

    fn x32(number: u32, args: [u32; 3]) -> i32 {
        let [a, b, c] = args.map(i64::from);
        // SAFETY: as for `int80`.
        let done = unsafe { libc::syscall(i64::from(0x4000_0000 + number), a, b, c) };
        match done {
            -1 => -std::io::Error::last_os_error().raw_os_error().unwrap(),
            done => i32::try_from(done).unwrap(),
        }
    }

    /// Calls by `int 0x80` whose every success would be harmless, and what they must answer.
    const BY_INT80: [(&str, u32, [u32; 3], i32); 8] = [
        ("socket, AF_VSOCK", 359, [40, 1, 0], -libc::EPERM),
        // Its arguments would lie at a place that is not mapped.
        ("socketcall, socket", 102, [1, 16, 0], -libc::EPERM),
        ("ioctl, TIOCSTI", 54, [u32::MAX, 0x5412, 0], -libc::EPERM),
        ("mount", 21, [0, 0, 0], -libc::EPERM),
        ("unshare", 310, [0, 0, 0], -libc::EPERM),
        (
            "clone, a user namespace",
            120,
            [0x1000_0000, 0, 0],
            -libc::EPERM,
        ),
        ("clone3", 435, [0, 0, 0], -libc::ENOSYS),
        ("dup", 41, [u32::MAX, 0, 0], -libc::EBADF),
    ];

    #[test]
    fn by_int_0x80_and_x32_it_is_the_same() {
        let program = compile().unwrap();
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        // A process of its own: a kernel without that door kills who tries it.
        // SAFETY: the child makes system calls only, on memory that is there already.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut answers = [0_i32; 10];
            rustix::thread::set_no_new_privs(true).unwrap();
            program.install().unwrap();
            for (answer, number) in answers[8..].iter_mut().zip([41, 165]) {
                *answer = x32(number, [40, 1, 0]);
            }
            let mut out = std::fs::File::from(theirs);
            let _ = out.write_all(&answers.map(i32::to_ne_bytes).concat());
            for (answer, (_, number, args, _)) in answers.iter_mut().zip(BY_INT80) {
                // SAFETY: see the table.
                *answer = unsafe { int80(number, args) };
            }
            let _ = out.write_all(&answers.map(i32::to_ne_bytes).concat());
            crate::sys::fork::exit_now(0);
        }
        drop(theirs);
        let mut bytes = Vec::new();
        std::fs::File::from(ours).read_to_end(&mut bytes).unwrap();
        // SAFETY: the child is ours.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        let answers: Vec<i32> = bytes
            .chunks_exact(4)
            .map(|four| i32::from_ne_bytes(four.try_into().unwrap()))
            .collect();
        // AF_VSOCK, and mount.
        assert_eq!(answers[8..10], [-libc::EPERM; 2], "by x32's numbers");
        // Nothing more if the kernel has no such door.
        for ((what, .., expected), answer) in BY_INT80.iter().zip(&answers[10..]) {
            assert_eq!(answer, expected, "{what} by int 0x80");
        }
    }
}
