//! Finding a container of one's session, or a volume of one's account: by id, unique id prefix, tag,
//! or `id:tag`.

use teu_protocol::{
    ids::Tag,
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
    volumes::Volume,
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

/// What can be looked for.
pub(crate) trait Findable {
    /// Several of them.
    const MANY: &'static str;

    /// Its id, in lower-case digits.
    fn digits(&self) -> String;

    fn tag(&self) -> Option<&Tag>;
}

impl Findable for Container {
    const MANY: &'static str = "containers";

    fn digits(&self) -> String {
        self.info.id.to_string()
    }

    fn tag(&self) -> Option<&Tag> {
        self.info.tag.as_ref()
    }
}

impl Findable for Volume {
    const MANY: &'static str = "volumes";

    fn digits(&self) -> String {
        self.id().to_string()
    }

    fn tag(&self) -> Option<&Tag> {
        self.tag()
    }
}

pub(crate) fn pick<'a, T: Findable>(
    listed: &[&'a T],
    what: &str,
) -> Result<Option<&'a T>, Refusal> {
    if let Some((id, tag)) = what.split_once(':') {
        let found = by_id(listed, id)?;
        return Ok(found.filter(|it| it.tag().is_some_and(|t| t.as_str() == tag)));
    }
    let is_called = |it: &&&T| it.tag().map(Tag::as_str) == Some(what);
    match listed.iter().find(is_called) {
        Some(found) => Ok(Some(found)),
        None => by_id(listed, what),
    }
}

fn by_id<'a, T: Findable>(listed: &[&'a T], digits: &str) -> Result<Option<&'a T>, Refusal> {
    if digits.len() < PREFIX_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let digits = digits.to_ascii_lowercase();
    let mut found = listed.iter().filter(|it| it.digits().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(refusals::bad(format!(
            "several {} have ids that begin with `{digits}`. Give more digits",
            T::MANY
        ))),
        (first, _) => Ok(first.copied()),
    }
}
