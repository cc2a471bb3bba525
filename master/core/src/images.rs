//! Each account's images and the blobs that it possesses.
//!
//! Owner: [`crate::Core`]. Invariants: a name points at one image of its account; an account finds
//! and uses only its own. Storage is shared: a blob goes when no account possesses it.

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::{
    ids::{Digest, PublicKey},
    message::{ImageInfo, Refusal},
};

use crate::{image_name::Reference, record, refusals};

/// All catalogues.
#[derive(Debug, Default)]
pub(crate) struct Images {
    by_id: BTreeMap<(PublicKey, Digest), record::Image>,
    by_name: BTreeMap<(PublicKey, String), Digest>,
    owners: BTreeMap<Digest, BTreeMap<PublicKey, u64>>,
    possessed: BTreeMap<PublicKey, usize>,
    /// Blobs that nobody may possess any more: deleted when nothing in flight needs them.
    unused: BTreeSet<Digest>,
}

impl Images {
    pub(crate) fn restored(
        images: Vec<record::Image>,
        possessions: Vec<record::Possession>,
    ) -> Self {
        let mut catalogue = Self::default();
        for image in images {
            catalogue.put(image);
        }
        for possession in possessions {
            catalogue.possess(&possession);
        }
        catalogue
    }

    pub(crate) fn get(&self, account: &PublicKey, id: &Digest) -> Option<&record::Image> {
        self.by_id.get(&(*account, *id))
    }

    /// The image that is meant. Names count before digits.
    pub(crate) fn find(
        &self,
        account: &PublicKey,
        reference: &Reference,
    ) -> Result<&record::Image, Refusal> {
        let found = match reference {
            Reference::Id(id) => self.get(account, id),
            Reference::Name { name, digits } => match (self.named(account, name), digits) {
                (None, Some(digits)) => self.by_digits(account, digits)?,
                (named, _) => named,
            },
        };
        found.ok_or_else(refusals::no_image)
    }

    pub(crate) fn named(&self, account: &PublicKey, name: &str) -> Option<&record::Image> {
        let id = self.by_name.get(&(*account, name.to_owned()))?;
        self.get(account, id)
    }

    fn by_digits(
        &self,
        account: &PublicKey,
        digits: &str,
    ) -> Result<Option<&record::Image>, Refusal> {
        let mut fits = self
            .of(account)
            .filter(|image| image.manifest.id.hex().starts_with(digits));
        match (fits.next(), fits.next()) {
            (Some(_), Some(_)) => Err(refusals::bad(format!(
                "several images have ids that begin with `{digits}`. Give more digits"
            ))),
            (first, _) => Ok(first),
        }
    }

    pub(crate) fn of(&self, account: &PublicKey) -> impl Iterator<Item = &record::Image> {
        let all =
            (*account, Digest::from_bytes([0; 32]))..=(*account, Digest::from_bytes([255; 32]));
        self.by_id.range(all).map(|(_, image)| image)
    }

    /// How many images the account has, and the bytes of their configs.
    pub(crate) fn held_by(&self, account: &PublicKey) -> (usize, usize) {
        self.of(account).fold((0, 0), |(count, bytes), image| {
            (count + 1, bytes + image.manifest.config.len())
        })
    }

    /// Adds or replaces; its names point at it from now on. (The caller has taken them from others.)
    pub(crate) fn put(&mut self, image: record::Image) {
        let (account, id) = (image.account, image.manifest.id);
        self.remove(&account, &id);
        for name in &image.names {
            self.by_name.insert((account, name.clone()), id);
        }
        self.by_id.insert((account, id), image);
    }

    pub(crate) fn remove(&mut self, account: &PublicKey, id: &Digest) -> Option<record::Image> {
        let image = self.by_id.remove(&(*account, *id))?;
        for name in &image.names {
            let key = (*account, name.clone());
            if self.by_name.get(&key) == Some(id) {
                self.by_name.remove(&key);
            }
        }
        Some(image)
    }

    /// The blob's length, if the account possesses it.
    pub(crate) fn possession(&self, account: &PublicKey, digest: &Digest) -> Option<u64> {
        self.owners.get(digest)?.get(account).copied()
    }

    /// Whether any account possesses the blob.
    pub(crate) fn is_possessed(&self, digest: &Digest) -> bool {
        self.owners.contains_key(digest)
    }

    pub(crate) fn count_possessed(&self, account: &PublicKey) -> usize {
        self.possessed.get(account).copied().unwrap_or(0)
    }

    pub(crate) fn possess(&mut self, possession: &record::Possession) {
        let owners = self.owners.entry(possession.digest).or_default();
        if owners.insert(possession.account, possession.size).is_none() {
            *self.possessed.entry(possession.account).or_default() += 1;
        }
        self.unused.remove(&possession.digest);
    }

    pub(crate) fn dispossess(&mut self, account: &PublicKey, digest: &Digest) {
        let Some(owners) = self.owners.get_mut(digest) else {
            return;
        };
        if owners.remove(account).is_none() {
            return;
        }
        if owners.is_empty() {
            self.owners.remove(digest);
            self.unused.insert(*digest);
        }
        if let Some(count) = self.possessed.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                self.possessed.remove(account);
            }
        }
    }

    pub(crate) fn possessions_of(&self, account: &PublicKey) -> Vec<Digest> {
        let its = self
            .owners
            .iter()
            .filter(|(_, owners)| owners.contains_key(account));
        its.map(|(digest, _)| *digest).collect()
    }

    /// The blob came into the cache, and may be nobody's.
    pub(crate) fn arrived_for_nobody(&mut self, digest: Digest) {
        if !self.owners.contains_key(&digest) {
            self.unused.insert(digest);
        }
    }

    pub(crate) fn is_unused(&self) -> bool {
        !self.unused.is_empty()
    }

    /// Takes the unused blobs that nothing in flight needs.
    pub(crate) fn take_unused(&mut self, needed: &BTreeSet<Digest>) -> Vec<Digest> {
        let take: Vec<_> = self
            .unused
            .iter()
            .filter(|d| !needed.contains(d))
            .copied()
            .collect();
        self.unused.retain(|digest| needed.contains(digest));
        take
    }
}

/// The image as its account sees it.
pub(crate) fn info(image: &record::Image) -> ImageInfo {
    ImageInfo {
        id: image.manifest.id,
        names: image.names.iter().cloned().collect(),
        size: image.manifest.layers.iter().map(|layer| layer.size).sum(),
        layers: u32::try_from(image.manifest.layers.len()).unwrap_or(u32::MAX),
        platform: image.platform.clone(),
        added_ms: image.added_ms,
    }
}
