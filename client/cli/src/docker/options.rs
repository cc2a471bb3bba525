//! Docker's options that TEU does not have, and what to use.

/// The verbs that it is an option of (none: of any), its spellings, and what follows "TEU has no X; ".
type Answer = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
);

const RUN: &[&str] = &["run"];
const RUN_EXEC: &[&str] = &["run", "exec"];
const LISTS: &[&str] = &["ps", "images", "volume ls", "image ls", "inspect"];

/// The first that fits counts.
pub(super) const OPTIONS: &[Answer] = &[
    (
        RUN,
        &["--add-host"],
        "write the file: `teu run --file HOSTS:/etc/hosts`",
    ),
    (RUN, &["--annotation"], "use `teu run --label KEY=VALUE`"),
    (
        RUN,
        &["-a", "--attach"],
        "output is attached unless -d is given; use -i for input",
    ),
    (
        RUN,
        &[
            "--blkio-weight",
            "--blkio-weight-device",
            "--device-read-bps",
            "--device-read-iops",
            "--device-write-bps",
            "--device-write-iops",
            "--io-maxbandwidth",
            "--io-maxiops",
        ],
        "containers share the disk evenly; bound a volume's size with `teu volume quota`",
    ),
    (
        RUN,
        &["--cap-add", "--privileged"],
        "containers have Docker's usual capabilities in a user namespace of their own, and get no more",
    ),
    (
        RUN_EXEC,
        &["--privileged"],
        "processes get no more than their container has",
    ),
    (
        RUN,
        &["--cap-drop", "--security-opt"],
        "every container has a seccomp filter and no_new_privs; use `teu run --user USER` for a program without root's capabilities",
    ),
    (
        RUN,
        &["--cgroup-parent", "--cgroupns"],
        "every container has a control group and a view of its own",
    ),
    (
        RUN,
        &["--cidfile"],
        "use the output: `teu run -d` prints the id",
    ),
    (
        RUN,
        &[
            "--cpu-count",
            "--cpu-percent",
            "--cpu-period",
            "--cpu-quota",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "-c",
            "--cpu-shares",
            "--cpuset-cpus",
            "--cpuset-mems",
        ],
        "use `teu run --cpus CORES`, such as 0.5",
    ),
    (
        RUN_EXEC,
        &["--detach-keys"],
        "use a container of `teu run -d` and `teu exec -it`: leaving the shell leaves the container",
    ),
    (
        RUN,
        &["--device", "--device-cgroup-rule", "--gpus"],
        "containers get no devices of the machine",
    ),
    (
        RUN,
        &["--disable-content-trust"],
        "images are checked against their digests, always",
    ),
    (
        RUN,
        &["--dns", "--dns-option", "--dns-opt", "--dns-search"],
        "containers use the location's resolver; write the file for another: `teu run --file RESOLV:/etc/resolv.conf`",
    ),
    (RUN, &["--domainname"], "use `teu run --hostname NAME`"),
    (
        RUN_EXEC,
        &["--env-file"],
        "use one `-e NAME=VALUE` for each, or `teu run --file SRC:DEST` and have the program read it",
    ),
    (
        RUN,
        &["--expose"],
        "use `teu run --publish PORT`, or `teu allow` for other containers: every port can be connected to",
    ),
    (RUN, &["--group-add"], "use `teu run --user USER:GROUP`"),
    (
        RUN,
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-start-interval",
            "--health-start-period",
            "--health-timeout",
            "--no-healthcheck",
        ],
        "have the SDK wait for it: `container.wait_tcp(port)`; use `teu exec CONTAINER COMMAND` to check by hand",
    ),
    (
        RUN,
        &["-h"],
        "-h is for help; use `teu run --hostname NAME`",
    ),
    (RUN, &["--init"], "have the image start `tini` or the like"),
    (
        RUN,
        &["--ip", "--ip6", "--link-local-ip", "--mac-address"],
        "the location chooses addresses; `teu ps` tells them",
    ),
    (
        RUN,
        &["--ipc", "--pid", "--uts", "--userns"],
        "every container has namespaces of its own",
    ),
    (
        RUN,
        &["--isolation", "--runtime"],
        "there is one way to run containers: Linux namespaces, control groups and seccomp",
    ),
    (
        RUN,
        &[
            "--kernel-memory",
            "--memory-reservation",
            "--memory-swap",
            "--memory-swappiness",
        ],
        "use `teu run --memory BYTES`",
    ),
    (
        RUN,
        &["--label-file"],
        "use one `teu run --label KEY=VALUE` for each",
    ),
    (
        RUN,
        &[
            "--link",
            "--network",
            "--net",
            "--network-alias",
            "--net-alias",
        ],
        "every container has an address of its own and the way out; use `teu allow TO --from CONTAINER` for connections between them",
    ),
    (
        RUN,
        &["--log-driver", "--log-opt"],
        "output is kept by the node; use `teu logs CONTAINER`",
    ),
    (
        RUN,
        &["--mount", "--volumes-from", "--volume-driver"],
        "use `teu run -v VOLUME:PATH` with a volume of `teu volume create`, or `teu run --file SRC:DEST`",
    ),
    (
        RUN,
        &["--oom-kill-disable", "--oom-score-adj"],
        "use `teu run --memory BYTES` to choose when it is killed",
    ),
    (RUN, &["--pids-limit"], "use `teu run --pids COUNT`"),
    (
        RUN,
        &["--platform"],
        "the node's platform is taken from a multi-platform image; name a node: `teu run --node NODE`",
    ),
    (
        RUN,
        &["-P", "--publish-all"],
        "use one `teu run --publish PORT` for each",
    ),
    (
        RUN,
        &["--pull"],
        "images come from the local engine: `docker pull`, then `teu image push NAME` for a newer one",
    ),
    (
        RUN,
        &["-q", "--quiet"],
        "progress is shown on terminals only",
    ),
    (
        RUN,
        &["--read-only"],
        "a container's files are its own, and go with it",
    ),
    (
        RUN,
        &["--restart"],
        "a container starts once; have the image start a supervisor, or your program spawn it again with the SDK",
    ),
    (
        RUN,
        &["--shm-size", "--tmpfs"],
        "use `teu run --memory BYTES`: /dev/shm and /tmp count as the container's memory or files",
    ),
    (
        RUN,
        &["--sig-proxy"],
        "signals are always passed on; the second kills",
    ),
    (
        RUN,
        &["--stop-signal", "--stop-timeout"],
        "use `teu stop --signal SIGNAL --time SECONDS CONTAINER`",
    ),
    (RUN, &["--storage-opt"], "use `teu run --storage BYTES`"),
    (
        RUN,
        &["--sysctl", "--ulimit"],
        "containers have the node's values; bounds are `teu run --memory`, `teu run --cpus` and `teu run --pids`",
    ),
    (
        RUN,
        &["--use-api-socket"],
        "use the SDK, with an account of its own",
    ),
    (
        &["rm"],
        &["-v", "--volumes", "-l", "--link"],
        "volumes outlive containers; `teu volume rm VOLUME` destroys one",
    ),
    (
        &["ps"],
        &["-s", "--size"],
        "use `teu exec CONTAINER du -xsh /`",
    ),
    (
        &["logs"],
        &["--details"],
        "use `teu inspect CONTAINER` for its labels",
    ),
    (
        &["logs"],
        &["--since", "--until", "-t", "--timestamps"],
        "output is kept as the program wrote it, without times; use `teu logs --tail LINES`",
    ),
    (&["stop"], &["--timeout"], "use `teu stop --time SECONDS`"),
    (
        &["volume rm"],
        &["-f", "--force"],
        "use `teu volume rm --yes`; one that is mounted is not destroyed",
    ),
    (
        &["volume create"],
        &[
            "-d",
            "--driver",
            "-o",
            "--opt",
            "--availability",
            "--group",
            "--limit-bytes",
            "--required-bytes",
            "--scope",
            "--secret",
            "--sharing",
            "--topology-preferred",
            "--topology-required",
            "--type",
        ],
        "volumes lie in the node's pool; use `teu volume create --node NODE` to choose the node, `teu volume create --quota BYTES` for a bound",
    ),
    (
        &["volume create"],
        &["--name"],
        "the name is an argument: `teu volume create NAME`",
    ),
    (
        LISTS,
        &["-f", "--filter", "--type", "--cluster"],
        "use `--format json` and a program such as `jq`",
    ),
    (
        LISTS,
        &[
            "-a",
            "--all",
            "--digests",
            "--no-trunc",
            "--tree",
            "-n",
            "--last",
            "-l",
            "--latest",
            "-s",
            "--size",
        ],
        "use `--format json`, which has all, in full",
    ),
];
