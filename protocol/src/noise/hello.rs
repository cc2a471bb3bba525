//! HELLO: its layout, and the check that comes before any public-key work.
//!
//! Parts: F0 · noise message 1 (48 bytes) · mac1 (16) · mac2 (0 or 16) · padding (zeros, so that all
//! parts together have at least [`HELLO_MIN_BYTES`]).

use std::{fmt, sync::Arc};

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{FixedOutput, KeyInit, Update, consts::U16},
};
use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::{HelloError, LocationIdentity, StaticKey, Suite};
use crate::{
    header::{Header, MessageType},
    ids::PublicKey,
    limits::{HELLO_MIN_BYTES, MAX_HANDSHAKE_MESSAGE_BYTES},
};

/// Noise message 1 of XK: an ephemeral key and the tag of the empty payload.
pub(super) const NOISE_1_BYTES: usize = 32 + 16;
pub(super) const MAC_BYTES: usize = 16;

pub(super) type Mac = [u8; MAC_BYTES];

/// The key of mac1: BLAKE2s-256("teu mac1" · k).
pub(super) fn mac1_key(location: PublicKey) -> [u8; 32] {
    labelled_hash(b"teu mac1", &[location.as_bytes()])
}

/// BLAKE2s-256 of a label and further bytes.
pub(super) fn labelled_hash(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new_with_prefix(label);
    for part in parts {
        Digest::update(&mut hash, part);
    }
    hash.finalize().into()
}

/// Keyed BLAKE2s of 16 bytes.
pub(super) fn keyed_mac(key: &[u8; 32], parts: &[&[u8]]) -> Mac {
    let mut mac = Blake2sMac::<U16>::new(key.into());
    for part in parts {
        Update::update(&mut mac, part);
    }
    mac.finalize_fixed().into()
}

/// The whole HELLO. `cookie` is the key of mac2.
pub(super) fn build(
    suite: Suite,
    prologue: &[u8],
    mac1_key: &[u8; 32],
    noise_1: &Bytes,
    cookie: Option<&[u8; 32]>,
) -> (Vec<Bytes>, Mac) {
    let header = Header::new(MessageType::Hello, suite).encode();
    let mac1 = keyed_mac(mac1_key, &[prologue, noise_1]);
    let mac2 = cookie.map(|cookie| keyed_mac(cookie, &[prologue, noise_1, &mac1]));
    let mac2 = mac2.map_or_else(Bytes::new, |mac| Bytes::copy_from_slice(&mac));
    let used = header.len() + noise_1.len() + mac1.len() + mac2.len();
    let padding = Bytes::from(vec![0; HELLO_MIN_BYTES.saturating_sub(used)]);
    let parts = vec![
        Bytes::copy_from_slice(&header),
        noise_1.clone(),
        Bytes::copy_from_slice(&mac1),
        mac2,
        padding,
    ];
    (parts, mac1)
}

/// One key of the location, prepared for checking.
pub(super) struct Door {
    pub(super) identity: LocationIdentity,
    pub(super) key: StaticKey,
    mac1_key: [u8; 32],
}

/// The first check of the master: does the peer know one of the location's keys? Costs two hashes
/// of about a hundred bytes for each key, and no public-key work.
#[derive(Clone)]
pub struct HelloCheck {
    doors: Vec<Arc<Door>>,
}

impl HelloCheck {
    /// The keys that the location answers to: the current one and, around a rotation, the next or
    /// the previous one. The identities' keys must be the public halves of the static keys.
    #[must_use]
    pub fn new(keys: Vec<(LocationIdentity, StaticKey)>) -> Self {
        let doors = keys
            .into_iter()
            .map(|(identity, key)| {
                let mac1_key = mac1_key(identity.key());
                Arc::new(Door {
                    identity,
                    key,
                    mac1_key,
                })
            })
            .collect();
        Self { doors }
    }

    /// Checks a first message. The comparison takes the same time wherever the difference is.
    ///
    /// # Errors
    /// [`HelloError`]: close the connection without a word.
    pub fn check(&self, parts: &[Bytes]) -> Result<CheckedHello, HelloError> {
        let [header, noise_1, mac1, mac2, padding] = parts else {
            return Err(HelloError::Malformed);
        };
        let header = Header::decode(header).map_err(|_| HelloError::NotHello)?;
        if header.kind != MessageType::Hello {
            return Err(HelloError::NotHello);
        }
        let suite = header.suite;
        let total: usize = parts.iter().map(Bytes::len).sum();
        if total < HELLO_MIN_BYTES {
            return Err(HelloError::Unpadded);
        }
        let mac1: Mac = mac1
            .as_ref()
            .try_into()
            .map_err(|_| HelloError::Malformed)?;
        let mac2 = match mac2.len() {
            0 => None,
            _ => Some(
                mac2.as_ref()
                    .try_into()
                    .map_err(|_| HelloError::Malformed)?,
            ),
        };
        let zeros = padding.iter().fold(0, |seen, byte| seen | byte) == 0;
        if noise_1.len() != NOISE_1_BYTES || !zeros || total > MAX_HANDSHAKE_MESSAGE_BYTES {
            return Err(HelloError::Malformed);
        }
        for door in &self.doors {
            let prologue = door.identity.prologue(suite);
            let expected = keyed_mac(&door.mac1_key, &[&prologue, noise_1]);
            if expected.ct_eq(&mac1).into() {
                let noise_1 = noise_1.clone();
                return Ok(CheckedHello {
                    door: Arc::clone(door),
                    suite,
                    prologue,
                    noise_1,
                    mac1,
                    mac2,
                });
            }
        }
        Err(HelloError::Mac1)
    }
}

impl fmt::Debug for HelloCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.doors.iter().map(|door| &door.identity))
            .finish()
    }
}

/// A HELLO from a peer that knows a key of the location. That is all that is known about it.
pub struct CheckedHello {
    pub(super) door: Arc<Door>,
    pub(super) suite: Suite,
    pub(super) prologue: Vec<u8>,
    pub(super) noise_1: Bytes,
    pub(super) mac1: Mac,
    pub(super) mac2: Option<Mac>,
}

impl CheckedHello {
    /// The suite that the peer chose.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The location's record that the peer used.
    #[must_use]
    pub fn location(&self) -> &LocationIdentity {
        &self.door.identity
    }
}

impl fmt::Debug for CheckedHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedHello")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}
