//! Exports and imports: streams between a client and a volume's node, authenticated by the location.
//!
//! Invariant: a volume that is being imported is nobody's until its node says that it has it; the
//! end of the stream before that forgets it.

use teu_protocol::{
    ids::{NodeId, VolumeId},
    message::{ImportTarget, NodeRequestBody, RequestBody, VolumeOrder},
};

use crate::{
    Core, connections::Caller, limits, open::Opening, orders::Purpose, refusals, request::Step,
    streams::End,
};

/// A stream towards a node is not the client's to pay for: an import's bytes come from the client.
const NO_WINDOW: u64 = 0;

impl Core {
    pub(super) fn volume_stream(&mut self, caller: &Caller, body: RequestBody) -> Step {
        let key = self.config.transfer.key_of(&caller.account);
        match body {
            RequestBody::ExportVolume {
                volume,
                snapshot,
                base,
                stream,
                window,
            } => {
                let node = self.served_volume(caller, &volume)?.kept.node;
                let opening = Opening {
                    node,
                    end: End::Volume(volume),
                    stream,
                    window,
                };
                self.open_at(
                    caller,
                    opening,
                    |stream| {
                        NodeRequestBody::Volume(Box::new(VolumeOrder::Export {
                            volume,
                            snapshot,
                            base,
                            key,
                            stream,
                            window,
                        }))
                    },
                    |client, number| Purpose::Open { client, number },
                )
            }
            RequestBody::ImportVolume { target, stream } => {
                let (record, into) = match target {
                    ImportTarget::New { node, spec } => {
                        let node = self.node_to_import(caller, node)?;
                        let until_ms = self.clock().saturating_add(limits::IMPORT_MS);
                        (
                            self.enter_volume(caller, node, (spec, None), until_ms)?,
                            false,
                        )
                    }
                    ImportTarget::Into(id) => {
                        let volume = self.served_volume(caller, &id)?;
                        self.unused(volume)?;
                        (volume.kept.record.clone(), true)
                    }
                };
                let volume = record.id;
                let node = self.volumes.get(&volume).map(|v| v.kept.node);
                let opening = Opening {
                    node: node.ok_or_else(refusals::no_volume)?,
                    end: End::Volume(volume),
                    stream,
                    window: NO_WINDOW,
                };
                let step = self.open_at(
                    caller,
                    opening,
                    |stream| {
                        NodeRequestBody::Volume(Box::new(VolumeOrder::Import {
                            record,
                            into,
                            key,
                            stream,
                        }))
                    },
                    |client, number| Purpose::Import {
                        client,
                        number,
                        volume,
                    },
                );
                if step.is_err() {
                    self.drop_unmade(&volume);
                }
                step
            }
            _ => Err(refusals::bad("this request opens no stream")),
        }
    }

    /// Where a new volume is imported; the same import again is one too many.
    fn node_to_import(
        &self,
        caller: &Caller,
        asked: Option<NodeId>,
    ) -> Result<NodeId, teu_protocol::message::Refusal> {
        let id = VolumeId::derive(&caller.session, &caller.request);
        match self.volumes.get(&id) {
            None => self.place_volume(asked),
            Some(again) if again.is_made() => Err(refusals::wrong_state(format!(
                "this import is complete: it became volume {id}"
            ))),
            Some(_) => Err(refusals::wrong_state(
                "this import is under way on another stream",
            )),
        }
    }
}
