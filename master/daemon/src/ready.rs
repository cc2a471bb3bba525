//! Telling whoever started the master that it is ready.
//!
//! Owner: `main`. Invariant: a failure to tell never stops the master.

use std::{
    env, io,
    net::SocketAddr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::UnixDatagram},
    },
    path::Path,
};

/// Writes the address into a file, complete or not at all.
pub(crate) fn write_file(path: &Path, address: SocketAddr) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, format!("{address}\n"))?;
    std::fs::rename(&draft, path)
}

/// systemd's protocol (man 3 sd_notify), if there is a socket in the environment.
pub(crate) fn notify_systemd(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => std::os::unix::net::SocketAddr::from_abstract_name(rest)?,
        _ => std::os::unix::net::SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
