//! What the kernel does with a filter: classic BPF as seccomp(2) allows it, for tests.
//!
//! Pure. Source: Documentation/networking/filter.rst, kernel/seccomp.c.

/// Runs a program on a `struct seccomp_data` (number, architecture, instruction pointer, six
/// arguments). `None` if it runs out at its end.
pub(super) fn run(program: &[libc::sock_filter], data: &[u32; 16]) -> Option<u32> {
    let (mut at, mut word) = (0, 0);
    loop {
        let step = program.get(at)?;
        at += 1;
        let (code, k) = (u32::from(step.code), step.k);
        let operation = code & 0xf0;
        match code & 0x07 {
            libc::BPF_LD => word = data[usize::try_from(k).unwrap() / 4],
            libc::BPF_ALU => {
                assert_eq!(operation, libc::BPF_AND, "{code:#x}");
                word &= k;
            }
            libc::BPF_JMP if operation == libc::BPF_JA => at += usize::try_from(k).unwrap(),
            libc::BPF_JMP => {
                let holds = match operation {
                    libc::BPF_JEQ => word == k,
                    libc::BPF_JGT => word > k,
                    libc::BPF_JGE => word >= k,
                    libc::BPF_JSET => word & k != 0,
                    other => unreachable!("{other:#x}"),
                };
                at += usize::from(if holds { step.jt } else { step.jf });
                assert!(at <= program.len(), "a jump beyond the end");
            }
            libc::BPF_RET => return Some(k),
            other => unreachable!("{other:#x}"),
        }
    }
}
