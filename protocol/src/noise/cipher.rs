//! One direction's cipher after the handshake: Noise's CipherState with `ring`, in place.
//!
//! `snow`'s transport states hold both directions in one object and copy every message once; these
//! halves share nothing and work where the bytes are. The arithmetic is Noise's: nonces count up
//! from 0 and are never reset, the associated data is empty, REKEY is section 4.2's.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::{HandshakeError, Suite};
use crate::limits::TAG_BYTES;

/// The cipher did not work, or the bytes do not authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CipherFailed;

/// A key and the number of parts that it and its predecessors have sealed or opened.
pub(super) struct DirectionCipher {
    suite: Suite,
    key: LessSafeKey,
    nonce: u64,
}

/// The nonce that REKEY uses; no message may.
const REKEY_NONCE: u64 = u64::MAX;

/// After message 3: the ciphers of initiator to responder, and of responder to initiator.
pub(super) fn split(
    noise: &mut HandshakeState,
    suite: Suite,
) -> Result<(DirectionCipher, DirectionCipher), HandshakeError> {
    if !noise.is_handshake_finished() {
        return Err(HandshakeError::Unexpected);
    }
    let (forward, backward) = noise.dangerously_get_raw_split();
    let (forward, backward) = (Zeroizing::new(forward), Zeroizing::new(backward));
    let cipher = |key: &[u8; 32]| {
        DirectionCipher::new(suite, key).map_err(|CipherFailed| HandshakeError::Unauthentic)
    };
    Ok((cipher(&forward)?, cipher(&backward)?))
}

impl DirectionCipher {
    fn new(suite: Suite, key: &[u8; 32]) -> Result<Self, CipherFailed> {
        Ok(Self {
            suite,
            key: ring_key(suite, key)?,
            nonce: 0,
        })
    }

    pub(super) const fn suite(&self) -> Suite {
        self.suite
    }

    /// Encrypts in place; the tag is to be appended.
    pub(super) fn seal(&mut self, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], CipherFailed> {
        let nonce = self.take_nonce()?;
        self.encrypt(nonce, bytes)
    }

    /// Decrypts in place; `bytes` ends in the tag. Answers the length of the plaintext.
    pub(super) fn open(&mut self, bytes: &mut [u8]) -> Result<usize, CipherFailed> {
        let nonce = self.take_nonce()?;
        let nonce = ring_nonce(self.suite, nonce);
        let plaintext = self
            .key
            .open_in_place(nonce, Aad::empty(), bytes)
            .map_err(|_| CipherFailed)?;
        Ok(plaintext.len())
    }

    /// Noise's REKEY: the new key is the encryption of 32 zeros under the highest nonce. Nonces go
    /// on counting.
    pub(super) fn rekey(&mut self) -> Result<(), CipherFailed> {
        let mut key = Zeroizing::new([0; 32]);
        self.encrypt(REKEY_NONCE, key.as_mut())?;
        self.key = ring_key(self.suite, &key)?;
        Ok(())
    }

    fn take_nonce(&mut self) -> Result<u64, CipherFailed> {
        let nonce = self.nonce;
        if nonce == REKEY_NONCE {
            return Err(CipherFailed);
        }
        self.nonce += 1;
        Ok(nonce)
    }

    fn encrypt(&self, nonce: u64, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], CipherFailed> {
        let nonce = ring_nonce(self.suite, nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), bytes)
            .map_err(|_| CipherFailed)?;
        tag.as_ref().try_into().map_err(|_| CipherFailed)
    }
}

impl fmt::Debug for DirectionCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectionCipher")
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

fn ring_key(suite: Suite, key: &[u8; 32]) -> Result<LessSafeKey, CipherFailed> {
    let algorithm: &'static Algorithm = match suite {
        Suite::AesGcmSha256 => &AES_256_GCM,
        Suite::ChaChaPolyBlake2s => &CHACHA20_POLY1305,
    };
    UnboundKey::new(algorithm, key)
        .map(LessSafeKey::new)
        .map_err(|_| CipherFailed)
}

/// Noise, section 12: 32 zero bits, then the counter; big endian for AES-GCM, little endian for
/// ChaCha20-Poly1305.
fn ring_nonce(suite: Suite, counter: u64) -> Nonce {
    let counter = match suite {
        Suite::AesGcmSha256 => counter.to_be_bytes(),
        Suite::ChaChaPolyBlake2s => counter.to_le_bytes(),
    };
    let mut bytes = [0; 12];
    if let Some(tail) = bytes.last_chunk_mut::<8>() {
        *tail = counter;
    }
    Nonce::assume_unique_for_key(bytes)
}
