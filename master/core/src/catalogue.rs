//! Requests about images: find, list, add, remove.
//!
//! Invariant: an image enters the catalogue only when its config hashes to its id, names its layers,
//! and every layer is possessed by the account: nothing can be added that could not run.

use std::collections::BTreeSet;

use teu_protocol::{
    ids::{Digest, PublicKey},
    image_config::ImageConfig,
    message::{ImageManifest, Refusal, RefusalCode, ReplyBody},
};

use crate::{
    Core,
    connections::Caller,
    image_name::{self, Reference},
    images, limits, record,
    record::StoreOp,
    refusals,
    request::{Answer, Step},
};

impl Core {
    pub(crate) fn find_image(&self, caller: &Caller, what: &str) -> Step {
        let image = self
            .images
            .find(&caller.account, &image_name::reference(what)?)?;
        Ok(Answer::now(ReplyBody::Image(images::info(image))))
    }

    pub(crate) fn list_images(&self, caller: &Caller) -> Answer {
        let list = self.images.of(&caller.account).map(images::info).collect();
        Answer::now(ReplyBody::Images(list))
    }

    pub(crate) fn add_image(
        &mut self,
        caller: &Caller,
        manifest: ImageManifest,
        names: &[String],
    ) -> Step {
        let account = caller.account;
        let platform = verify(&manifest)?;
        self.verify_layers(&account, &manifest)?;
        let names = names.iter().map(|name| image_name::normal(name));
        let mut names = names.collect::<Result<BTreeSet<_>, _>>()?;
        let known = self.images.get(&account, &manifest.id);
        let added_ms = known.map_or(self.now.unix_ms, |image| image.added_ms);
        let (images, bytes) = self.images.held_by(&account);
        if known.is_none()
            && (images >= limits::IMAGES_PER_ACCOUNT
                || bytes + manifest.config.len() > limits::CONFIG_BYTES_PER_ACCOUNT)
        {
            return Err(refusals::limit(
                "this account's catalogue is full. Remove some images",
            ));
        }
        names.extend(
            known
                .into_iter()
                .flat_map(|image| image.names.iter().cloned()),
        );
        if names.len() > limits::NAMES_PER_IMAGE {
            return Err(refusals::limit(
                "an image has at most 64 names. Remove some",
            ));
        }
        for name in &names {
            self.take_name(&account, name, &manifest.id);
        }
        let image = record::Image {
            account,
            manifest,
            names,
            platform,
            added_ms,
        };
        let info = images::info(&image);
        self.persist(StoreOp::PutImage(image.clone()));
        self.images.put(image);
        Ok(Answer::now(ReplyBody::Image(info)))
    }

    fn verify_layers(&self, account: &PublicKey, manifest: &ImageManifest) -> Result<(), Refusal> {
        for layer in &manifest.layers {
            match self.images.possession(account, &layer.digest) {
                Some(size) if size == layer.size => {}
                Some(size) => {
                    return Err(refusals::bad(format!(
                        "layer {} has {size} bytes, not {}",
                        layer.digest.short(),
                        layer.size
                    )));
                }
                None => {
                    return Err(Refusal::new(
                        RefusalCode::LayerMissing,
                        format!("layer {} has not been uploaded", layer.digest.short()),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The name points at another image from now on.
    fn take_name(&mut self, account: &PublicKey, name: &str, new: &Digest) {
        let Some(holder) = self.images.named(account, name) else {
            return;
        };
        if holder.manifest.id == *new {
            return;
        }
        let mut holder = holder.clone();
        holder.names.remove(name);
        self.persist(StoreOp::PutImage(holder.clone()));
        self.images.put(holder);
    }

    pub(crate) fn remove_image(&mut self, caller: &Caller, what: &str) -> Step {
        let account = caller.account;
        let reference = image_name::reference(what)?;
        let image = self.images.find(&account, &reference)?;
        let mut image = image.clone();
        let by_name = match &reference {
            Reference::Name { name, .. } => image.names.remove(name),
            Reference::Id(_) => false,
        };
        if by_name && !image.names.is_empty() {
            self.persist(StoreOp::PutImage(image.clone()));
            self.images.put(image);
        } else {
            self.drop_image(&account, &image.manifest);
        }
        Ok(Answer::done())
    }

    /// The image goes, and with it the account's possession of layers that none of its others has.
    fn drop_image(&mut self, account: &PublicKey, manifest: &ImageManifest) {
        self.persist(StoreOp::RemoveImage {
            account: *account,
            id: manifest.id,
        });
        self.images.remove(account, &manifest.id);
        let others = self
            .images
            .of(account)
            .flat_map(|image| &image.manifest.layers);
        let kept: BTreeSet<_> = others.map(|layer| layer.digest).collect();
        let dropped: BTreeSet<_> = manifest.layers.iter().map(|layer| layer.digest).collect();
        for digest in dropped.difference(&kept) {
            self.persist(StoreOp::RemovePossession {
                account: *account,
                digest: *digest,
            });
            self.images.dispossess(account, digest);
        }
        self.delete_unused_layers();
    }

    /// The account is gone, and so is all that it kept here.
    pub(crate) fn drop_catalogue(&mut self, account: &PublicKey) {
        let manifests: Vec<_> = self
            .images
            .of(account)
            .map(|i| i.manifest.clone())
            .collect();
        for manifest in manifests {
            self.drop_image(account, &manifest);
        }
        for digest in self.images.possessions_of(account) {
            self.persist(StoreOp::RemovePossession {
                account: *account,
                digest,
            });
            self.images.dispossess(account, &digest);
        }
    }
}

/// The config is what the id promises, and names these layers. Returns the platform.
fn verify(manifest: &ImageManifest) -> Result<String, Refusal> {
    let bad = |text: String| Refusal::new(RefusalCode::BadImage, text);
    if Digest::of(&manifest.config) != manifest.id {
        return Err(Refusal::new(
            RefusalCode::DigestMismatch,
            "the image's config does not hash to its id: it was changed on the way. Import it again",
        ));
    }
    let config = ImageConfig::parse(&manifest.config).map_err(|e| bad(e.to_string()))?;
    let layers = manifest.layers.iter().map(|layer| layer.diff_id);
    if !layers.eq(config.diff_ids.iter().copied()) {
        return Err(bad(format!(
            "the image's config names {} layers and the manifest {}, or others. Export it again",
            config.diff_ids.len(),
            manifest.layers.len()
        )));
    }
    if config.platform().len() > 64 {
        return Err(bad(
            "the platform that the image's config names has more than 64 bytes".into(),
        ));
    }
    Ok(config.platform())
}
