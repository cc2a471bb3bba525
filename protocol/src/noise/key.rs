//! The secret half of an identity.

use std::fmt;

use snow::{
    params::DHChoice,
    resolvers::{CryptoResolver, DefaultResolver},
};
use zeroize::Zeroizing;

use super::HandshakeError;
use crate::ids::PublicKey;

/// An X25519 secret key: an account's, a node's or a location's. Never shown, wiped when dropped.
#[derive(Clone)]
pub struct StaticKey {
    secret: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl StaticKey {
    /// The key whose secret half these bytes are; to make a new one, pass 32 random bytes.
    ///
    /// # Errors
    /// [`HandshakeError::Noise`] if the Noise library was built without X25519.
    pub fn from_bytes(secret: [u8; 32]) -> Result<Self, HandshakeError> {
        let secret = Zeroizing::new(secret);
        let public = public_of(&secret)?;
        Ok(Self { secret, public })
    }

    /// The public half: what others know this identity by.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret bytes, to be stored in a file that only its owner can read.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

fn public_of(secret: &[u8; 32]) -> Result<PublicKey, HandshakeError> {
    let no_dh = || HandshakeError::Noise(snow::error::InitStage::GetDhImpl.into());
    let mut dh = DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .ok_or_else(no_dh)?;
    dh.set(secret);
    let public = dh.pubkey().first_chunk().ok_or_else(no_dh)?;
    Ok(PublicKey::from_bytes(*public))
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}
