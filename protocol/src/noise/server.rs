//! The master's side of the handshake, after [`super::HelloCheck`].

use std::{fmt, time::Duration};

use bytes::Bytes;
use snow::{Builder, HandshakeState};

use super::{
    CheckedHello, HandshakeError, Opener, Sealer, Suite, cipher, resolver::SeededResolver,
};
use crate::{
    header::{Header, MessageType},
    ids::PublicKey,
    limits::{MAX_HANDSHAKE_MESSAGE_BYTES, MAX_WELCOME_PAYLOAD_BYTES, TAG_BYTES},
};

/// The master between WELCOME and INITIATE.
pub struct ServerHandshake {
    noise: HandshakeState,
    suite: Suite,
}

/// What INITIATE proved.
#[derive(Debug)]
pub struct Accepted {
    /// Who the peer is: nothing else that it sends is identity.
    pub peer: PublicKey,
    /// INITIATE's payload (MessagePack, see [`crate::message`]).
    pub payload: Bytes,
    /// Seals what the master sends; its first message is READY.
    pub sealer: Sealer,
    /// Opens what the peer sends.
    pub opener: Opener,
}

impl ServerHandshake {
    /// Answers a HELLO: the state and the WELCOME to send. `seed` is 32 random bytes, used once.
    ///
    /// # Errors
    /// [`HandshakeError::Unauthentic`] if HELLO does not authenticate,
    /// [`HandshakeError::PayloadTooLong`].
    pub fn accept(
        hello: &CheckedHello,
        seed: [u8; 32],
        welcome_payload: &[u8],
    ) -> Result<(Self, Vec<Bytes>), HandshakeError> {
        if welcome_payload.len() > MAX_WELCOME_PAYLOAD_BYTES {
            let (length, max) = (welcome_payload.len(), MAX_WELCOME_PAYLOAD_BYTES);
            return Err(HandshakeError::PayloadTooLong { length, max });
        }
        let suite = hello.suite;
        let mut noise =
            Builder::with_resolver(suite.params()?, Box::new(SeededResolver::new(seed)))
                .local_private_key(hello.door.key.expose_secret())?
                .prologue(&hello.prologue)?
                .build_responder()?;
        noise.read_message(&hello.noise_1, &mut [0; TAG_BYTES])?;
        let mut noise_2 = vec![0; 32 + welcome_payload.len() + TAG_BYTES];
        let length = noise.write_message(welcome_payload, &mut noise_2)?;
        noise_2.truncate(length);
        let header = Header::new(MessageType::Welcome, suite).encode();
        let welcome = vec![Bytes::copy_from_slice(&header), Bytes::from(noise_2)];
        Ok((Self { noise, suite }, welcome))
    }

    /// The suite of the connection; an ERROR message names it too.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Judges INITIATE. `now` is the time since any fixed moment; the sealer goes on counting from
    /// there.
    ///
    /// # Errors
    /// [`HandshakeError`]: close the connection.
    pub fn on_initiate(
        mut self,
        parts: &[Bytes],
        now: Duration,
    ) -> Result<Accepted, HandshakeError> {
        let [header, noise_3] = parts else {
            return Err(HandshakeError::Malformed);
        };
        if Header::decode(header)? != Header::new(MessageType::Initiate, self.suite) {
            return Err(HandshakeError::Unexpected);
        }
        if noise_3.len() > MAX_HANDSHAKE_MESSAGE_BYTES {
            return Err(HandshakeError::Malformed);
        }
        let mut payload = vec![0; noise_3.len()];
        let length = self.noise.read_message(noise_3, &mut payload)?;
        payload.truncate(length);
        let peer = self
            .noise
            .get_remote_static()
            .and_then(|key| key.first_chunk())
            .map(|key| PublicKey::from_bytes(*key))
            .ok_or(HandshakeError::Malformed)?;
        let (theirs, ours) = cipher::split(&mut self.noise, self.suite)?;
        Ok(Accepted {
            peer,
            payload: Bytes::from(payload),
            sealer: Sealer::responder(ours, now),
            opener: Opener::responder(theirs),
        })
    }
}

impl fmt::Debug for ServerHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandshake")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}
