//! The inside of a slot's network namespace: what only a process in it can set.
//!
//! Owner: the keeper, which makes the namespace; the agent wires it from outside (`sys::net`)
//! by `/proc/<keeper>/ns/net`. Invariant: the namespace belongs to the host's user namespace, so a
//! container cannot change its own addresses, routes or rules.
#![allow(unsafe_code)]

use std::{fs, io, os::fd::AsRawFd};

/// Ports from 0 may be bound by anyone inside (root there is nobody here), and every group may
/// ping without raw sockets.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv4/conf/all/accept_redirects", "0"),
];

/// Moves the process into a new network namespace with loopback up.
///
/// # Errors
/// What unshare(2), a sysctl or the ioctl said.
pub fn enter_fresh() -> io::Result<()> {
    // SAFETY: the caller is a single-threaded process; no descriptor table is shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    for (path, value) in SYSCTLS {
        fs::write(path, value)?;
    }
    loopback_up()
}

fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: ifreq is plain data; the name is terminated because the rest is zero; the kernel
    // reads the flags member, which is initialised.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
