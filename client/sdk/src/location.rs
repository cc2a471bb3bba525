//! A location, as a program sees it: its offer, its session, and where containers come from.

mod admin;
mod builder;

pub use builder::{LocationBuilder, Session};

use std::{fmt, sync::Arc};

use futures::future::join_all;
use teu_protocol::{
    ids::{ContainerId, NodeId, SessionId, Tag},
    message::{ContainerInfo, NodeOffer, NodeState, Offer, ReplyBody, RequestBody},
};
use tokio::sync::watch;

use crate::{
    Container, Events, Images, LinkState, Progress, Result, Sessions, SpawnBuilder,
    error::Error,
    progress::NoProgress,
    session::{Patience, SessionHandle},
    spawn::ImageRef,
};

/// A session at a location. A cheap handle: clones are the same session.
///
/// When the last handle of the session is dropped (locations, containers, processes, tunnels), it says goodbye as well
/// as it can; [`Location::close`] does so for sure. Either way the location ends what a program that
/// vanished has left, within seconds.
#[derive(Clone)]
pub struct Location {
    session: SessionHandle,
    about: Arc<About>,
    progress: Arc<dyn Progress>,
}

#[derive(Debug)]
struct About {
    name: String,
    fqdn: String,
    session: SessionId,
    session_name: Option<Tag>,
}

impl Location {
    /// Connects to the default location (`$TEU_LOCATION`, else the one that `~/.teu` names) in a
    /// fresh session that ends with this program.
    ///
    /// # Errors
    /// [`Error::Config`] if no location or account is known here, [`Error::Connect`] if the
    /// location does not answer or does not let us in.
    pub async fn connect() -> Result<Self> {
        Self::builder().connect().await
    }

    /// Connects with choices.
    pub fn builder() -> LocationBuilder {
        LocationBuilder::default()
    }

    fn new(session: SessionHandle, about: About) -> Self {
        Self {
            session,
            about: Arc::new(about),
            progress: Arc::new(NoProgress),
        }
    }

    /// The location's name on this machine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// The location's DNS name.
    #[must_use]
    pub fn fqdn(&self) -> &str {
        &self.about.fqdn
    }

    /// The session that this connection was given when it was made.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.about.session
    }

    /// The session's name, if it is a persistent one.
    #[must_use]
    pub fn session_name(&self) -> Option<&Tag> {
        self.about.session_name.as_ref()
    }

    /// What the session may use now, and every change of it.
    #[must_use]
    pub fn offer(&self) -> watch::Receiver<Offer> {
        self.session.view().offer.clone()
    }

    /// The nodes as last offered, in no particular order.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeOffer> {
        self.session.view().offer.borrow().nodes.clone()
    }

    /// The nodes as last offered, best first: up before lost, then by the scarcer of free CPU and
    /// free memory (as parts of the node, promises to containers counted), then by free disk.
    #[must_use]
    pub fn ranked_nodes(&self) -> Vec<NodeOffer> {
        let mut nodes = self.nodes();
        nodes.sort_by(|a, b| {
            rank(b)
                .total_cmp(&rank(a))
                .then_with(|| a.name.cmp(&b.name))
        });
        nodes
    }

    /// What happens from now on: nodes, containers and volumes that change, processes that end,
    /// warnings.
    ///
    /// ```no_run
    /// # async fn example(location: teu::Location) -> teu::Result<()> {
    /// use futures::StreamExt as _;
    ///
    /// let mut events = location.events()?;
    /// while let Some(event) = events.next().await {
    ///     if let teu::LocationEvent::Container(info) = event {
    ///         println!("{}: {:?}", info.id, info.state);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`] if the session is over.
    pub fn events(&self) -> Result<Events> {
        match self.session.view().events() {
            Some(events) => Ok(Events::new(events)),
            None => Err(Error::Closed(self.session.close_reason())),
        }
    }

    /// How the link fares, live.
    #[must_use]
    pub fn link_state(&self) -> watch::Receiver<LinkState> {
        self.session.link_state().clone()
    }

    /// Describes a container of this image: a name (`nginx` means `nginx:latest`), an id, or `.`
    /// for the newest image of the local engine. Nothing happens until the builder is awaited.
    pub fn spawn(&self, image: impl Into<ImageRef>) -> SpawnBuilder {
        SpawnBuilder::new(self.clone(), image.into())
    }

    /// Spawns all of these at once; results in the same order.
    pub async fn spawn_many(
        &self,
        containers: impl IntoIterator<Item = SpawnBuilder>,
    ) -> Vec<Result<Container>> {
        join_all(containers.into_iter().map(SpawnBuilder::start)).await
    }

    /// The session's containers as last told, in no particular order.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerInfo> {
        self.session.view().containers()
    }

    /// A container of the session by tag, id, unique prefix of an id (4 digits or more) or
    /// `id:tag`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if there is none. Cancel-safe.
    pub async fn find(&self, name: &str) -> Result<Container> {
        const ATTEMPT: &str = "find the container";
        let body = RequestBody::Find(name.to_owned());
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Detail(detail) => self.container(ATTEMPT, detail.info.id),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// The account's images here.
    #[must_use]
    pub fn images(&self) -> Images {
        Images::new(self.session.clone())
    }

    /// The account's sessions here.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.session.clone())
    }

    /// The same location, telling `progress` how far the images are that spawns upload.
    #[must_use]
    pub fn on_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Says goodbye: what belongs to this session (if it is not persistent) or to this attachment
    /// is destroyed. Waits until the location has heard it, at most a second or so. All handles of
    /// the session are dead afterwards.
    pub async fn close(&self) {
        self.session.close().await;
    }

    pub(crate) fn container(&self, attempt: &'static str, id: ContainerId) -> Result<Container> {
        Container::known(self.session.clone(), id).ok_or(Error::Nonsense { attempt })
    }

    pub(crate) const fn handle(&self) -> &SessionHandle {
        &self.session
    }

    pub(crate) fn progress(&self) -> Arc<dyn Progress> {
        Arc::clone(&self.progress)
    }

    /// The node of that id, if it is in the offer.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<NodeOffer> {
        self.session
            .view()
            .offer
            .borrow()
            .nodes
            .iter()
            .find(|node| node.id == id)
            .cloned()
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

/// 0 to 1 for nodes that are up (with a touch of disk to tell equals apart), below 0 for others.
fn rank(node: &NodeOffer) -> f64 {
    let (has, uses) = (&node.capacity, &node.usage);
    let part = |free: u64, of: u64| {
        if of == 0 {
            0.0
        } else {
            free as f64 / of as f64
        }
    };
    let cpu_busy = uses.cpu_used_millis.max(uses.cpu_promised_millis);
    let cpu = part(has.cpu_millis.saturating_sub(cpu_busy), has.cpu_millis);
    let unpromised = has.memory_bytes.saturating_sub(uses.memory_promised_bytes);
    let memory = part(uses.memory_free_bytes.min(unpromised), has.memory_bytes);
    let disk = part(uses.disk_free_bytes, has.disk_bytes);
    match node.state {
        NodeState::Up => cpu.min(memory) + disk / 1000.0,
        NodeState::Lost => -1.0,
    }
}

#[cfg(test)]
mod tests;
