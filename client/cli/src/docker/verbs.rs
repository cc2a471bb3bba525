//! Docker's verbs that TEU does not have, and what to use.

/// TEU's verbs that have verbs of their own.
pub(super) const GROUPS: [&str; 6] = ["image", "volume", "session", "account", "node", "location"];

/// A verb, with its group, and what follows "TEU has no X; ".
pub(super) const VERBS: &[(&str, &str)] = &[
    (
        "attach",
        "use `teu logs -f CONTAINER` to watch it, or `teu exec -it CONTAINER sh` for a terminal in it",
    ),
    (
        "bake",
        "build with `docker buildx bake`, then `teu image push NAME`",
    ),
    (
        "build",
        "build with `docker build` or `podman build`, then `teu run .` or `teu image push NAME`",
    ),
    (
        "builder",
        "build with `docker build` or `podman build`, then `teu image push NAME`",
    ),
    (
        "buildx",
        "build with `docker buildx build --load`, then `teu image push NAME`",
    ),
    (
        "checkpoint",
        "use a volume's snapshots for its files: `teu volume snapshot VOLUME NAME`",
    ),
    (
        "commit",
        "write an image with your builder's tools, then `teu image push NAME`; files that should stay belong on a volume: `teu volume create NAME`",
    ),
    (
        "compose",
        "use one `teu run -d --name NAME` for each service, and `teu allow NAME --from OTHER` for who may connect",
    ),
    ("config", "use `teu run --file SRC:DEST`"),
    (
        "container",
        "use the verbs without it: `teu run`, `teu ps`, `teu logs`, `teu stop`, `teu rm`, `teu inspect`",
    ),
    (
        "context",
        "use `teu location ls` and `teu location use NAME`",
    ),
    (
        "cp",
        "use `teu run --file SRC:DEST` before the start, `teu exec -i CONTAINER sh` with `cat >FILE` for a file into it, and `teu exec CONTAINER cat FILE` for one out of it",
    ),
    (
        "create",
        "use `teu run --sleep --name NAME IMAGE`, then `teu wake NAME`",
    ),
    ("debug", "use `teu exec -it CONTAINER sh`"),
    ("diff", "use `teu exec CONTAINER find / -xdev -newer FILE`"),
    (
        "events",
        "use `teu resources --watch` for nodes, or the SDK's `Location::events` in a program",
    ),
    (
        "export",
        "use `teu exec CONTAINER tar -cf - DIRECTORY`; of a volume: `teu volume export VOLUME SNAPSHOT FILE`",
    ),
    (
        "history",
        "ask the engine that built the image: `docker history`",
    ),
    (
        "image build",
        "build with `docker build` or `podman build`, then `teu image push NAME`",
    ),
    (
        "image history",
        "ask the engine that built the image: `docker image history`",
    ),
    ("image inspect", "use `teu images --format json`"),
    ("image load", "use `teu image import FILE`"),
    ("image prune", "use `teu image rm NAME`"),
    (
        "image pull",
        "pull with `docker pull`, then `teu image push NAME` (or `skopeo copy docker://NAME oci-archive:FILE`, then `teu image import FILE`)",
    ),
    (
        "image save",
        "keep the file that it was imported from, or ask the engine that built it: `docker image save`",
    ),
    (
        "image tag",
        "name it in the engine (`docker tag`), then `teu image push NAME`",
    ),
    (
        "import",
        "use `teu image import FILE` (a docker-archive or an OCI layout)",
    ),
    ("info", "use `teu doctor` and `teu resources`"),
    (
        "init",
        "write the Dockerfile by hand; build with `docker build`, then `teu run .`",
    ),
    ("load", "use `teu image import FILE`"),
    (
        "login",
        "use `teu account show`: an administrator enrols that key; registries are your engine's: `docker login`",
    ),
    (
        "logout",
        "use `teu location rm NAME`; the key stays in ~/.teu",
    ),
    (
        "manifest",
        "use your engine's tools; TEU takes the platform of the node from a multi-platform image",
    ),
    ("model", "use `teu run` with an image that has the model"),
    (
        "network",
        "use `teu allow TO --from CONTAINER`: containers cannot reach each other unless they are allowed to",
    ),
    (
        "node demote",
        "use one master a location: nodes are not managers",
    ),
    ("node inspect", "use `teu resources --format json`"),
    ("node ls", "use `teu resources`"),
    (
        "node promote",
        "use one master a location: nodes are not managers",
    ),
    (
        "node ps",
        "use `teu ps`, whose column NODE tells where each runs",
    ),
    (
        "node rm",
        "stop its `teu-node` and leave it; what it ran is told as lost",
    ),
    (
        "node update",
        "stop its `teu-node` to take it out of service",
    ),
    (
        "pause",
        "use `teu kill --signal STOP CONTAINER`, and CONT to go on",
    ),
    (
        "plugin",
        "use what is built in: volumes on btrfs and ZFS, one network with a firewall",
    ),
    ("port", "use `teu ps`, whose column PORTS tells them"),
    (
        "pull",
        "pull with `docker pull`, then `teu run` takes it from the engine (or `teu image push NAME`)",
    ),
    (
        "push",
        "use `teu image push NAME` to send it to the location; to a registry: `docker push`",
    ),
    (
        "rename",
        "give the name at the start: `teu run --name NAME IMAGE`",
    ),
    (
        "restart",
        "use `teu rm --force CONTAINER` and `teu run`; a container starts once",
    ),
    ("rmi", "use `teu image rm NAME`"),
    (
        "save",
        "keep the file that it was imported from, or ask the engine that built it: `docker save`",
    ),
    ("sbom", "ask the tools of the engine that built the image"),
    ("scout", "ask the tools of the engine that built the image"),
    ("search", "search the registry with `docker search`"),
    ("secret", "use `teu run --secret SRC:DEST`"),
    (
        "service",
        "use `teu run -d --name NAME IMAGE`, once for each",
    ),
    (
        "stack",
        "use `teu run -d --name NAME IMAGE`, once for each; `teu session end NAME` ends all of a session",
    ),
    (
        "start",
        "use `teu wake CONTAINER` if it was made with `teu run --sleep`; one that has ended is not started again",
    ),
    (
        "stats",
        "use `teu resources --watch` for nodes, `teu exec CONTAINER top` for one container",
    ),
    (
        "swarm",
        "use `teu node enrol KEY --name NAME`: a location is one master and many nodes",
    ),
    (
        "system",
        "use `teu doctor` for its state, `teu resources` for what it has",
    ),
    (
        "tag",
        "name it in the engine (`docker tag`), then `teu image push NAME`",
    ),
    ("top", "use `teu exec CONTAINER ps`"),
    (
        "trust",
        "use digests: an image's id is that of its config, and layers are checked against theirs",
    ),
    ("unpause", "use `teu kill --signal CONT CONTAINER`"),
    (
        "update",
        "give bounds at the start: `teu run --memory 1g --cpus 2 IMAGE`",
    ),
    ("version", "use `teu --version`; the master's: `teu doctor`"),
    ("volume prune", "use `teu volume rm VOLUME`"),
    (
        "volume update",
        "use `teu volume quota VOLUME BYTES` or `teu volume schedule VOLUME`",
    ),
    (
        "wait",
        "use `teu logs -f CONTAINER` to wait for its end, then `teu inspect CONTAINER` for its exit code",
    ),
    ("volumes", "use `teu volume ls`"),
];
