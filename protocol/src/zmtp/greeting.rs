//! The 64-byte greeting (RFC 23, section "Greeting").

use super::ZmtpError;

/// The length of a greeting.
pub const GREETING_BYTES: usize = 64;

const SIGNATURE_FIRST: u8 = 0xff;
const SIGNATURE_LAST: u8 = 0x7f;
const SIGNATURE_LAST_AT: usize = 9;
const VERSION_AT: usize = 10;
const MECHANISM_AT: usize = 12;
const MECHANISM_BYTES: usize = 20;

/// Our greeting: version 3.1, mechanism NULL. Send it as soon as the connection is up; peers wait
/// for it before they go on.
#[must_use]
pub const fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[0] = SIGNATURE_FIRST;
    bytes[SIGNATURE_LAST_AT] = SIGNATURE_LAST;
    bytes[VERSION_AT] = 3;
    bytes[VERSION_AT + 1] = 1;
    bytes[MECHANISM_AT] = b'N';
    bytes[MECHANISM_AT + 1] = b'U';
    bytes[MECHANISM_AT + 2] = b'L';
    bytes[MECHANISM_AT + 3] = b'L';
    bytes
}

/// Judges as much of a greeting as has arrived, so that a peer of another protocol is turned away
/// at its first byte. `Ok(true)` means that it is complete and acceptable.
pub(super) fn check(received: &[u8]) -> Result<bool, ZmtpError> {
    let at = |index: usize| received.get(index).copied();
    if at(0).is_some_and(|byte| byte != SIGNATURE_FIRST)
        || at(SIGNATURE_LAST_AT).is_some_and(|byte| byte != SIGNATURE_LAST)
    {
        return Err(ZmtpError::Signature);
    }
    if let Some(major) = at(VERSION_AT)
        && major < 3
    {
        return Err(ZmtpError::Version(major));
    }
    let Some(mechanism) = received.get(MECHANISM_AT..MECHANISM_AT + MECHANISM_BYTES) else {
        return Ok(false);
    };
    let (name, padding) = mechanism.split_at(4);
    if name != b"NULL" || padding.iter().any(|byte| *byte != 0) {
        return Err(ZmtpError::Mechanism);
    }
    // The as-server flag and the filler mean nothing with NULL.
    Ok(received.len() >= GREETING_BYTES)
}
