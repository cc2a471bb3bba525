//! A client's request: answered from memory, joined to the same one in flight, or performed.
//!
//! Invariant: every request is answered exactly once on each connection that it came on, and has
//! its effect once. Every container that a request names is looked up by [`Core::owned`].

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, RequestId},
    message::{EventBody, Refusal, ReplyBody, Request, RequestBody, SessionInfo},
};

use crate::{
    ConnectionId, Core, connections::Caller, containers::Owned, limits, orders::Asker, refusals,
    session::Session,
};

/// What a request leads to: an answer, now or later, or a refusal.
pub(crate) type Step = Result<Answer, Refusal>;

/// When the answer comes.
#[derive(Debug)]
pub(crate) enum Answer {
    Now(Box<ReplyBody>),
    /// An order, an upload or a gathering is in flight and will answer.
    Later,
}

impl Answer {
    pub(crate) fn now(body: ReplyBody) -> Self {
        Self::Now(Box::new(body))
    }

    pub(crate) fn done() -> Self {
        Self::now(ReplyBody::Done)
    }
}

impl Core {
    pub(crate) fn request(&mut self, connection: ConnectionId, request: Request, bulk: Vec<Bytes>) {
        let Some(caller) = self.connections.caller(connection, request.id) else {
            return;
        };
        if self.is_known(&caller) {
            return;
        }
        let remember = changes_the_catalogue(&request.body);
        let step = self
            .admit(&caller)
            .and_then(|()| self.perform(&caller, request.body, bulk));
        let result = match step {
            Ok(Answer::Later) => {
                if let Some(client) = self.connections.client_mut(connection) {
                    client.waits_for(caller.request);
                }
                return;
            }
            Ok(Answer::Now(body)) => Ok(*body),
            Err(refusal) => Err(refusal),
        };
        self.answer(
            &Asker {
                remember,
                ..Asker::of(&caller)
            },
            result,
        );
    }

    /// Answers or joins a request that was made before.
    fn is_known(&mut self, caller: &Caller) -> bool {
        let (request, now) = (caller.request, self.clock());
        let Some(session) = self.sessions.get(&caller.session) else {
            return true;
        };
        if let Some(answer) = session.replies.get(&request, now).cloned() {
            self.replay(caller, answer);
            return true;
        }
        let joined = self.orders.join(caller.session, request, caller.connection)
            || self
                .doctors
                .join(caller.session, request, caller.connection);
        if joined && let Some(client) = self.connections.client_mut(caller.connection) {
            client.waits_for(request);
        }
        joined
    }

    /// Gives a remembered answer; it must not tell older news than the events that came since.
    fn replay(&mut self, caller: &Caller, mut answer: Result<ReplyBody, Refusal>) {
        let mut gone = None;
        match &mut answer {
            Ok(ReplyBody::Spawned(info) | ReplyBody::Container(info)) => {
                match self.containers.get(&info.id) {
                    Some(found) => **info = found.info.clone(),
                    None => gone = Some(EventBody::ContainerGone(info.id)),
                }
            }
            Ok(ReplyBody::Volume(info)) => match self.volumes.get(&info.id) {
                Some(found) => **info = self.volume_info(found),
                None => gone = Some(EventBody::VolumeGone(info.id)),
            },
            _ => {}
        }
        self.answer(&Asker::of(caller), answer);
        if let Some(gone) = gone {
            self.notify(&caller.session, gone);
        }
    }

    fn admit(&mut self, caller: &Caller) -> Result<(), Refusal> {
        let waiting = self
            .connections
            .client_mut(caller.connection)
            .map_or(0, |c| c.waiting());
        if waiting < limits::SESSION.requests as usize {
            Ok(())
        } else {
            Err(refusals::limit(format!(
                "{waiting} requests of this connection wait for answers, which is the most"
            )))
        }
    }

    /// The container, if the caller's session has it.
    pub(crate) fn owned(&self, caller: &Caller, id: &ContainerId) -> Result<Owned, Refusal> {
        let owned = self.containers.owned(&caller.session, id);
        owned.map_err(|_| self.not_found(&caller.session))
    }

    fn perform(&mut self, caller: &Caller, body: RequestBody, bulk: Vec<Bytes>) -> Step {
        match body {
            RequestBody::Spawn(spec) => self.spawn(caller, *spec, bulk),
            RequestBody::Wake(id) => self.wake(&self.owned(caller, &id)?, caller),
            RequestBody::Stop {
                container,
                signal,
                grace_ms,
            } => self.stop(&self.owned(caller, &container)?, caller, signal, grace_ms),
            RequestBody::Signal {
                container,
                process,
                signal,
            } => self.signal(&self.owned(caller, &container)?, caller, process, signal),
            RequestBody::Destroy(id) => self.destroy(caller, &id),
            RequestBody::Find(what) => self.find(caller, &what),
            RequestBody::List => Ok(self.list(caller)),
            RequestBody::Exec {
                container,
                process,
                bound,
            } => self.exec(&self.owned(caller, &container)?, caller, process, bound),
            RequestBody::Attach { .. } | RequestBody::Logs { .. } | RequestBody::Tunnel { .. } => {
                self.open(caller, body)
            }
            RequestBody::Resize {
                container,
                process,
                size,
            } => self.resize(&self.owned(caller, &container)?, caller, process, size),
            RequestBody::Allow { to, from } => self.allow(
                &self.owned(caller, &to)?,
                &self.owned(caller, &from)?,
                caller,
            ),
            RequestBody::Disallow { to, from } => self.disallow(
                &self.owned(caller, &to)?,
                &self.owned(caller, &from)?,
                caller,
            ),
            RequestBody::FindImage(what) => self.find_image(caller, &what),
            RequestBody::Images => Ok(self.list_images(caller)),
            RequestBody::MissingLayers(digests) => self.missing_layers(caller, &digests),
            RequestBody::UploadLayer {
                digest,
                size,
                stream,
            } => self.upload_layer(caller, digest, size, stream),
            RequestBody::AddImage { manifest, names } => self.add_image(caller, manifest, &names),
            RequestBody::RemoveImage(what) => self.remove_image(caller, &what),
            RequestBody::CreateVolume { .. }
            | RequestBody::FindVolume(_)
            | RequestBody::Volumes
            | RequestBody::DestroyVolume(_)
            | RequestBody::Snapshots(_)
            | RequestBody::Snapshot { .. }
            | RequestBody::DestroySnapshot { .. }
            | RequestBody::RollBack(_)
            | RequestBody::CloneVolume { .. }
            | RequestBody::VolumeUsage(_)
            | RequestBody::SetQuota { .. }
            | RequestBody::SetSchedule { .. }
            | RequestBody::ExportVolume { .. }
            | RequestBody::ImportVolume { .. } => self.volume_request(caller, body),
            RequestBody::Sessions => Ok(self.list_sessions(caller)),
            RequestBody::EndSession(id) => {
                self.sessions
                    .of_account(&caller.account, &id)
                    .ok_or_else(refusals::no_session)?;
                self.end_session_asked(caller, &id);
                Ok(Answer::done())
            }
            RequestBody::Doctor => Ok(self.doctor(caller)),
            RequestBody::EnrolAccount(account) => self.enrol_account(caller, account),
            RequestBody::RevokeAccount(key) => self.revoke_account(caller, &key),
            RequestBody::EnrolNode { key, name } => self.enrol_node(caller, key, name),
        }
    }

    /// Who ends its own session hears the answer before its connection is closed.
    fn end_session_asked(&mut self, caller: &Caller, id: &teu_protocol::ids::SessionId) {
        if *id == caller.session {
            self.answer(&Asker::of(caller), Ok(ReplyBody::Done));
        }
        self.end_session(id, refusals::no_session());
    }

    fn list(&self, caller: &Caller) -> Answer {
        let listed = self.containers.listed(&caller.session);
        Answer::now(ReplyBody::Containers(
            listed.iter().map(|c| c.info.clone()).collect(),
        ))
    }

    fn list_sessions(&self, caller: &Caller) -> Answer {
        let info = |session: &Session| {
            let record = session.record();
            SessionInfo {
                id: record.id,
                name: record.name.clone(),
                attachments: u32::try_from(session.connections().count()).unwrap_or(u32::MAX),
                containers: u32::try_from(self.containers.listed(&record.id).len())
                    .unwrap_or(u32::MAX),
                created_ms: record.created_ms,
            }
        };
        Answer::now(ReplyBody::Sessions(
            self.sessions.all_of(&caller.account).map(info).collect(),
        ))
    }
}

impl Asker {
    /// The one who asks; its answer is not remembered unless told.
    pub(crate) fn of(caller: &Caller) -> Self {
        let Caller {
            connection,
            session,
            request,
            ..
        } = *caller;
        Self {
            session,
            request,
            connections: vec![connection],
            remember: false,
        }
    }

    pub(crate) fn waits_as(&self, session: teu_protocol::ids::SessionId, id: RequestId) -> bool {
        self.session == session && self.request == id
    }
}

/// Requests that are answered at once and must not be done twice.
fn changes_the_catalogue(body: &RequestBody) -> bool {
    matches!(
        body,
        RequestBody::AddImage { .. }
            | RequestBody::RemoveImage(_)
            | RequestBody::EndSession(_)
            | RequestBody::EnrolAccount(_)
            | RequestBody::RevokeAccount(_)
            | RequestBody::EnrolNode { .. }
    )
}
