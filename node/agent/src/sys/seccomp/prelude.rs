//! What runs before libseccomp's program, in raw BPF: calls of the native architecture that are newer
//! than an old libseccomp knows, and requests of ioctl(2) that are refused though the call is allowed
//! (libseccomp drops conditions on a call that is allowed without any).
//!
//! Pure. Invariant: what it does not decide goes on to libseccomp's program, which begins anew: jumps
//! are relative, so programs can be put one before the other.
//!
//! ```text
//! architecture ─┬─ native ─┬─ ioctl ───────────▶ request refused? EPERM : go on
//!               │          ├─ newer than libseccomp ▶ allowed? allow : ENOSYS
//!               │          └─ else ─────────────▶ go on
//!               ├─ i386 ───── ioctl ───────────▶ request refused? EPERM : go on
//!               └─ else ──▶ go on (libseccomp refuses)
//! ```

use super::{allowed, requests};

#[cfg(target_arch = "x86_64")]
mod arch {
    pub(super) const NATIVE: u32 = 0xC000_003E;
    /// ioctl(2) here, and in x32, whose numbers have bit 30.
    pub(super) const IOCTLS: [u32; 2] = [16, super::X32_BIT + 514];
    /// A further architecture, with its ioctl(2).
    pub(super) const FURTHER: Option<(u32, u32)> = Some((0x4000_0003, 54));
}

#[cfg(target_arch = "aarch64")]
mod arch {
    pub(super) const NATIVE: u32 = 0xC000_00B7;
    pub(super) const IOCTLS: [u32; 1] = [29];
    /// 32-bit programs are not allowed there.
    pub(super) const FURTHER: Option<(u32, u32)> = None;
}

/// Numbers with this bit are x32's.
const X32_BIT: u32 = 0x4000_0000;

// Offsets in `struct seccomp_data`. Both architectures are little-endian: the lower half comes first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SECOND_ARGUMENT: u32 = 24;

/// The program.
pub(super) fn program() -> Vec<libc::sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    if let Some((architecture, ioctl)) = arch::FURTHER {
        let refuse = ioctl_requests(&[ioctl]);
        program.push(unless_equal(architecture, refuse.len() + 1));
        program.extend(refuse);
        // The accumulator has something else now.
        program.push(load(ARCHITECTURE));
    }
    let (refuse, newer) = (ioctl_requests(&arch::IOCTLS), newer_calls());
    program.push(unless_equal(arch::NATIVE, refuse.len() + newer.len()));
    program.extend(refuse);
    program.extend(newer);
    program
}

/// Refuses requests of the calls with these numbers; goes on behind itself with all else.
fn ioctl_requests(numbers: &[u32]) -> Vec<libc::sock_filter> {
    let refused = requests::REFUSED;
    let mut part = vec![load(NUMBER)];
    for (done, &number) in numbers.iter().enumerate() {
        let is_last = done + 1 == numbers.len();
        // Past the load, the comparisons and the answer.
        let otherwise = if is_last { refused.len() + 2 } else { 0 };
        let found = numbers.len() - done - 1;
        part.push(step(EQUAL, number, found, otherwise));
    }
    part.push(load(SECOND_ARGUMENT));
    for (done, &request) in refused.iter().enumerate() {
        let otherwise = usize::from(done + 1 == refused.len());
        part.push(step(EQUAL, request, refused.len() - done - 1, otherwise));
    }
    part.push(answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    part
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
    use super::*;

    /// What the kernel does with a program: `None` if it runs out at its end.
    fn run(program: &[libc::sock_filter], data: &[u32; 16]) -> Option<u32> {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = program.get(at)?;
            at += 1;
            match u32::from(step.code) {
                EQUAL | AT_LEAST => {
                    let holds = match u32::from(step.code) {
                        EQUAL => word == step.k,
                        _ => word >= step.k,
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                    assert!(at <= program.len(), "a jump beyond the end");
                }
                0x20 => word = data[usize::try_from(step.k).unwrap() / 4],
                0x06 => return Some(step.k),
                other => unreachable!("{other:#x}"),
            }
        }
    }

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
        let mut all: Vec<(u32, u32)> = arch::IOCTLS.map(|one| (arch::NATIVE, one)).into();
        all.extend(arch::FURTHER);
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
            assert_eq!(asked(arch::NATIVE, number, 0), allow, "{number}");
        }
        let missing = Some(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        for number in [459, 467, 999, X32_BIT - 1] {
            assert_eq!(asked(arch::NATIVE, number, 0), missing, "{number}");
        }
        for number in [0, 450, X32_BIT, X32_BIT + 452, u32::MAX] {
            assert_eq!(asked(arch::NATIVE, number, 0), None, "{number:#x}");
        }
        if let Some((architecture, _)) = arch::FURTHER {
            assert_eq!(asked(architecture, 999, 0), None);
        }
    }

    #[test]
    fn no_jump_is_too_long() {
        // `step` would have cut it: so many steps are in no part.
        assert!(program().len() < 200);
    }
}
