//! The dialling side of the handshake.

use std::fmt;

use bytes::Bytes;
use snow::{Builder, HandshakeState};

use super::{
    HandshakeError, LocationIdentity, Opener, Sealer, StaticKey, Suite, cipher, cookie,
    hello::{self, Mac, NOISE_1_BYTES},
    refusal::read_refusal,
    resolver::SeededResolver,
};
use crate::{
    header::{Header, MessageType},
    ids::PublicKey,
    limits::{MAX_INITIATE_PAYLOAD_BYTES, MAX_SEALED_PART_BYTES, TAG_BYTES},
};

/// The client between HELLO and WELCOME.
pub struct ClientHandshake {
    noise: HandshakeState,
    suite: Suite,
    location: PublicKey,
    prologue: Vec<u8>,
    noise_1: Bytes,
    mac1: Mac,
    cookie_used: bool,
}

/// What to do after a message from the master.
#[derive(Debug)]
pub enum ClientStep {
    /// Send this HELLO, which carries the cookie, and wait again.
    SendHello(ClientHandshake, Vec<Bytes>),
    /// The location has proved that it holds its key.
    Welcomed(Welcomed),
}

impl ClientHandshake {
    /// Begins a handshake: the state and the HELLO to send. `seed` is 32 random bytes, used once.
    ///
    /// # Errors
    /// [`HandshakeError::Noise`], which no input causes.
    pub fn new(
        location: &LocationIdentity,
        key: &StaticKey,
        suite: Suite,
        seed: [u8; 32],
    ) -> Result<(Self, Vec<Bytes>), HandshakeError> {
        let prologue = location.prologue(suite);
        let remote = location.key();
        let mut noise =
            Builder::with_resolver(suite.params()?, Box::new(SeededResolver::new(seed)))
                .local_private_key(key.expose_secret())?
                .remote_public_key(remote.as_bytes())?
                .prologue(&prologue)?
                .build_initiator()?;
        let mut noise_1 = [0; NOISE_1_BYTES];
        let written = noise.write_message(&[], &mut noise_1)?;
        let noise_1 = Bytes::copy_from_slice(noise_1.get(..written).unwrap_or_default());
        let mac1_key = hello::mac1_key(remote);
        let (hello, mac1) = hello::build(suite, &prologue, &mac1_key, &noise_1, None);
        let location = remote;
        let this = Self {
            noise,
            suite,
            location,
            prologue,
            noise_1,
            mac1,
            cookie_used: false,
        };
        Ok((this, hello))
    }

    /// Judges the master's answer: COOKIE, WELCOME or ERROR.
    ///
    /// # Errors
    /// [`HandshakeError`]; [`HandshakeError::Refused`] if the master said so.
    pub fn on_message(self, parts: &[Bytes]) -> Result<ClientStep, HandshakeError> {
        if let Some(code) = read_refusal(self.suite, parts) {
            return Err(HandshakeError::Refused(code));
        }
        let (header, body) = parts.split_first().ok_or(HandshakeError::Malformed)?;
        let header = Header::decode(header)?;
        if header.suite != self.suite {
            return Err(HandshakeError::Unexpected);
        }
        match header.kind {
            MessageType::Cookie => self.on_cookie(body),
            MessageType::Welcome => self.on_welcome(body),
            _ => Err(HandshakeError::Unexpected),
        }
    }

    fn on_cookie(mut self, body: &[Bytes]) -> Result<ClientStep, HandshakeError> {
        if self.cookie_used {
            return Err(HandshakeError::CookieTwice);
        }
        let cookie = cookie::unseal(self.location, &self.mac1, body)?;
        let mac1_key = hello::mac1_key(self.location);
        let (hello, _) = hello::build(
            self.suite,
            &self.prologue,
            &mac1_key,
            &self.noise_1,
            Some(&cookie),
        );
        self.cookie_used = true;
        Ok(ClientStep::SendHello(self, hello))
    }

    fn on_welcome(mut self, body: &[Bytes]) -> Result<ClientStep, HandshakeError> {
        let [noise_2] = body else {
            return Err(HandshakeError::Malformed);
        };
        if noise_2.len() > MAX_SEALED_PART_BYTES {
            return Err(HandshakeError::Malformed);
        }
        let mut payload = vec![0; noise_2.len()];
        let length = self.noise.read_message(noise_2, &mut payload)?;
        payload.truncate(length);
        let payload = Bytes::from(payload);
        Ok(ClientStep::Welcomed(Welcomed {
            noise: self.noise,
            suite: self.suite,
            payload,
        }))
    }
}

impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// The client between WELCOME and INITIATE.
pub struct Welcomed {
    noise: HandshakeState,
    suite: Suite,
    payload: Bytes,
}

impl Welcomed {
    /// WELCOME's payload (MessagePack, see [`crate::message`]).
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Ends the handshake: the INITIATE to send, and what seals and opens from now on. `now` is the
    /// time since any fixed moment; the sealer goes on counting from there.
    ///
    /// # Errors
    /// [`HandshakeError::PayloadTooLong`].
    pub fn initiate(
        mut self,
        payload: &[u8],
        now: std::time::Duration,
    ) -> Result<(Vec<Bytes>, Sealer, Opener), HandshakeError> {
        if payload.len() > MAX_INITIATE_PAYLOAD_BYTES {
            let (length, max) = (payload.len(), MAX_INITIATE_PAYLOAD_BYTES);
            return Err(HandshakeError::PayloadTooLong { length, max });
        }
        let mut noise_3 = vec![0; 32 + TAG_BYTES + payload.len() + TAG_BYTES];
        let length = self.noise.write_message(payload, &mut noise_3)?;
        noise_3.truncate(length);
        let header = Header::new(MessageType::Initiate, self.suite).encode();
        let message = vec![Bytes::copy_from_slice(&header), Bytes::from(noise_3)];
        let (ours, theirs) = cipher::split(&mut self.noise, self.suite)?;
        Ok((
            message,
            Sealer::initiator(ours, now),
            Opener::initiator(theirs),
        ))
    }
}

impl fmt::Debug for Welcomed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcomed")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}
