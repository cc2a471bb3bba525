//! What runs before libseccomp's program, in raw BPF: calls of the native architecture that are newer
//! than an old libseccomp knows, and arguments that are refused though the call is allowed (libseccomp
//! drops conditions on a call that is allowed without any, compares 64 bits where the kernel looks at 32,
//! and lets i386's `socketcall` through for every call that it can make).
//!
//! Pure. Invariants: what it does not decide goes on to libseccomp's program, which begins anew (jumps
//! are relative, so programs can be put one before the other); a refusal holds at every door to the
//! kernel: native numbers, x32's, and i386's (`int 0x80`).
//!
//! ```text
//! architecture ─┬─ native ─┬─ ioctl, socket ───▶ argument refused? EPERM : go on
//!               │          ├─ newer than libseccomp ▶ allowed? allow : ENOSYS
//!               │          └─ else ─────────────▶ go on
//!               ├─ i386 ───┬─ socketcall ──────▶ EPERM
//!               │          └─ ioctl, socket ───▶ argument refused? EPERM : go on
//!               └─ else ──▶ go on (libseccomp refuses)
//! ```

use super::{allowed, requests};

/// One way into the kernel, with its numbers of the calls that are looked into.
struct Door {
    architecture: u32,
    /// ioctl(2), also in x32, whose numbers have bit 30.
    ioctl: &'static [u32],
    /// socket(2), in x32 too.
    socket: &'static [u32],
    /// i386's socketcall(2): its arguments lie in memory, where no filter can look. Calls of their own
    /// are there since Linux 4.3.
    socketcall: &'static [u32],
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::{Door, X32_BIT};

    pub(super) const NATIVE: Door = Door {
        architecture: 0xC000_003E,
        ioctl: &[16, X32_BIT + 514],
        socket: &[41, X32_BIT + 41],
        socketcall: &[],
    };
    pub(super) const FURTHER: Option<Door> = Some(Door {
        architecture: 0x4000_0003,
        ioctl: &[54],
        socket: &[359],
        socketcall: &[102],
    });
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use super::Door;

    pub(super) const NATIVE: Door = Door {
        architecture: 0xC000_00B7,
        ioctl: &[29],
        socket: &[198],
        socketcall: &[],
    };
    /// 32-bit programs are not allowed there.
    pub(super) const FURTHER: Option<Door> = None;
}

/// Numbers with this bit are x32's.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`. Both architectures are little-endian: the lower half comes first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

/// What socket(2) may not make: talks to the hypervisor, past the firewall.
const FAMILIES: &[u32] = &[super::AF_VSOCK as u32];

/// The program.
pub(super) fn program() -> Vec<libc::sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    if let Some(door) = arch::FURTHER {
        let refuse = refused_arguments(&door);
        program.push(unless_equal(door.architecture, refuse.len() + 1));
        program.extend(refuse);
        // The accumulator has something else now.
        program.push(load(ARCHITECTURE));
    }
    let (refuse, newer) = (refused_arguments(&arch::NATIVE), newer_calls());
    let native = arch::NATIVE.architecture;
    program.push(unless_equal(native, refuse.len() + newer.len()));
    program.extend(refuse);
    program.extend(newer);
    program
}

fn refused_arguments(door: &Door) -> Vec<libc::sock_filter> {
    let mut parts = refused_calls(door.socketcall);
    parts.extend(refused_values(
        door.ioctl,
        SECOND_ARGUMENT,
        requests::REFUSED,
    ));
    parts.extend(refused_values(door.socket, FIRST_ARGUMENT, FAMILIES));
    parts
}

/// Refuses the calls with these numbers; goes on behind itself with all else.
fn refused_calls(numbers: &[u32]) -> Vec<libc::sock_filter> {
    let mut part = vec![load(NUMBER)];
    for &number in numbers {
        part.push(unless_equal(number, 1));
        part.push(refusal());
    }
    part
}

/// Refuses these values of an argument, whose lower half is all that the kernel looks at, of the calls
/// with these numbers; goes on behind itself with all else.
fn refused_values(numbers: &[u32], argument: u32, values: &[u32]) -> Vec<libc::sock_filter> {
    let mut part = vec![load(NUMBER)];
    for (done, &number) in numbers.iter().enumerate() {
        let is_last = done + 1 == numbers.len();
        // Past the load, the comparisons and the answer.
        let otherwise = if is_last { values.len() + 2 } else { 0 };
        let found = numbers.len() - done - 1;
        part.push(step(EQUAL, number, found, otherwise));
    }
    part.push(load(argument));
    for (done, &value) in values.iter().enumerate() {
        let otherwise = usize::from(done + 1 == values.len());
        part.push(step(EQUAL, value, values.len() - done - 1, otherwise));
    }
    part.push(refusal());
    part
}

fn refusal() -> libc::sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32)
}

/// Decides on calls that libseccomp does not know; goes on behind itself with older ones.
fn newer_calls() -> Vec<libc::sock_filter> {
    let newer = allowed::NEWER;
    let mut part = vec![
        load(NUMBER),
        step(AT_LEAST, X32_BIT, newer.len() + 3, 0),
        step(AT_LEAST, allowed::FIRST_NEWER, 0, newer.len() + 2),
    ];
    for (done, &number) in newer.iter().enumerate() {
        part.push(step(EQUAL, number, newer.len() - done, 0));
    }
    part.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    part.push(answer(libc::SECCOMP_RET_ALLOW));
    part
}

const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Skips what follows unless the loaded word is this.
fn unless_equal(k: u32, skip: usize) -> libc::sock_filter {
    step(EQUAL, k, 0, skip)
}

fn answer(k: u32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, k, 0, 0)
}

/// A jump can skip 255 steps: the parts above have some thirty (a test looks).
const fn step(code: u32, k: u32, jt: usize, jf: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: jf as u8,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::machine::run, *};

    /// Seen by the program: number, architecture, and the second argument with rubbish above it.
    fn asked(architecture: u32, number: u32, request: u32) -> Option<u32> {
        let mut data = [0; 16];
        data[0] = number;
        data[1] = architecture;
        data[6] = request;
        data[7] = 0xdead_beef;
        run(&program(), &data)
    }

    const REFUSE: Option<u32> = Some(libc::SECCOMP_RET_ERRNO | 1);

    #[test]
    fn refused_requests_are_refused_on_every_architecture_and_others_are_not() {
        let doors = || [Some(arch::NATIVE), arch::FURTHER].into_iter().flatten();
        let all =
            doors().flat_map(|door| door.ioctl.iter().map(move |&one| (door.architecture, one)));
        for (architecture, ioctl) in all {
            for &request in requests::REFUSED {
                assert_eq!(asked(architecture, ioctl, request), REFUSE, "{request:#x}");
                // Any other call may have that as its argument.
                assert_eq!(asked(architecture, 1, request), None);
            }
            // FICLONE, FICLONERANGE, TCGETS, TIOCGWINSZ, BTRFS_IOC_GET_SUBVOL_INFO, none
            for request in [0x4004_9409, 0x4020_940d, 0x5401, 0x5413, 0x81f8_943c, 0] {
                assert_eq!(asked(architecture, ioctl, request), None, "{request:#x}");
            }
        }
        assert_eq!(
            asked(0xC000_0015, 54, requests::REFUSED[0]),
            None,
            "ppc64le"
        );
    }

    #[test]
    fn newer_calls_are_decided_here_and_older_ones_are_not() {
        for &number in allowed::NEWER {
            let allow = Some(libc::SECCOMP_RET_ALLOW);
            assert_eq!(
                asked(arch::NATIVE.architecture, number, 0),
                allow,
                "{number}"
            );
        }
        let missing = Some(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        for number in [459, 467, 999, X32_BIT - 1] {
            assert_eq!(
                asked(arch::NATIVE.architecture, number, 0),
                missing,
                "{number}"
            );
        }
        for number in [0, 450, X32_BIT, X32_BIT + 452, u32::MAX] {
            assert_eq!(
                asked(arch::NATIVE.architecture, number, 0),
                None,
                "{number:#x}"
            );
        }
        if let Some(door) = arch::FURTHER {
            assert_eq!(asked(door.architecture, 999, 0), None);
        }
    }

    #[test]
    fn no_jump_is_too_long() {
        // `step` would have cut it: so many steps are in no part.
        assert!(program().len() < 200);
    }
}
