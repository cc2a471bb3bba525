//! Cookies: under load, the master does public-key work only for peers that come back.
//!
//! The cookie itself is BLAKE2s-256("teu cookie" · secret · connection id · peer address): the master
//! keeps nothing for a peer that it sent one to. It travels sealed with ChaCha20-Poly1305 under
//! BLAKE2s-256("teu cookie key" · k), with a random nonce and mac1 as associated data, so only the
//! maker of that HELLO gets it who also knows the location's key.
//!
//! COOKIE parts: F0 · nonce (12 bytes) · sealed cookie (32 + 16).

use std::{fmt, net::IpAddr, time::Duration};

use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    CheckedHello, HandshakeError,
    hello::{self, Mac},
};
use crate::{
    header::{Header, MessageType},
    ids::PublicKey,
    limits::{COOKIE_ROTATE_AFTER, TAG_BYTES},
};

pub(super) const COOKIE_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 12;

/// Where a HELLO came from: the listener's own number for the connection, and the peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOrigin {
    /// Unique among the listener's connections.
    pub connection: u64,
    /// The peer's address, without its port.
    pub address: IpAddr,
}

/// The secrets behind the master's cookies: the current one and the one before.
pub struct CookieJar {
    current: Zeroizing<[u8; 32]>,
    previous: Option<Zeroizing<[u8; 32]>>,
    since: Duration,
}

impl CookieJar {
    /// A jar with a first secret of 32 random bytes. `now` is the time since any fixed moment.
    #[must_use]
    pub fn new(secret: [u8; 32], now: Duration) -> Self {
        Self {
            current: Zeroizing::new(secret),
            previous: None,
            since: now,
        }
    }

    /// Whether [`CookieJar::rotate`] is due.
    #[must_use]
    pub fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= COOKIE_ROTATE_AFTER
    }

    /// Replaces the secret. Cookies made with the one before still pass; older ones do not.
    pub fn rotate(&mut self, secret: [u8; 32], now: Duration) {
        let replaced = std::mem::replace(&mut self.current, Zeroizing::new(secret));
        self.previous = Some(replaced);
        self.since = now;
    }

    /// The COOKIE message that answers `hello`; `nonce` is 12 random bytes.
    ///
    /// # Errors
    /// [`HandshakeError::Unauthentic`] if the cipher fails, which no input causes.
    pub fn issue(
        &self,
        hello: &CheckedHello,
        origin: ConnectionOrigin,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<Bytes>, HandshakeError> {
        let mut sealed = cookie(&self.current, origin).to_vec();
        sealing_key(hello.door.identity.key())?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&hello.mac1),
                &mut sealed,
            )
            .map_err(|_| HandshakeError::Unauthentic)?;
        let header = Header::new(MessageType::Cookie, hello.suite).encode();
        Ok(vec![
            Bytes::copy_from_slice(&header),
            Bytes::copy_from_slice(&nonce),
            Bytes::from(sealed),
        ])
    }

    /// Whether `hello` carries a mac2 made with a cookie for this very origin.
    #[must_use]
    pub fn admits(&self, hello: &CheckedHello, origin: ConnectionOrigin) -> bool {
        let Some(mac2) = hello.mac2 else { return false };
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|secret| {
                let parts: [&[u8]; 3] = [&hello.prologue, &hello.noise_1, &hello.mac1];
                hello::keyed_mac(&cookie(secret, origin), &parts)
                    .ct_eq(&mac2)
                    .into()
            })
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieJar")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

fn cookie(secret: &[u8; 32], origin: ConnectionOrigin) -> [u8; COOKIE_BYTES] {
    let connection = origin.connection.to_be_bytes();
    let address = match origin.address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    hello::labelled_hash(b"teu cookie", &[secret, &connection, &address.octets()])
}

fn sealing_key(location: PublicKey) -> Result<LessSafeKey, HandshakeError> {
    let key = hello::labelled_hash(b"teu cookie key", &[location.as_bytes()]);
    UnboundKey::new(&CHACHA20_POLY1305, &key)
        .map(LessSafeKey::new)
        .map_err(|_| HandshakeError::Unauthentic)
}

/// The client's side: gets the cookie out of a COOKIE message's parts after F0.
pub(super) fn unseal(
    location: PublicKey,
    mac1: &Mac,
    parts: &[Bytes],
) -> Result<[u8; COOKIE_BYTES], HandshakeError> {
    let [nonce, sealed] = parts else {
        return Err(HandshakeError::Malformed);
    };
    let nonce = nonce
        .as_ref()
        .try_into()
        .map_err(|_| HandshakeError::Malformed)?;
    if sealed.len() != COOKIE_BYTES + TAG_BYTES {
        return Err(HandshakeError::Malformed);
    }
    let mut sealed = sealed.to_vec();
    let opened = sealing_key(location)?
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(mac1),
            &mut sealed,
        )
        .map_err(|_| HandshakeError::Unauthentic)?;
    opened
        .first_chunk()
        .copied()
        .ok_or(HandshakeError::Malformed)
}
