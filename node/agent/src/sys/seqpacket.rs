//! Message sockets between a keeper and the children that it forks: one datagram, maybe one fd.
//!
//! Owner: keeper. Invariant: a message is whole or absent, and the end of the stream means that
//! every process which held the other end has closed it or executed another program.

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Largest message: reports are small, and plans travel as a memory file.
const MESSAGE_MAX: usize = 16 * 1024;

/// One received message.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub fd: Option<OwnedFd>,
}

/// Makes a connected pair, both close-on-exec.
///
/// # Errors
/// What socketpair(2) said.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message.
///
/// # Errors
/// What sendmsg(2) said.
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives one message; `None` at the end of the stream. A socket whose peer died with unread
/// messages says ECONNRESET: that is an end as well.
///
/// # Errors
/// What recvmsg(2) said; `WouldBlock` if `wait` is false and nothing is there.
pub fn receive(socket: impl AsFd, wait: bool) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if !wait {
        flags |= RecvFlags::DONTWAIT;
    }
    let got = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        ) {
            Ok(got) => break got,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(got.bytes);
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    Ok(Some(Packet { bytes, fd }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_bytes_and_a_descriptor_and_tells_the_end() {
        let (left, right) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&left, b"hello", Some(file.as_fd())).unwrap();
        let packet = receive(&right, true).unwrap().unwrap();
        assert_eq!(packet.bytes, b"hello");
        assert!(packet.fd.is_some());
        let error = receive(&right, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(left);
        assert!(receive(&right, true).unwrap().is_none());
    }
}
