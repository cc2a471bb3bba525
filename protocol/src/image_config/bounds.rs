//! How much an image's config may hold: every node keeps, merges and passes it on at each spawn.
//!
//! Owner: [`super::ImageConfig::parse`], so that client, master and node refuse alike. Invariant: each
//! list has a number and each text a length; the whole is within [`super::MAX_CONFIG_BYTES`].

use super::{ImageConfig, ImageConfigError};

/// Environment variables: real images have below 100; Linux passes 2 MiB of them and of arguments.
pub const MAX_VARIABLES: usize = 4_096;

/// Words of the entrypoint, and of the command.
pub const MAX_WORDS: usize = 4_096;

/// A variable or word: below Linux's MAX_ARG_STRLEN, which counts the NUL at the end.
pub const MAX_WORD_BYTES: usize = (128 << 10) - 1;

/// Labels: real images have below 50.
pub const MAX_LABELS: usize = 4_096;

/// Exposed ports: each protocol has 65,535, and no image exposes a thousand.
pub const MAX_EXPOSED_PORTS: usize = 1_024;

/// Declared volumes: each is a directory that is made before the first process runs.
pub const MAX_VOLUMES: usize = 128;

/// A path (Linux's PATH_MAX), which bounds what else is short too: user, stop signal, platform.
pub const MAX_PATH_BYTES: usize = 4_096;

pub(super) fn check(config: &ImageConfig) -> Result<(), ImageConfigError> {
    let none = Vec::new();
    let entrypoint = config.entrypoint.as_ref().unwrap_or(&none);
    let command = config.cmd.as_ref().unwrap_or(&none);
    for (what, has, most) in [
        ("environment variables", config.env.len(), MAX_VARIABLES),
        ("words in its entrypoint", entrypoint.len(), MAX_WORDS),
        ("words in its command", command.len(), MAX_WORDS),
        ("labels", config.labels.len(), MAX_LABELS),
        (
            "exposed ports",
            config.exposed_ports.len(),
            MAX_EXPOSED_PORTS,
        ),
        ("declared volumes", config.volumes.len(), MAX_VOLUMES),
    ] {
        if has > most {
            return Err(ImageConfigError::TooMany { what, has, most });
        }
    }
    let longest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
    for (what, bytes, most) in [
        (
            "an environment variable",
            longest(&config.env),
            MAX_WORD_BYTES,
        ),
        (
            "a word of its entrypoint",
            longest(entrypoint),
            MAX_WORD_BYTES,
        ),
        ("a word of its command", longest(command), MAX_WORD_BYTES),
        (
            "a declared volume's path",
            longest(&config.volumes),
            MAX_PATH_BYTES,
        ),
        (
            "an exposed port",
            longest(&config.exposed_ports),
            MAX_PATH_BYTES,
        ),
        (
            "its working directory",
            config.working_dir.len(),
            MAX_PATH_BYTES,
        ),
        ("its user", config.user.len(), MAX_PATH_BYTES),
        ("its stop signal", config.stop_signal.len(), MAX_PATH_BYTES),
    ] {
        if bytes > most {
            return Err(ImageConfigError::TooLong { what, bytes, most });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(config: &Value) -> Result<ImageConfig, ImageConfigError> {
        ImageConfig::parse(json!({ "config": config }).to_string().as_bytes())
    }

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{number}=")).collect()
    }

    fn keys(count: usize) -> Value {
        let entry = |number| (format!("/{number}"), json!({}));
        Value::Object((0..count).map(entry).collect())
    }

    #[test]
    fn every_list_has_a_bound_that_is_told() {
        let labels = |count: usize| {
            let entry = |number| (format!("{number}"), json!("x"));
            Value::Object((0..count).map(entry).collect())
        };
        type Made<'a> = Box<dyn Fn(usize) -> Value + 'a>;
        let table: [(&str, usize, Made<'_>); 6] = [
            ("Env", MAX_VARIABLES, Box::new(|n| json!(texts(n)))),
            ("Entrypoint", MAX_WORDS, Box::new(|n| json!(texts(n)))),
            ("Cmd", MAX_WORDS, Box::new(|n| json!(texts(n)))),
            ("Labels", MAX_LABELS, Box::new(labels)),
            ("ExposedPorts", MAX_EXPOSED_PORTS, Box::new(keys)),
            ("Volumes", MAX_VOLUMES, Box::new(keys)),
        ];
        for (field, most, made) in table {
            assert!(parse(&json!({ field: made(most) })).is_ok(), "{field}");
            let error = parse(&json!({ field: made(most + 1) })).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(&format!("at most {most}")), "{field}: {told}");
        }
    }

    #[test]
    fn every_text_has_a_bound_that_is_told() {
        let long = |bytes: usize| "x".repeat(bytes);
        type Made<'a> = Box<dyn Fn(String) -> Value + 'a>;
        let table: [(&str, usize, Made<'_>); 5] = [
            ("Env", MAX_WORD_BYTES, Box::new(|text| json!([text]))),
            ("Cmd", MAX_WORD_BYTES, Box::new(|text| json!([text]))),
            (
                "Volumes",
                MAX_PATH_BYTES,
                Box::new(|text| json!({ text: {} })),
            ),
            ("WorkingDir", MAX_PATH_BYTES, Box::new(|text| json!(text))),
            ("User", MAX_PATH_BYTES, Box::new(|text| json!(text))),
        ];
        for (field, most, made) in table {
            assert!(
                parse(&json!({ field: made(long(most)) })).is_ok(),
                "{field}"
            );
            let error = parse(&json!({ field: made(long(most + 1)) })).unwrap_err();
            assert!(matches!(error, ImageConfigError::TooLong { .. }), "{field}");
        }
    }
}
