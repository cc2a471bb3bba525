//! From an image's config and a user's wishes to a process: Docker's rules, exactly.
//!
//! Owner: pure. Invariant: same input, same result as moby's `daemon/commit.go` (`merge`),
//! `daemon/create.go` and `container/container_unix.go` (`CreateDaemonEnvironment`), so a command
//! line that works with Docker works here. Next: [`super::user`] turns `user` into numbers and
//! [`ProcessTemplate::set_home`] fills in HOME.

use super::{
    ImageConfig,
    environment::{merge_env, name_of},
    signal::{Signal, UnknownSignal},
};
use crate::message::{ProcessSpec, SpawnSpec};

/// PATH of an image that sets none, as Docker's.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What whoever spawns may override.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces the image's entrypoint *and* drops its command. `Some([])` and `Some([""])` both
    /// mean "no entrypoint".
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; empty: not given.
    pub command: Vec<String>,
    /// `NAME=value` sets, `NAME` alone removes what the image or a default sets.
    pub env: Vec<String>,
    /// An absolute path.
    pub working_dir: Option<String>,
    /// As in [`super::user::resolve`].
    pub user: Option<String>,
    /// As [`Signal`] reads it.
    pub stop_signal: Option<String>,
    /// What HOSTNAME says.
    pub hostname: String,
    /// Has a terminal: TERM=xterm unless set.
    pub tty: bool,
}

impl Overrides {
    /// What a spawn asks for; `hostname` is the one that the container gets.
    #[must_use]
    pub fn of_spawn(spec: &SpawnSpec, hostname: &str) -> Self {
        Self {
            entrypoint: spec.entrypoint.clone(),
            hostname: hostname.to_owned(),
            ..Self::of_process(&spec.process)
        }
    }

    /// What a further process asks for.
    #[must_use]
    pub fn of_process(spec: &ProcessSpec) -> Self {
        Self {
            entrypoint: None,
            command: spec.args.clone().unwrap_or_default(),
            env: spec
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            working_dir: spec.workdir.clone(),
            user: spec.user.clone(),
            stop_signal: None,
            hostname: String::new(),
            tty: spec.tty.is_some(),
        }
    }
}

/// A process, ready but for what only the container's own files can tell (the user's numbers and
/// home).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTemplate {
    /// Never empty; the first is the program.
    pub args: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Absolute, without `.` and `..`.
    pub cwd: String,
    /// As in [`super::user::resolve`]; empty: root.
    pub user: String,
    /// Signal number that asks it to end.
    pub stop_signal: Signal,
}

/// Why no process can be composed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Neither image nor user says what to run.
    #[error("no command: the image names none. Add one after the image's name")]
    NoCommand,
    /// A relative working directory.
    #[error("the working directory `{0}` is not an absolute path; start it with `/`")]
    RelativeWorkingDir(String),
    /// Not a signal.
    #[error(transparent)]
    UnknownSignal(#[from] UnknownSignal),
    /// A NUL byte, or an environment name that is empty.
    #[error("{0} holds a NUL byte or an empty name, which no Linux process can be given")]
    Unrepresentable(&'static str),
}

/// Applies Docker's rules.
pub fn compose(image: &ImageConfig, user: &Overrides) -> Result<ProcessTemplate, ComposeError> {
    let process = ProcessTemplate {
        args: compose_args(image, user)?,
        env: compose_env(image, user),
        cwd: compose_cwd(image, user)?,
        user: non_empty(user.user.as_deref())
            .unwrap_or(&image.user)
            .to_owned(),
        stop_signal: compose_stop_signal(image, user)?,
    };
    process.checked()
}

fn compose_args(image: &ImageConfig, user: &Overrides) -> Result<Vec<String>, ComposeError> {
    let image_words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (mut entrypoint, command) = match &user.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), user.command.clone()),
        None if user.command.is_empty() => {
            (image_words(&image.entrypoint), image_words(&image.cmd))
        }
        None => (image_words(&image.entrypoint), user.command.clone()),
    };
    if entrypoint == [""] {
        entrypoint.clear();
    }
    entrypoint.extend(command);
    if entrypoint.is_empty() {
        Err(ComposeError::NoCommand)
    } else {
        Ok(entrypoint)
    }
}

fn compose_env(image: &ImageConfig, user: &Overrides) -> Vec<String> {
    let mut env = vec![format!("PATH={DEFAULT_PATH}")];
    if !user.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", user.hostname));
    }
    if user.tty {
        env.push("TERM=xterm".to_owned());
    }
    merge_env(&mut env, &image.env);
    merge_env(&mut env, &user.env);
    env
}

fn compose_cwd(image: &ImageConfig, user: &Overrides) -> Result<String, ComposeError> {
    match non_empty(user.working_dir.as_deref()) {
        Some(path) if !path.starts_with('/') => Err(ComposeError::RelativeWorkingDir(
            path.chars().take(256).collect(),
        )),
        Some(path) => Ok(clean_path(path)),
        // Old builders wrote relative ones; Docker takes them from the root.
        None => Ok(clean_path(&image.working_dir)),
    }
}

fn compose_stop_signal(image: &ImageConfig, user: &Overrides) -> Result<Signal, ComposeError> {
    if let Some(text) = non_empty(user.stop_signal.as_deref()) {
        return Ok(text.parse()?);
    }
    // An image's own nonsense is not the user's fault: Docker falls back as well.
    Ok(image.stop_signal.parse().unwrap_or(Signal::TERM))
}

impl ProcessTemplate {
    /// A further process in the same container (`teu exec`): same environment, directory and user
    /// unless overridden. Entrypoint, hostname and stop signal do not apply.
    pub fn exec(&self, wishes: &Overrides) -> Result<Self, ComposeError> {
        if wishes.command.is_empty() {
            return Err(ComposeError::NoCommand);
        }
        let mut env = self.env.clone();
        if wishes.tty && !env.iter().any(|entry| name_of(entry) == "TERM") {
            env.push("TERM=xterm".to_owned());
        }
        merge_env(&mut env, &wishes.env);
        let own = ImageConfig {
            working_dir: self.cwd.clone(),
            ..ImageConfig::default()
        };
        let process = Self {
            args: wishes.command.clone(),
            env,
            cwd: compose_cwd(&own, wishes)?,
            user: non_empty(wishes.user.as_deref())
                .unwrap_or(&self.user)
                .to_owned(),
            stop_signal: self.stop_signal,
        };
        process.checked()
    }

    /// Sets HOME unless image or user did, as runc does.
    pub fn set_home(&mut self, home: &str) {
        let at = self.env.iter().position(|entry| name_of(entry) == "HOME");
        match at {
            Some(index) if self.env[index] == "HOME=" => self.env[index] = format!("HOME={home}"),
            Some(_) => {}
            None => self.env.push(format!("HOME={home}")),
        }
    }

    fn checked(self) -> Result<Self, ComposeError> {
        let nul = |words: &[String]| words.iter().any(|word| word.contains('\0'));
        let unnamed = self.env.iter().any(|entry| name_of(entry).is_empty());
        if nul(&self.args) {
            Err(ComposeError::Unrepresentable("the command"))
        } else if nul(&self.env) || unnamed {
            Err(ComposeError::Unrepresentable("the environment"))
        } else if self.cwd.contains('\0') || self.user.contains('\0') {
            Err(ComposeError::Unrepresentable(
                "the working directory or user",
            ))
        } else {
            Ok(self)
        }
    }
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Lexically, as Go's `filepath.Clean` on a rooted path: `..` at the root stays at the root.
fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn image(entrypoint: Option<&str>, cmd: Option<&str>) -> ImageConfig {
        ImageConfig {
            entrypoint: entrypoint.map(words),
            cmd: cmd.map(words),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn entrypoint_and_command_combine_as_in_docker() {
        // image entrypoint, image cmd, --entrypoint, command; expected arguments
        type Row<'a> = (
            Option<&'a str>,
            Option<&'a str>,
            Option<Vec<String>>,
            &'a str,
            Option<&'a str>,
        );
        let reset = || Some(vec![String::new()]);
        let table: [Row<'_>; 12] = [
            (None, Some("sh"), None, "", Some("sh")),
            (None, Some("sh"), None, "ls -l", Some("ls -l")),
            (
                Some("nginx"),
                Some("-g off"),
                None,
                "",
                Some("nginx -g off"),
            ),
            (Some("nginx"), Some("-g off"), None, "-t", Some("nginx -t")),
            (
                Some("nginx"),
                Some("-g off"),
                Some(words("sh")),
                "",
                Some("sh"),
            ),
            (
                Some("nginx"),
                Some("-g off"),
                Some(words("sh -c")),
                "ls",
                Some("sh -c ls"),
            ),
            (Some("nginx"), Some("-g off"), reset(), "ls", Some("ls")),
            (Some("nginx"), Some("-g off"), reset(), "", None),
            (
                Some("nginx"),
                Some("-g off"),
                Some(vec![]),
                "ls",
                Some("ls"),
            ),
            (Some(""), Some("sh"), None, "", Some("sh")),
            (None, None, None, "", None),
            (None, None, None, "ls", Some("ls")),
        ];
        for (entrypoint, cmd, over, command, expected) in table {
            let wishes = Overrides {
                entrypoint: over,
                command: words(command),
                ..Overrides::default()
            };
            let args = compose(&image(entrypoint, cmd), &wishes).map(|process| process.args);
            let expected = expected.map(words).ok_or(ComposeError::NoCommand);
            assert_eq!(args, expected, "{entrypoint:?} {cmd:?} {wishes:?}");
        }
        let empty_word = ImageConfig {
            entrypoint: Some(vec![String::new()]),
            ..image(None, Some("sh"))
        };
        assert_eq!(
            compose(&empty_word, &Overrides::default()).unwrap().args,
            ["sh"]
        );
    }

    #[test]
    fn environment_layers_defaults_image_and_user() {
        let image = ImageConfig {
            env: words("FOO=image BAR=1 TERM=dumb"),
            ..image(None, Some("sh"))
        };
        let wishes = Overrides {
            env: words("FOO=user BAR NEW=a=b HOME="),
            hostname: "box".into(),
            tty: true,
            ..Overrides::default()
        };
        let mut process = compose(&image, &wishes).unwrap();
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(
            process.env,
            [
                &path,
                "HOSTNAME=box",
                "TERM=dumb",
                "FOO=user",
                "NEW=a=b",
                "HOME="
            ]
        );
        process.set_home("/root");
        assert!(process.env.contains(&"HOME=/root".to_owned()));
        process.set_home("/other");
        assert!(process.env.contains(&"HOME=/root".to_owned()), "set once");
    }

    #[test]
    fn directory_user_and_signal_fall_back_as_in_docker() {
        let of = |dir: &str, over: Option<&str>| {
            let image = ImageConfig {
                working_dir: dir.into(),
                ..image(None, Some("sh"))
            };
            let wishes = Overrides {
                working_dir: over.map(Into::into),
                ..Overrides::default()
            };
            compose(&image, &wishes).map(|process| process.cwd)
        };
        assert_eq!(of("", None).as_deref(), Ok("/"));
        assert_eq!(of("srv/./www//", None).as_deref(), Ok("/srv/www"));
        assert_eq!(of("/srv", Some("/a/../../b")).as_deref(), Ok("/b"));
        assert_eq!(of("/srv", Some("")).as_deref(), Ok("/srv"));
        assert_eq!(
            of("/", Some("rel")),
            Err(ComposeError::RelativeWorkingDir("rel".into()))
        );

        let image = ImageConfig {
            user: "www".into(),
            stop_signal: "nonsense".into(),
            ..image(None, Some("sh"))
        };
        let plain = compose(&image, &Overrides::default()).unwrap();
        assert_eq!((&*plain.user, plain.stop_signal), ("www", Signal::TERM));
        let wishes = |signal: &str| Overrides {
            user: Some("0:0".into()),
            stop_signal: Some(signal.into()),
            ..Overrides::default()
        };
        let other = compose(&image, &wishes("QUIT")).unwrap();
        assert_eq!((&*other.user, other.stop_signal), ("0:0", Signal::QUIT));
        assert_eq!(
            compose(&image, &wishes("SIGFOO")),
            Err(ComposeError::UnknownSignal(
                "SIGFOO".parse::<Signal>().unwrap_err()
            ))
        );
    }

    #[test]
    fn exec_inherits_what_it_does_not_override() {
        let image = ImageConfig {
            env: words("A=1"),
            working_dir: "/srv".into(),
            user: "www".into(),
            ..image(Some("init"), None)
        };
        let main = compose(&image, &Overrides::default()).unwrap();
        let wishes = Overrides {
            command: words("ps"),
            tty: true,
            ..Overrides::default()
        };
        let exec = main.exec(&wishes).unwrap();
        assert_eq!((&*exec.cwd, &*exec.user), ("/srv", "www"));
        assert_eq!(exec.args, ["ps"]);
        assert!(
            exec.env.contains(&"TERM=xterm".to_owned()) && exec.env.contains(&"A=1".to_owned())
        );
        assert_eq!(
            main.exec(&Overrides::default()),
            Err(ComposeError::NoCommand)
        );
    }

    #[test]
    fn what_execve_cannot_carry_is_refused() {
        let wishes = |env: &str, arg: &str| Overrides {
            env: vec![env.into()],
            command: vec![arg.into()],
            ..Overrides::default()
        };
        for (env, arg) in [("A=\0", "sh"), ("=x", "sh"), ("A=1", "s\0h")] {
            let result = compose(&ImageConfig::default(), &wishes(env, arg));
            assert!(
                matches!(result, Err(ComposeError::Unrepresentable(_))),
                "{env:?} {arg:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_composed_is_well_formed(
            env in proptest::collection::vec("[A-C]{1,2}(=[a-z=]{0,3})?", 0..8),
            over in proptest::collection::vec("[A-C]{1,2}(=[a-z=]{0,3})?", 0..8),
            dir in "[a-z./]{0,12}",
            tty: bool,
        ) {
            let image = ImageConfig {
                env,
                working_dir: dir,
                ..image(None, Some("sh"))
            };
            let wishes = Overrides { env: over.clone(), tty, ..Overrides::default() };
            let process = compose(&image, &wishes).unwrap();
            let mut names: Vec<&str> = process.env.iter().map(|entry| name_of(entry)).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            prop_assert_eq!(names.len(), count, "each name once");
            prop_assert!(process.env.iter().all(|entry| entry.contains('=')));
            prop_assert!(process.cwd.starts_with('/'));
            prop_assert!(!process.cwd.split('/').any(|part| part == ".." || part == "."));
            if let Some(last) = over.last() {
                let present = process.env.contains(last);
                let named = process.env.iter().any(|entry| name_of(entry) == name_of(last));
                let as_wished = if last.contains('=') { present } else { !named };
                prop_assert!(as_wished);
            }
        }
    }
}
