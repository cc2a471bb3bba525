//! A container to be: what it runs, with what, within which bounds.

mod pre_boot;

pub use pre_boot::PreBoot;

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use teu_protocol::{
    ids::{Digest, NodeId},
    message::{
        ImageInfo, Lifetime, LogStart, ProcessSpec, ReplyBody, RequestBody, ResourceLimits,
        SpawnSpec, TermSize, VolumeMount,
    },
};

use crate::{
    Container, Location, Process, Progress, Volume,
    chosen_tag::ChosenTag,
    error::{Error, Result},
    session::{Claim, Patience},
};

/// The location answers when the first process executes; a node that has to fetch a large image
/// first takes its time.
const SPAWN_WORK: Duration = Duration::from_secs(600);

const ATTEMPT: &str = "spawn the container";

/// Which image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// By name, id or unique prefix of an id, or `.` for the newest of the local engine.
    Name(String),
    /// An image of the catalogue, by its id; the text is for people.
    Id(Digest, String),
}

impl From<&str> for ImageRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for ImageRef {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<&String> for ImageRef {
    fn from(name: &String) -> Self {
        Self::Name(name.clone())
    }
}

impl From<Digest> for ImageRef {
    fn from(id: Digest) -> Self {
        Self::Id(id, id.short())
    }
}

impl From<&ImageInfo> for ImageRef {
    fn from(image: &ImageInfo) -> Self {
        Self::Id(
            image.id,
            image
                .names
                .first()
                .cloned()
                .unwrap_or_else(|| image.id.short()),
        )
    }
}

/// Describes a container; made by [`Location::spawn`]. Await it (or [`SpawnBuilder::start`]) to
/// spawn.
#[derive(Clone)]
#[must_use = "nothing is spawned until this is awaited"]
pub struct SpawnBuilder {
    location: Location,
    image: ImageRef,
    process: ProcessSpec,
    entrypoint: Option<Vec<String>>,
    node: Option<NodeId>,
    tag: ChosenTag,
    labels: BTreeMap<String, String>,
    files: Vec<PreBoot>,
    volumes: Vec<VolumeMount>,
    limits: ResourceLimits,
    asleep: bool,
    lifetime: Lifetime,
    hostname: Option<String>,
    init: bool,
    progress: Arc<dyn Progress>,
}

impl SpawnBuilder {
    pub(crate) fn new(location: Location, image: ImageRef) -> Self {
        let progress = location.progress();
        Self {
            location,
            image,
            process: ProcessSpec::default(),
            entrypoint: None,
            node: None,
            tag: ChosenTag::default(),
            labels: BTreeMap::new(),
            files: Vec::new(),
            volumes: Vec::new(),
            limits: ResourceLimits::default(),
            asleep: false,
            lifetime: Lifetime::Session,
            hostname: None,
            init: false,
            progress,
        }
    }

    /// Replaces the image's command (Cmd): the arguments of its entrypoint, or a program with its
    /// arguments if it has none.
    pub fn command(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.process.args = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Replaces the image's entrypoint; an empty one removes it.
    pub fn entrypoint(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a variable of the environment, on top of the image's. Values are never shown.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.process.env.push((name.into(), value.into()));
        self
    }

    /// Runs as this `user`, `uid`, `user:group` or `uid:gid` instead of the image's.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.process.user = Some(user.into());
        self
    }

    /// Starts in this directory instead of the image's.
    pub fn workdir(mut self, directory: impl Into<String>) -> Self {
        self.process.workdir = Some(directory.into());
        self
    }

    /// Gives the first process a terminal of this size.
    pub fn tty(mut self, size: TermSize) -> Self {
        self.process.tty = Some(size);
        self
    }

    /// Keeps standard input open for [`Container::attach`]; else it reads as empty.
    pub fn stdin(mut self, open: bool) -> Self {
        self.process.stdin = open;
        self
    }

    /// Names the container; unique within the account while it exists. Text that cannot be a name makes
    /// the spawn fail with [`Error::Tag`].
    pub fn tag(mut self, tag: impl AsRef<str>) -> Self {
        self.tag = ChosenTag::parse(tag);
        self
    }

    /// Attaches a label, for programs that list containers.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Writes a file before anything runs: text or bytes at an absolute path, mode 0644, owned by root;
    /// directories are made as needed. All files of a container together have at most 4 MiB. For other
    /// owners and modes, and for secrets, see [`SpawnBuilder::pre_boot`].
    ///
    /// ```no_run
    /// # async fn example(location: teu::Location) -> teu::Result<()> {
    /// let page = "<h1>Hello</h1>";
    /// location
    ///     .spawn("nginx")
    ///     .file("/usr/share/nginx/html/index.html", page)
    ///     .pre_boot(teu::PreBoot::text("/run/key", "sesame").mode(0o600).secret())
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn file(self, path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        self.pre_boot(PreBoot::bytes(path, content))
    }

    /// As [`SpawnBuilder::file`], with an owner, a mode, or as a secret.
    pub fn pre_boot(mut self, file: PreBoot) -> Self {
        self.files.push(file);
        self
    }

    /// Mounts a volume at this absolute path; directories are made as needed. The container then
    /// runs on the volume's node. At most 32; those of one container lie on one node. The first time that a
    /// new volume is mounted, its root takes owner and mode of the directory in the image.
    ///
    /// ```no_run
    /// # async fn example(location: teu::Location) -> teu::Result<()> {
    /// let books = location.volume("books").await?;
    /// let site = location.volume("site").await?;
    /// let web = location
    ///     .spawn("nginx")
    ///     .volume_read_only(&site, "/usr/share/nginx/html")
    ///     .volume(&books, "/data")
    ///     .await?;
    /// // On the same node, without seeing its files:
    /// let cache = location.spawn("redis").near(&books).await?;
    /// # let _ = (web, cache);
    /// # Ok(()) }
    /// ```
    pub fn volume(self, volume: &Volume, path: impl Into<String>) -> Self {
        self.mount(volume, path.into(), false)
    }

    /// As [`SpawnBuilder::volume`], but the container may not change it.
    pub fn volume_read_only(self, volume: &Volume, path: impl Into<String>) -> Self {
        self.mount(volume, path.into(), true)
    }

    fn mount(mut self, volume: &Volume, path: String, read_only: bool) -> Self {
        self.volumes.push(VolumeMount {
            volume: volume.id(),
            path,
            read_only,
        });
        self
    }

    /// Runs on the node where this volume lies, without mounting it.
    pub const fn near(self, volume: &Volume) -> Self {
        self.node(volume.node())
    }

    /// The most memory, in bytes; beyond, the kernel kills the container. At least 4 MiB.
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory_bytes = Some(bytes);
        self
    }

    /// The most CPU, in cores, such as 0.5. At least 0.01.
    pub fn cpus(mut self, cores: f64) -> Self {
        // Saturates: what makes no sense is refused by the location.
        self.limits.cpu_millis = Some((cores * 1000.0).round() as u64);
        self
    }

    /// The most processes and threads. Default: 1,024.
    pub const fn pids(mut self, count: u32) -> Self {
        self.limits.pids = Some(count);
        self
    }

    /// Has the node kill the container when it has run for so long, counted from its start; its cause
    /// of death is then [`Cause::TimedOut`](crate::Cause::TimedOut), and its output so far stays
    /// readable. Holds even if this program ends. 1 ms to 366 days.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.process.timeout_ms = Some(crate::process::whole_ms(timeout));
        self
    }

    /// Puts an init of the node's in front of the program, as the container's first process: it passes
    /// signals on (a first process ignores those that it does not handle; behind an init the program
    /// does not) and reaps processes that nobody waits for. The image needs nothing for it. An end by a
    /// signal is then told as exit code 128 + n.
    pub const fn init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }

    /// The most bytes that it may write into its root file system, at least 16 MiB. Default: 10 GiB. Volumes are not
    /// counted: they have quotas.
    pub const fn storage(mut self, bytes: u64) -> Self {
        self.limits.storage_bytes = Some(bytes);
        self
    }

    /// Makes it ready but does not start it: [`Container::wake`] does.
    pub const fn asleep(mut self) -> Self {
        self.asleep = true;
        self
    }

    /// Until when it exists; default: as long as the session.
    pub const fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Runs on this node; default: the location chooses.
    pub const fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// The host name inside; default: the tag, or the short id.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Tells `progress` if the image has to be uploaded first.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Spawns: ready when the first process is executing (or the container is asleep).
    ///
    /// Not cancel-safe: dropped midway, the container may be spawned all the same; it then belongs
    /// to the session, shows in [`Location::containers`] and goes with the session.
    ///
    /// # Errors
    /// [`Error::NoImage`] if nobody has the image; [`Error::Refused`] with `CommandNotFound`,
    /// `CommandNotExecutable`, `NoCapacity`, `TagTaken`, `BadImage`, `WrongPlatform`, ….
    pub async fn start(self) -> Result<Container> {
        let (image, image_name) = match &self.image {
            ImageRef::Id(id, name) => (*id, name.clone()),
            ImageRef::Name(name) => {
                let progress = Arc::clone(&self.progress);
                let image = Box::pin(self.location.images().ensure(name, progress)).await?;
                (image.id, shown_name(name, &image))
            }
        };
        let bulk: Vec<Bytes> = self.files.iter().map(PreBoot::content).collect();
        let spec = SpawnSpec {
            image,
            node: self.node,
            tag: self.tag.check()?,
            labels: self.labels,
            process: self.process,
            entrypoint: self.entrypoint,
            files: pre_boot::described(&self.files)?,
            volumes: self.volumes,
            limits: self.limits,
            asleep: self.asleep,
            lifetime: self.lifetime,
            hostname: self.hostname,
            image_name,
            init: self.init,
        };
        let body = RequestBody::Spawn(Box::new(spec));
        let session = self.location.handle();
        let patience = Patience::with_work(SPAWN_WORK);
        match session
            .request_with_bulk(ATTEMPT, body, bulk, patience)
            .await?
        {
            ReplyBody::Spawned(info) => self.location.container(ATTEMPT, info.id),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Spawns, attached to the first process from its first byte of output on: it waits for this reader,
    /// so nothing is lost however slow that is. ([`Container::attach`] later gives what is still kept by
    /// then.) It must be read, or the process stops when it has written some MiB; dropping it lets the
    /// process go on.
    ///
    /// Not cancel-safe, as [`SpawnBuilder::start`].
    ///
    /// # Errors
    /// As [`SpawnBuilder::start`]; the container is destroyed if it cannot be attached to.
    pub async fn start_attached(mut self) -> Result<(Container, Process)> {
        let reader = Claim::fresh_reader();
        self.process.reader = Some(reader);
        let tty = self.process.tty.is_some();
        let container = self.start().await?;
        let (whose, from) = (container.clone(), LogStart::Cursor(0));
        match Process::attach(whose, None, from, true, tty, Some(reader)).await {
            Ok(process) => Ok((container, process)),
            Err(error) => {
                // Nobody else would let a process go on that waits for this reader.
                let _ = container.destroy().await;
                Err(error)
            }
        }
    }
}

impl IntoFuture for SpawnBuilder {
    type Output = Result<Container>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl fmt::Debug for SpawnBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither environment nor files: they may hold secrets.
        f.debug_struct("SpawnBuilder")
            .field("image", &self.image)
            .field("tag", &self.tag.known())
            .finish_non_exhaustive()
    }
}

/// `.` says nothing in a list; the image's own name does.
fn shown_name(asked: &str, image: &ImageInfo) -> String {
    let own = || {
        image
            .names
            .first()
            .cloned()
            .unwrap_or_else(|| image.id.short())
    };
    if asked == "." {
        own()
    } else {
        asked.to_owned()
    }
}
