//! House rules that a machine can check: docs/architecture.md tells the truth, files say what they
//! are, dependencies point one way, the cores are pure, every refusal is documented.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below the checkout whose name ends so, build output and git's own aside.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() && !["target", ".git", "corpus", "artifacts"].contains(&name.as_str())
            {
                directories.push(entry.path());
            } else if kind.is_file() && name.ends_with(ending) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// What stands between backquotes and looks like a path of this repository.
fn named_paths(text: &str) -> BTreeSet<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('/') && !word.contains([' ', '<', '*', ':', '$', '~', '…']))
        .filter(|word| !word.starts_with('/'))
        .map(|word| word.trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn every_path_of_the_architecture_page_exists() {
    let paths = named_paths(&read("docs/architecture.md"));
    assert!(paths.len() > 20, "the page names its files: {paths:?}");
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "docs/architecture.md names paths that do not exist: {missing:?}"
    );
}

#[test]
fn the_architecture_page_is_short_enough_to_be_read() {
    let words = read("docs/architecture.md").split_whitespace().count();
    assert!(
        words <= 1_500,
        "docs/architecture.md has {words} words; the limit is 1500"
    );
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in files(".md") {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            let target = page.parent().expect("a directory").join(path);
            assert!(
                target.exists(),
                "{} links to {link}, which does not exist",
                page.display()
            );
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<_> = files(".rs")
        .into_iter()
        .filter(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            !text.lines().take(3).any(|line| line.starts_with("//!"))
        })
        .collect();
    assert!(
        silent.is_empty(),
        "files that do not open with //!: {silent:?}"
    );
}

#[test]
fn no_source_file_outgrows_its_noun() {
    let large: Vec<_> = files(".rs")
        .into_iter()
        .map(|file| {
            (
                fs::read_to_string(&file)
                    .expect("a source file")
                    .lines()
                    .count(),
                file,
            )
        })
        .filter(|(lines, _)| *lines > 700)
        .collect();
    assert!(
        large.is_empty(),
        "files past 700 lines (which noun should move out?): {large:?}"
    );
}

/// What a crate's Cargo.toml lists under `[dependencies]`.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = read(manifest);
    text.lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: [(&str, &[&str]); 9] = [
        ("protocol/Cargo.toml", &[]),
        ("protocol/link/Cargo.toml", &["teu-protocol"]),
        ("daemon/Cargo.toml", &[]),
        ("master/core/Cargo.toml", &["teu-protocol"]),
        (
            "master/daemon/Cargo.toml",
            &["teu-protocol", "teu-daemon", "teu-master-core"],
        ),
        ("node/core/Cargo.toml", &["teu-protocol"]),
        (
            "node/agent/Cargo.toml",
            &["teu-protocol", "teu-daemon", "teu-link", "teu-node-core"],
        ),
        ("client/sdk/Cargo.toml", &["teu-protocol", "teu-link"]),
        ("client/cli/Cargo.toml", &["teu"]),
    ];
    for (manifest, allowed) in allowed {
        for dependency in dependencies(manifest) {
            let ours = dependency == "teu" || dependency.starts_with("teu-");
            let fine = !ours || allowed.contains(&dependency.as_str());
            assert!(fine, "{manifest} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_cores_are_pure() {
    let impure_crates = [
        "tokio",
        "zeromq",
        "rustix",
        "libc",
        "getrandom",
        "redb",
        "hyper",
        "rand",
    ];
    let impure_words = [
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "Mutex<",
        "RwLock<",
        "std::thread",
        "std::process",
        "OsRng",
        "thread_rng",
        "std::env::",
    ];
    for pure in ["protocol", "master/core", "node/core"] {
        let listed = dependencies(&format!("{pure}/Cargo.toml"));
        for name in impure_crates {
            assert!(
                !listed.contains(name),
                "{pure} is pure and must not depend on {name}"
            );
        }
        for file in files(".rs") {
            let inside = file.starts_with(root().join(pure).join("src"));
            if !inside {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a source file");
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                for word in impure_words {
                    assert!(
                        !line.contains(word),
                        "{}: {word} in a pure crate",
                        file.display()
                    );
                }
            }
        }
    }
}

/// `eprintln!` and its like panic when the disk of the log is full, and so does what `tracing` says about
/// a failed write.
#[test]
fn no_write_to_a_log_can_end_a_daemon() {
    let daemons = [
        "daemon/src",
        "master/daemon/src",
        "node/agent/src",
        "protocol/link/src",
    ];
    let words = [
        "println!(",
        "print!(",
        "with_writer(std::io::",
        "with_writer(io::",
        "dbg!(",
    ];
    for file in files(".rs") {
        let is_a_test = file.ends_with("tests.rs");
        if is_a_test || !daemons.iter().any(|dir| file.starts_with(root().join(dir))) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in words {
            let said = code
                .lines()
                .any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert!(!said, "{}: {word} (use teu_daemon::log)", file.display());
        }
    }
}

/// MessagePack is read by one function, which bounds it and takes nothing that follows it.
#[test]
fn messages_are_decoded_in_one_place() {
    let elsewhere: Vec<_> = files(".rs")
        .into_iter()
        .filter(|file| file.components().any(|part| part.as_os_str() == "src"))
        .filter(|file| !file.ends_with("protocol/src/message/decode.rs"))
        .filter(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            [
                "rmp_serde::from_slice",
                "rmp_serde::from_read",
                "rmp_serde::Deserializer",
            ]
            .iter()
            .any(|word| code.contains(word))
        })
        .collect();
    assert!(
        elsewhere.is_empty(),
        "use teu_protocol::message::decode or decode_record: {elsewhere:?}"
    );
}

#[test]
fn every_refusal_code_is_documented_with_its_cure() {
    let page = read("docs/errors.md");
    for code in teu_protocol::message::RefusalCode::ALL {
        let heading = format!("`{code:?}`");
        assert!(
            page.contains(&heading),
            "docs/errors.md does not explain {heading}"
        );
    }
}

/// Names of failpoints in what follows each `mark` of these sources.
fn failpoints(mark: &str, sources: impl Iterator<Item = PathBuf>) -> BTreeSet<String> {
    let names = |file: PathBuf| {
        let text = fs::read_to_string(file).expect("a source file");
        let quoted = text.split(mark).skip(1);
        let names = quoted.filter_map(|rest| rest.split('"').next().map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    let all = sources.flat_map(names);
    all.filter(|name| name.starts_with("volume-")).collect()
}

#[test]
fn every_failpoint_of_an_order_is_listed_and_explained() {
    let volumes = root().join("node/agent/src/volumes");
    let is_pools = |file: &PathBuf| file.starts_with(volumes.join("pool"));
    let sources = files(".rs").into_iter();
    let sources = sources.filter(|file| file.starts_with(&volumes) && !is_pools(file));
    let there = failpoints("fail_point!(\"", sources);
    let list = volumes.join("worker/failpoints.rs");
    let listed = failpoints("    \"", std::iter::once(list));
    assert_eq!(there, listed, "(left: in the agent's code, right: listed)");
    let page = read("docs/explanation/durability.md");
    for name in listed
        .iter()
        .map(String::as_str)
        .chain(teu_master::failpoints::ALL)
    {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/explanation/durability.md does not say what a kill at {name} comes to"
        );
    }
}

#[test]
fn every_message_is_documented() {
    let page = read("docs/protocol.md");
    for file in [
        "message.rs",
        "message/request.rs",
        "message/node.rs",
        "message/stream.rs",
    ] {
        let text = read(Path::new("protocol/src").join(file));
        for name in enum_variants(&text) {
            assert!(
                page.contains(&format!("`{name}`")),
                "docs/protocol.md lacks `{name}` of {file}"
            );
        }
    }
}

/// Variants of a file's enums: capitalised words at one level of indentation.
fn enum_variants(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("pub enum ") {
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if inside && line.starts_with("    ") && !line.starts_with("     ") {
            let name: String = line
                .trim()
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                names.insert(name);
            }
        }
    }
    names
}
