//! Finding a container of one's session: by id, unique id prefix, tag, or `id:tag`.

use teu_protocol::{
    ids::{ContainerId, Tag},
    message::{ContainerDetail, NodeRequestBody, Refusal, ReplyBody},
};

use crate::{
    Core,
    connections::Caller,
    container::Container,
    limits,
    orders::Purpose,
    refusals,
    request::{Answer, Step},
};

/// Digits that a prefix needs: fewer would often name another one tomorrow.
const PREFIX_DIGITS: usize = 4;

impl Core {
    pub(crate) fn find(&mut self, caller: &Caller, what: &str) -> Step {
        let listed = self.containers.listed(&caller.session);
        let id = match pick(&listed, what)? {
            Some(found) => found.info.id,
            None => return Err(self.not_found(&caller.session)),
        };
        let owned = self.owned(caller, &id)?;
        let found = self
            .containers
            .of(&owned)
            .ok_or_else(refusals::no_container)?;
        if self.up(&owned.node()).is_err() || found.is_being_made() {
            // What the master knows is better than nothing.
            let detail = ContainerDetail {
                info: found.info.clone(),
                processes: Vec::new(),
                env_names: Vec::new(),
                exposed_ports: Vec::new(),
                files: Vec::new(),
                termination: match found.info.state {
                    teu_protocol::message::ContainerState::Exited { termination, .. } => {
                        Some(termination)
                    }
                    _ => None,
                },
            };
            return Ok(Answer::now(ReplyBody::Detail(Box::new(detail))));
        }
        let body = NodeRequestBody::Detail(id);
        self.forward(
            caller,
            owned.node(),
            body,
            Purpose::Detail(id),
            limits::ORDER_MS,
        )
    }
}

fn pick<'a>(listed: &[&'a Container], what: &str) -> Result<Option<&'a Container>, Refusal> {
    if let Some((id, tag)) = what.split_once(':') {
        let found = by_id(listed, id)?;
        return Ok(found.filter(|c| c.info.tag.as_ref().is_some_and(|t| t.as_str() == tag)));
    }
    let is_called = |c: &&&Container| c.info.tag.as_ref().map(Tag::as_str) == Some(what);
    match listed.iter().find(is_called) {
        Some(found) => Ok(Some(found)),
        None => by_id(listed, what),
    }
}

fn by_id<'a>(listed: &[&'a Container], digits: &str) -> Result<Option<&'a Container>, Refusal> {
    if let Ok(id) = digits.parse::<ContainerId>() {
        return Ok(listed.iter().find(|c| c.info.id == id).copied());
    }
    if digits.len() < PREFIX_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let digits = digits.to_ascii_lowercase();
    let mut found = listed
        .iter()
        .filter(|c| c.info.id.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(refusals::bad(format!(
            "several containers have ids that begin with `{digits}`. Give more digits"
        ))),
        (first, _) => Ok(first.copied()),
    }
}
