//! Gives Noise its primitives, with the caller's random bytes in place of the system's.

use sha2::{Digest, Sha256};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver, RingResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

/// Resolves as `snow` with `ring-accelerated` does, except that randomness is expanded from a seed
/// and that a Diffie-Hellman result of all zeros is an error (the peer sent a point of low order).
pub(super) struct SeededResolver {
    seed: Zeroizing<[u8; 32]>,
}

impl SeededResolver {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            seed: Zeroizing::new(seed),
        }
    }
}

impl CryptoResolver for SeededResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom {
            seed: self.seed.clone(),
            blocks: 0,
        }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let inner = DefaultResolver.resolve_dh(choice)?;
        Some(Box::new(ContributoryDh { inner }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver
            .resolve_hash(choice)
            .or_else(|| DefaultResolver.resolve_hash(choice))
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver
            .resolve_cipher(choice)
            .or_else(|| DefaultResolver.resolve_cipher(choice))
    }
}

/// Block n is SHA-256("teu seed" · seed · n).
struct SeededRandom {
    seed: Zeroizing<[u8; 32]>,
    blocks: u64,
}

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        for chunk in dest.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(b"teu seed")
                .chain_update(*self.seed)
                .chain_update(self.blocks.to_be_bytes())
                .finalize();
            self.blocks += 1;
            for (to, from) in chunk.iter_mut().zip(block) {
                *to = from;
            }
        }
        Ok(())
    }
}

struct ContributoryDh {
    inner: Box<dyn Dh>,
}

impl Dh for ContributoryDh {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn pub_len(&self) -> usize {
        self.inner.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.inner.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.inner.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        self.inner.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.inner.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.inner.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        self.inner.dh(pubkey, out)?;
        let seen = out
            .iter()
            .take(self.dh_len())
            .fold(0, |seen, byte| seen | byte);
        if seen == 0 { Err(Error::Dh) } else { Ok(()) }
    }

    fn dh_len(&self) -> usize {
        self.inner.dh_len()
    }
}
