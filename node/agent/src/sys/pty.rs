//! A terminal for a container's process, made inside the container.
//!
//! Owner: the payload, just before exec. Invariant: the pair belongs to the container's own
//! devpts, so that `tty`, `/dev/pts/0` and its owner are what the program expects.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Makes a pair, gives it its size, and makes it the controlling terminal of this session.
/// Returns the master and the slave.
///
/// # Errors
/// What the calls said.
pub fn controlling_terminal(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    resize(&slave, rows, columns)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    Ok((master, slave))
}

/// Sets a terminal's size; the foreground process gets SIGWINCH if it changed.
///
/// # Errors
/// What ioctl(2) said.
pub fn resize(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}
