//! A small HTTP/1.0 client: enough to see whether a server in a container answers.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use super::eventually;

/// Fetches a page once: status and body.
///
/// # Errors
/// If nobody answers within five seconds, or not in HTTP.
pub fn try_get(address: impl ToSocketAddrs, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let end = answer
        .windows(4)
        .position(|at| at == b"\r\n\r\n")
        .ok_or_else(no_http)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(no_http)?;
    Ok((status, answer[end + 4..].to_vec()))
}

/// Fetches a page, waiting until the server is up; expects status 200.
pub fn get(address: impl ToSocketAddrs + Copy, path: &str) -> Vec<u8> {
    let mut body = None;
    eventually("the server answers with 200", || {
        body = try_get(address, path)
            .ok()
            .filter(|(status, _)| *status == 200);
        body.is_some()
    });
    body.map(|(_, body)| body).unwrap_or_default()
}
