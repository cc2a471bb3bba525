//! Blobs: who still has to upload which, who may fetch which, and when one is deleted.
//!
//! Invariants: an account possesses a blob only after the cache has verified what *this account*
//! sent; a node gets only layers of images that were ordered there; a blob is deleted only when
//! nobody possesses it and nothing in flight needs it.

use std::collections::BTreeSet;

use teu_protocol::{
    ids::{Digest, NodeId, RequestId, StreamId},
    message::{MAX_REMOVED_LAYERS, MasterToNode, NodeRequestBody, Refusal, RefusalCode, ReplyBody},
};

use crate::{
    ConnectionId, Core, Effect,
    connections::Caller,
    limits,
    orders::{Asker, Purpose},
    record::{Possession, StoreOp},
    refusals,
    request::{Answer, Step},
    streams::{Stream, Use},
};

impl Core {
    pub(crate) fn missing_layers(&self, caller: &Caller, digests: &[Digest]) -> Step {
        if digests.len() > limits::DIGESTS_ASKED {
            return Err(refusals::bad("ask for at most 1024 layers at once"));
        }
        let is_missing = |d: &&Digest| self.images.possession(&caller.account, d).is_none();
        Ok(Answer::now(ReplyBody::Layers(
            digests.iter().filter(is_missing).copied().collect(),
        )))
    }

    pub(crate) fn upload_layer(
        &mut self,
        caller: &Caller,
        digest: Digest,
        size: u64,
        stream: StreamId,
    ) -> Step {
        let account = caller.account;
        if let Some(size) = self.images.possession(&account, &digest) {
            return Ok(Answer::now(ReplyBody::Upload {
                offset: size,
                window: 0,
            }));
        }
        if size == 0 || size > limits::LAYER_BYTES {
            return Err(refusals::bad("a layer has between 1 byte and 64 GiB"));
        }
        if self.images.count_possessed(&account) >= limits::LAYERS_PER_ACCOUNT {
            return Err(refusals::limit(
                "this account has too many layers. Remove some images",
            ));
        }
        if self
            .streams
            .uploads()
            .any(|upload| upload == (account, digest))
        {
            return Err(Refusal::new(
                RefusalCode::Unavailable,
                "this layer is just being uploaded by the same account; ask again when it is done",
            ));
        }
        let used = Use::Upload {
            account,
            digest,
            size,
        };
        let connection = caller.connection;
        self.streams
            .add((connection, stream), Stream { window: 0, used })?;
        let request = caller.request;
        self.effects.push(Effect::ReceiveLayer {
            account,
            connection,
            request,
            stream,
            digest,
            size,
        });
        self.uploads.insert((connection, request), stream);
        Ok(Answer::Later)
    }

    pub(crate) fn upload_ready(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        result: Result<(u64, u64), Refusal>,
    ) {
        let Some(stream) = self.uploads.remove(&(connection, request)) else {
            return;
        };
        let Some(caller) = self.connections.caller(connection, request) else {
            return;
        };
        let result = match result {
            Ok((offset, window)) => Ok(ReplyBody::Upload { offset, window }),
            Err(refusal) => {
                self.streams.remove(&(connection, stream));
                Err(refusal)
            }
        };
        self.answer(&Asker::of(&caller), result);
    }

    pub(crate) fn upload_ended(
        &mut self,
        connection: ConnectionId,
        stream: StreamId,
        digest: Digest,
        result: Result<u64, Refusal>,
    ) {
        let key = (connection, stream);
        let upload = match self.streams.get(&key).map(|stream| stream.used) {
            Some(Use::Upload {
                account,
                digest: asked,
                size,
            }) if asked == digest => {
                self.streams.remove(&key);
                Some((account, size))
            }
            _ => None,
        };
        let Ok(arrived) = result else { return };
        match upload {
            Some((account, size)) if size == arrived => {
                let possession = Possession {
                    account,
                    digest,
                    size,
                };
                self.persist(StoreOp::PutPossession(possession.clone()));
                self.images.possess(&possession);
            }
            // Its client went while the blob was verified.
            _ => self.images.arrived_for_nobody(digest),
        }
    }

    pub(crate) fn fetch_layer(
        &mut self,
        node: NodeId,
        (connection, request, stream): (ConnectionId, RequestId, StreamId),
        digest: Digest,
        offset: u64,
        window: u64,
    ) {
        let was_ordered = self
            .containers
            .on_node(&node)
            .any(|c| c.layers.contains(&digest));
        let effect = if was_ordered {
            Effect::SendLayer {
                connection,
                request,
                stream,
                digest,
                offset,
                window,
            }
        } else {
            let refusal = Refusal::new(
                RefusalCode::LayerMissing,
                "no container with this layer was ordered on this node",
            );
            let reply = MasterToNode::LayerReply {
                id: request,
                result: Err(refusal),
            };
            self.send_node(connection, reply, Vec::new());
            return;
        };
        self.effects.push(effect);
    }

    /// Deletes blobs that nobody possesses, once no container is made from them and no upload of
    /// them is on its way.
    pub(crate) fn delete_unused_layers(&mut self) {
        if !self.images.is_unused() {
            return;
        }
        let made = self.containers.all().filter(|c| c.is_being_made());
        let mut needed: BTreeSet<Digest> = made.flat_map(|c| c.layers.iter().copied()).collect();
        needed.extend(self.streams.uploads().map(|(_, digest)| digest));
        let unused = self.images.take_unused(&needed);
        if unused.is_empty() {
            return;
        }
        for digest in unused {
            self.effects.push(Effect::DeleteLayer(digest));
        }
        let nodes: Vec<NodeId> = self.nodes.iter().map(|node| node.record.id).collect();
        for node in nodes {
            self.sweep_layers(node);
        }
    }

    /// Has the node remove the layers that no account possesses. It keeps those that its containers use
    /// until they end; a node that is away is told when it reports.
    pub(crate) fn sweep_layers(&mut self, id: NodeId) {
        let made = self.containers.on_node(&id).filter(|c| c.is_being_made());
        let needed: BTreeSet<Digest> = made.flat_map(|c| c.layers.iter().copied()).collect();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let images = &self.images;
        let strays: Vec<Digest> = node
            .layers
            .iter()
            .filter(|digest| !images.is_possessed(digest) && !needed.contains(digest))
            .take(MAX_REMOVED_LAYERS)
            .copied()
            .collect();
        if strays.is_empty() || node.link.connection().is_none() {
            return;
        }
        node.layers.retain(|digest| !strays.contains(digest));
        let body = NodeRequestBody::RemoveLayers(strays);
        let _ = self.order(id, body, Purpose::RemoveLayers, limits::ORDER_MS);
    }
}
