//! What people type who know Docker, and TEU does not have: "TEU has no X; use Y".
//!
//! Invariant (tested against Docker 28's lists): each of its verbs, and each option of its `run`, `exec`,
//! `ps`, `logs`, `rm`, `images`, `inspect` and `volume`, is TEU's too or has an answer here. What TEU gets later needs no
//! change here: the tables are asked only for what the command line does not know.

mod options;
mod verbs;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to say instead of a guess, if Docker's users mean something by it.
pub(crate) fn answer(error: &clap::Error, arguments: &[String]) -> Option<String> {
    let path = verb_path(arguments);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = context(error, ContextKind::InvalidSubcommand)?;
            let groups: Vec<&str> = path.split(' ').take_while(|word| *word != wrong).collect();
            let whole = [&groups[..], &[wrong][..]].concat().join(" ");
            let whole = whole.trim();
            Some(told(whole, lookup(verbs::VERBS, whole)?))
        }
        ErrorKind::UnknownArgument => {
            let wrong = context(error, ContextKind::InvalidArg)?;
            let option = wrong.split_once('=').map_or(wrong, |(option, _)| option);
            Some(told(option, option_of(&path, option)?))
        }
        _ => None,
    }
}

/// `TEU has no X; use Y`, or, where there is nothing to use, why not.
fn told(what: &str, instead: &str) -> String {
    format!("TEU has no `{what}`; {instead}")
}

fn option_of(path: &str, option: &str) -> Option<&'static str> {
    options::OPTIONS
        .iter()
        .find(|(verbs, known, _)| {
            let on = verbs.is_empty() || verbs.contains(&path);
            on && known.contains(&option)
        })
        .map(|(_, _, instead)| *instead)
}

fn lookup(table: &[(&str, &'static str)], wanted: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(known, _)| *known == wanted)
        .map(|(_, instead)| *instead)
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// The verb, with its group: `run`, `volume create`. Options of every command may stand before it.
fn verb_path(arguments: &[String]) -> String {
    let mut path: Vec<&str> = Vec::new();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        if matches!(word.as_str(), "--home" | "--location" | "--session") {
            words.next();
        } else if word.starts_with('-') {
            if !path.is_empty() {
                break;
            }
        } else {
            path.push(word);
            if path.len() == 2 || !verbs::GROUPS.contains(&word.as_str()) {
                break;
            }
        }
    }
    path.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::args::Cli;

    /// `docker --help` of Docker 28, its plugins too.
    const DOCKER_VERBS: &str = "run exec ps build bake pull push images login logout search version info \
        builder buildx checkpoint compose container context image manifest network plugin system trust volume \
        config node secret service stack swarm attach commit cp create diff events export history import \
        inspect kill load logs pause port rename restart rm rmi save start stats stop tag top unpause update \
        wait debug init model scout sbom";

    /// Of its groups that TEU has too.
    const DOCKER_GROUPED: &[(&str, &str)] = &[
        (
            "image",
            "build history import inspect load ls prune pull push rm save tag",
        ),
        ("volume", "create inspect ls prune rm update"),
        ("node", "demote inspect ls promote ps rm update"),
    ];

    const DOCKER_RUN: &str = "--add-host --annotation -a --attach --blkio-weight --blkio-weight-device \
        --cap-add --cap-drop --cgroup-parent --cgroupns --cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period \
        --cpu-rt-runtime -c --cpu-shares --cpus --cpuset-cpus --cpuset-mems -d --detach --detach-keys --device --device-cgroup-rule \
        --device-read-bps --device-read-iops --device-write-bps --device-write-iops --disable-content-trust --dns --dns-option \
        --dns-opt --dns-search --domainname --entrypoint -e --env --env-file --expose --gpus --group-add --health-cmd --health-interval \
        --health-retries --health-start-interval --health-start-period --health-timeout --help -h --hostname --init -i --interactive \
        --io-maxbandwidth --io-maxiops --ip --ip6 --ipc --isolation --kernel-memory -l --label --label-file --link --link-local-ip \
        --log-driver --log-opt --mac-address -m --memory --memory-reservation --memory-swap --memory-swappiness --mount --name \
        --network --net --network-alias --net-alias --no-healthcheck --oom-kill-disable --oom-score-adj --pid --pids-limit --platform \
        --privileged -p --publish -P --publish-all --pull -q --quiet --read-only --restart --rm --runtime --security-opt --shm-size \
        --sig-proxy --stop-signal --stop-timeout --storage-opt --sysctl --tmpfs -t --tty --ulimit --use-api-socket -u --user --userns \
        --uts -v --volume --volume-driver --volumes-from -w --workdir";

    const DOCKER_OTHERS: &[(&str, &str)] = &[
        (
            "exec",
            "-d --detach --detach-keys -e --env --env-file -i --interactive --privileged -t --tty -u --user -w --workdir",
        ),
        (
            "ps",
            "-a --all -f --filter --format -n --last -l --latest --no-trunc -q --quiet -s --size",
        ),
        (
            "logs",
            "--details -f --follow --since -n --tail -t --timestamps --until",
        ),
        ("rm", "-f --force -l --link -v --volumes"),
        ("stop", "-s --signal -t --time --timeout"),
        ("kill", "-s --signal"),
        (
            "images",
            "-a --all --digests -f --filter --format --no-trunc -q --quiet --tree",
        ),
        ("inspect", "-f --format -s --size --type"),
        (
            "volume create",
            "--availability -d --driver --group --label --limit-bytes --name -o --opt --required-bytes --scope --secret --sharing --topology-preferred --topology-required --type",
        ),
        ("volume ls", "--cluster -f --filter --format -q --quiet"),
        ("volume rm", "-f --force"),
    ];

    /// What the command line says to it: nothing if it is known.
    fn refused(line: &str) -> Option<(clap::Error, Vec<String>)> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = Cli::try_parse_from(&arguments).err()?;
        let unknown = match error.kind() {
            ErrorKind::InvalidSubcommand => true,
            // Else it is the value, of an option that takes none.
            ErrorKind::UnknownArgument => {
                context(&error, ContextKind::InvalidArg).is_some_and(|arg| arg.starts_with('-'))
            }
            _ => false,
        };
        unknown.then_some((error, arguments))
    }

    fn is_answered(line: &str) -> bool {
        refused(line).is_none_or(|(error, arguments)| answer(&error, &arguments).is_some())
    }

    #[test]
    fn every_verb_of_docker_is_known_or_answered() {
        for verb in DOCKER_VERBS.split_whitespace() {
            assert!(is_answered(&format!("teu {verb}")), "{verb}");
        }
        for (group, verbs) in DOCKER_GROUPED {
            for verb in verbs.split_whitespace() {
                assert!(
                    is_answered(&format!("teu {group} {verb}")),
                    "{group} {verb}"
                );
            }
        }
    }

    #[test]
    fn every_option_of_docker_is_known_or_answered() {
        let all = [&[("run", DOCKER_RUN)][..], DOCKER_OTHERS].concat();
        for (verb, options) in all {
            for option in options.split_whitespace() {
                assert!(
                    is_answered(&format!("teu {verb} {option} x")),
                    "{verb} {option}"
                );
                let with_value = format!("teu {verb} {option}=x y");
                assert!(
                    !option.starts_with("--") || is_answered(&with_value),
                    "{with_value}"
                );
            }
        }
    }

    #[test]
    fn answers_name_commands_and_options_that_there_are() {
        let mut root = Cli::command();
        root.build();
        let all = verbs::VERBS.iter().map(|(_, instead)| *instead);
        let all = all.chain(options::OPTIONS.iter().map(|(_, _, instead)| *instead));
        for text in all {
            let quoted = text.split('`').skip(1).step_by(2);
            for line in quoted.filter_map(|line| line.strip_prefix("teu ")) {
                let mut command = &root;
                for word in line.split_whitespace() {
                    if let Some(option) = word.strip_prefix("--") {
                        let mut known = command.get_arguments();
                        let found = known.any(|arg| arg.get_long() == Some(option));
                        assert!(found, "`teu {line}`: there is no {word}");
                    } else if let Some(next) = command.find_subcommand(word) {
                        command = next;
                    } else {
                        let is_verb = command.get_name() != root.get_name();
                        assert!(is_verb, "`teu {line}`: there is no verb {word}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_answer_says_what_to_use() {
        let said = |line: &str| {
            let (error, arguments) = refused(line).unwrap();
            answer(&error, &arguments).unwrap()
        };
        assert!(said("teu run --restart always busybox").starts_with("TEU has no `--restart`; "));
        assert!(said("teu run --gpus=all busybox").starts_with("TEU has no `--gpus`; "));
        assert!(said("teu --session s cp a b").starts_with("TEU has no `cp`; "));
        assert!(said("teu image build .").starts_with("TEU has no `image build`; "));
        let (error, arguments) = refused("teu psx").unwrap();
        assert_eq!(answer(&error, &arguments), None);
    }
}
