//! Which command lines of `teu volume` parse, and as what.

use clap::Parser as _;
use teu::{SnapshotInfo, VolumeInfo};

use super::{
    destroy::{loss, split},
    *,
};
use crate::{
    args::{Cli, Verb},
    consent::ask,
};

fn parsed(line: &str) -> Result<VolumeVerb, String> {
    let words = ["teu", "volume"].into_iter().chain(line.split(' '));
    match Cli::try_parse_from(words)
        .map_err(|error| error.to_string())?
        .verb
    {
        Verb::Volume(verb) => Ok(verb),
        _ => Err("another verb".to_owned()),
    }
}

#[test]
fn lines_of_the_tutorial_parse() {
    for line in [
        "create books",
        "create",
        "create db --size 2GiB --snapshot-every 1h --keep 24 --node one --ensure",
        "ls",
        "list --format json",
        "snapshot books before",
        "snapshot --rm books before after --dry-run",
        "rollback books before --discard-later --force -y",
        "clone books before trial",
        "clone books before --quota 1g",
        "schedule books --snapshot-every 1h --keep 24",
        "schedule books --off",
        "snapshots books -q",
        "usage books trial --format json",
        "quota books none",
        "export books two --base one file",
        "export books one -",
        "import file to --node n --quota 1g",
        "import --into --yes - to",
        "inspect books",
        "rm -y books trial",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
    }
}

#[test]
fn lines_that_make_no_sense_are_refused() {
    for line in [
        "create db --keep 3",
        "create --ensure",
        "create db --quota lots",
        "schedule books",
        "schedule books --off --snapshot-every 1h",
        "schedule books --snapshot-every 5s",
        "rm",
        "rm --yes --dry-run db",
        "snapshot books",
        "rollback books",
        "quota books",
        "import --into file",
        "import --into file to --quota 1g",
        "export books one",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

#[test]
fn a_size_is_a_quota() {
    let Ok(VolumeVerb::Create(args)) = parsed("create db --size 2GiB --snapshot-every 1h") else {
        panic!("create is expected");
    };
    assert_eq!(args.spec.quota, Some(2 << 30));
    assert_eq!(args.spec.snapshot_every, Some(Duration::from_secs(3600)));
    assert_eq!(args.name.as_deref(), Some("db"));
}

#[test]
fn a_volume_that_was_there_may_differ_from_what_was_asked() {
    let mut info = volume("db");
    info.spec.quota_bytes = Some(1 << 30);
    info.spec.labels = [("app".to_owned(), "shop".to_owned())].into();
    let differs = |line: &str| {
        let Ok(VolumeVerb::Create(args)) = parsed(line) else {
            panic!("create is expected");
        };
        differs(&info, &args.spec, None)
    };
    assert!(!differs("create db --ensure"));
    assert!(!differs("create db --ensure --quota 1g -l app=shop"));
    for other in ["--quota 2g", "--snapshot-every 1h", "-l app=x", "-l other"] {
        assert!(differs(&format!("create db --ensure {other}")), "{other}");
    }
    let elsewhere = teu::NodeId::from_bytes([2; 16]);
    let Ok(VolumeVerb::Create(args)) = parsed("create db --ensure") else {
        panic!("create is expected");
    };
    assert!(super::differs(&info, &args.spec, Some(elsewhere)));
    assert!(!super::differs(&info, &args.spec, Some(info.node)));
}

#[test]
fn a_missing_volume_can_be_made_or_was_called_otherwise() {
    let volumes = [volume("database")];
    assert_eq!(
        suggestion("databse", &volumes),
        "did you mean `database`? `teu volume create databse` makes one, \
         `teu volume ls` lists those that there are"
    );
    assert_eq!(
        suggestion("not a name", &[]),
        "`teu volume ls` lists those that there are"
    );
}

#[test]
fn later_snapshots_are_those_after_the_wanted_one() {
    let known = ["a", "b", "c"].map(snapshot);
    let later = |wanted| {
        let (target, later) = split(&known, wanted);
        let names: Vec<&str> = later.iter().map(|one| one.name.as_str()).collect();
        (target.is_some(), names.concat())
    };
    assert_eq!(later("a"), (true, "bc".to_owned()));
    assert_eq!(later("c"), (true, String::new()));
    assert_eq!(later("x"), (false, String::new()));
}

#[test]
fn only_a_yes_is_a_yes_and_a_name_cannot_hide_the_question() {
    let gone = ["  volume `a\x1b[2J`".to_owned()];
    let question = "this destroys:\n  volume `a\u{fffd}[2J`\nGo on? [y/N] ";
    let said = |answer: &str| {
        let mut told = Vec::new();
        let outcome = ask(&gone, &mut answer.as_bytes(), &mut told);
        (outcome.is_ok(), String::from_utf8(told).unwrap())
    };
    for yes in ["y\n", "Y\n", "yes\n", " Yes \n"] {
        assert_eq!(said(yes), (true, question.to_owned()), "{yes:?}");
    }
    for no in ["\n", "n\n", "yep\n", "yy\n"] {
        assert_eq!(said(no), (false, question.to_owned()), "{no:?}");
    }
    // The end of the input: what follows begins on a line of its own.
    assert_eq!(said(""), (false, format!("{question}\n")));
}

#[test]
fn what_a_rollback_loses_is_more_if_later_snapshots_go() {
    let usage = VolumeUsage {
        referenced_bytes: 801 << 20,
        exclusive_bytes: 16 << 10,
        snapshots_bytes: 0,
        quota_bytes: None,
        available_bytes: 0,
        snapshots: 2,
    };
    let mut target = snapshot("before");
    target.created_ms = u64::MAX;
    target.referenced_bytes = 24 << 10;
    let text = |is_last_copy| loss("db", &usage, Some(&target), is_last_copy);
    assert_eq!(
        text(false),
        "  what was written to volume `db` since snapshot `before`, 0 seconds ago: at most 16.0 KiB"
    );
    assert_eq!(
        text(true),
        "  what was written to volume `db` since snapshot `before`, 0 seconds ago: \
         its 801 MiB of files become the 24.0 KiB of then"
    );
    let whole = loss("db", &usage, None, false);
    assert_eq!(whole, "  what was written to volume `db`: at most 16.0 KiB");
}

#[test]
fn a_missing_snapshot_was_called_otherwise() {
    let known = ["before", "after"].map(snapshot);
    let usage = no_snapshot("db", &known, "befor");
    assert_eq!(usage.what, "volume `db` has no snapshot `befor`");
    assert_eq!(
        usage.help,
        "did you mean `before`? `teu volume snapshots db` lists them"
    );
    let usage = no_snapshot("db", &[], "befor");
    assert_eq!(usage.help, "`teu volume snapshots db` lists them");
}

#[test]
fn a_quota_below_what_is_there_is_told() {
    let told = |quota_bytes| {
        let usage = VolumeUsage {
            referenced_bytes: 2 << 20,
            exclusive_bytes: 0,
            snapshots_bytes: 0,
            quota_bytes,
            available_bytes: 0,
            snapshots: 0,
        };
        fullness("db", &usage)
    };
    assert!(told(Some(1 << 20)).is_some_and(|text| text.contains("2.0 MiB of files already")));
    assert_eq!(told(Some(3 << 20)), None);
    assert_eq!(told(None), None);
}

fn snapshot(name: &str) -> SnapshotInfo {
    SnapshotInfo {
        name: name.parse().unwrap(),
        created_ms: 0,
        referenced_bytes: 0,
        exclusive_bytes: 0,
    }
}

fn volume(tag: &str) -> VolumeInfo {
    VolumeInfo {
        id: teu::VolumeId::from_bytes([1; 16]),
        node: teu::NodeId::from_bytes([1; 16]),
        created_ms: 0,
        spec: teu::VolumeSpec {
            tag: Some(tag.parse().unwrap()),
            ..teu::VolumeSpec::default()
        },
        origin: None,
        state: teu::VolumeState::Ready,
        used_by: Vec::new(),
    }
}
