//! The command, as a user types it.

use teu_integration::world::{World, eventually, free_port, get};

use crate::Shared;

pub(crate) const TRIALS: &[Shared] = &[
    ("cli::echo_prints_and_exits_0", echo),
    ("cli::exit_codes_pass_through", exit_codes),
    ("cli::refusals_have_dockers_exit_codes", refusal_codes),
    ("cli::a_background_server_is_found_again", background),
    ("cli::ps_lists_as_json_table_and_ids", ps),
    ("cli::environment_user_directory_and_limits_apply", settings),
    (
        "cli::files_are_there_before_the_program_and_secrets_stay_secret",
        files,
    ),
    ("cli::asleep_until_woken", asleep),
    ("cli::detached_with_rm_vanishes_at_its_end", detached_rm),
    ("cli::a_name_is_taken_once", names),
    ("cli::logs_of_an_exited_container", logs),
    ("cli::help_and_man_pages", help),
    ("cli::doctor_finds_all_well", doctor),
    ("cli::resources_show_the_node", resources),
    ("cli::an_account_is_enrolled_and_revoked", accounts),
    (
        "cli::many_are_stopped_and_removed_at_once_and_in_order",
        many,
    ),
    ("cli::a_wrong_name_is_told_with_the_right_one", wrong_name),
    ("cli::a_taken_port_is_told_before_the_spawn", taken_port),
];

fn echo(world: &World) {
    let output = world.teu(["run", "--rm", "busybox", "echo", "hello"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn exit_codes(world: &World) {
    for code in [0, 1, 7, 255] {
        let script = format!("exit {code}");
        let output = world.teu(["run", "--rm", "busybox", "sh", "-c", &script]);
        assert_eq!(output.status.code(), Some(code));
    }
    let killed = world.teu([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "kill -TERM $$; kill -KILL $$",
    ]);
    // The first process of a namespace is immune to its own signals, so the shell ends normally.
    assert_eq!(killed.status.code(), Some(0));
    let child = world.teu([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "sh -c 'kill -9 $$'; exit $?",
    ]);
    assert_eq!(child.status.code(), Some(137));
}

fn refusal_codes(world: &World) {
    let code = |arguments: &[&str]| {
        let output = world.teu(arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (missing, text) = code(&["run", "--rm", "busybox", "no-such-program"]);
    assert_eq!(missing, Some(127), "{text}");
    assert!(text.contains("no-such-program"), "{text}");
    let (unusable, text) = code(&["run", "--rm", "busybox", "/etc/passwd"]);
    assert_eq!(unusable, Some(126), "{text}");
    let (image, text) = code(&["run", "--rm", "no-such-image", "true"]);
    assert_eq!(image, Some(125), "{text}");
    assert!(
        text.contains("no-such-image") && text.contains("teu image import"),
        "{text}"
    );
    let (big, text) = code(&["run", "--rm", "-m", "100t", "busybox", "true"]);
    assert_eq!(big, Some(2), "{text}");
    let (user, text) = code(&["run", "--rm", "-u", "1000680000", "busybox", "true"]);
    assert_eq!(user, Some(125), "{text}");
    assert!(
        text.contains("1000680000") && text.contains("-u 1000"),
        "{text}"
    );
    let (nobody, text) = code(&["exec", "no-such-container", "true"]);
    assert_eq!(nobody, Some(125), "{text}");
}

fn background(world: &World) {
    let port = free_port().to_string();
    let publish = format!("{port}:80");
    let server = "echo started; exec httpd -f -p 80 -h /var/www";
    let id = world.ok([
        "run", "-d", "--name", "bg-web", "-p", &publish, "busybox", "sh", "-c", server,
    ]);
    assert_eq!(id.len(), 32);
    let address = format!("127.0.0.1:{port}");
    let page = get(address.as_str(), "/");
    assert!(String::from_utf8_lossy(&page).contains("Hello from a TEU container"));
    let processes = world.ok(["exec", "bg-web", "ps"]);
    assert!(processes.contains("httpd"), "{processes}");
    assert_eq!(world.ok(["logs", "bg-web"]), "started");
    let listed = world.ok(["ps", "--format", "json"]);
    assert!(
        listed.contains(&id) && listed.contains(&format!("{address}->80")),
        "{listed}"
    );
    world.ok(["stop", "-t", "1", "bg-web"]);
    assert!(!world.ok(["ps", "-q"]).contains(&id));
    assert!(world.ok(["ps", "-a", "-q"]).contains(&id));
    world.ok(["rm", "bg-web"]);
    assert!(!world.ok(["ps", "-a", "-q"]).contains(&id));
    eventually("the listener is gone with the container", || {
        std::net::TcpStream::connect(&address).is_err()
    });
}

fn ps(world: &World) {
    let id = world.ok([
        "run", "-d", "--name", "ps-one", "-l", "a=b", "busybox", "sleep", "1000",
    ]);
    let rows: serde_json::Value =
        serde_json::from_str(&world.ok(["ps", "--format", "json"])).expect("JSON");
    let row = rows
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["id"] == id.as_str()));
    let row = row.expect("the container is listed");
    assert_eq!(row["name"], "ps-one");
    assert_eq!(row["labels"]["a"], "b");
    assert_eq!(row["image_name"], "busybox");
    assert!(
        row["state"] == "running" && row["started_ms"].is_u64(),
        "{row}"
    );
    let table = world.ok(["ps"]);
    assert!(table.starts_with("NAME"), "{table}");
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("ps-one") && line.contains("up "))
    );
    assert!(world.ok(["ps", "-q"]).lines().any(|line| line == id));
    let inspected = world.ok(["inspect", &id[..12]]);
    assert!(inspected.contains("\"ps-one\""), "{inspected}");
    let refused = world.teu(["rm", "ps-one"]);
    assert_eq!(
        refused.status.code(),
        Some(125),
        "a running container needs -f"
    );
    world.ok(["rm", "-f", "ps-one"]);
}

fn settings(world: &World) {
    let script = "echo $A; id -u; id -g; pwd; hostname";
    let printed = world.ok([
        "run",
        "--rm",
        "-e",
        "A=b c",
        "-u",
        "12:34",
        "-w",
        "/tmp",
        "--hostname",
        "box",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(printed, "b c\n12\n34\n/tmp\nbox");
    let joined = world.ok([
        "run",
        "--rm",
        "--entrypoint",
        "echo",
        "busybox",
        "from",
        "entrypoint",
    ]);
    assert_eq!(joined, "from entrypoint");
    let script = "head -c 200000000 /dev/zero | tail -c 100000000 >/dev/null";
    let killed = world.teu(["run", "--rm", "-m", "32m", "busybox", "sh", "-c", script]);
    assert_ne!(
        killed.status.code(),
        Some(0),
        "100 MB do not fit into 32 MiB"
    );
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait";
    let limited = world.teu(["run", "--rm", "--pids", "5", "busybox", "sh", "-c", script]);
    assert!(
        String::from_utf8_lossy(&limited.stderr).contains("fork"),
        "{limited:?}"
    );
}

fn files(world: &World) {
    let source = world.scratch().join("config.txt");
    std::fs::write(&source, "from outside\n").expect("a file");
    let file = format!("{}:/etc/app/config.txt", source.display());
    let secret = format!("{}:/run/secrets/key", source.display());
    let id = world.ok([
        "run",
        "-d",
        "--file",
        &file,
        "--secret",
        &secret,
        "busybox",
        "sh",
        "-c",
        "cat /etc/app/config.txt /run/secrets/key; grep secrets /proc/mounts; sleep 1000",
    ]);
    eventually("both were read", || {
        world.ok(["logs", &id]).matches("from outside").count() == 2
    });
    let inspected = world.ok(["inspect", &id]);
    assert!(inspected.contains("/etc/app/config.txt"), "{inspected}");
    assert!(
        !inspected.contains("from outside"),
        "contents are never shown"
    );
    let found = std::process::Command::new("grep")
        .args(["-rls", "from outside"])
        .arg(world.data())
        .output()
        .expect("grep");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    // What the program wrote is in its log; the file below the scratch file system holds what that shows.
    let on_disk: Vec<&str> = found
        .lines()
        .filter(|path| !path.contains("/logs/") && !path.ends_with("/scratch.btrfs"))
        .collect();
    assert!(
        on_disk.iter().all(|path| path.ends_with("config.txt")),
        "a secret on disk: {found}"
    );
    world.ok(["rm", "-f", &id]);
}

fn asleep(world: &World) {
    world.ok([
        "run",
        "-d",
        "--sleep",
        "--name",
        "sleeper",
        "busybox",
        "sh",
        "-c",
        "echo awake",
    ]);
    let state = world.ok(["ps", "--format", "json"]);
    assert!(state.contains("\"asleep\""), "{state}");
    assert_eq!(world.ok(["logs", "sleeper"]), "");
    world.ok(["wake", "sleeper"]);
    eventually("it ran", || world.ok(["logs", "sleeper"]) == "awake");
    world.ok(["rm", "-f", "sleeper"]);
}

fn detached_rm(world: &World) {
    let id = world.ok(["run", "-d", "--rm", "busybox", "true"]);
    eventually("it is gone", || !world.ok(["ps", "-a", "-q"]).contains(&id));
}

fn names(world: &World) {
    world.ok([
        "run", "-d", "--name", "only-one", "busybox", "sleep", "1000",
    ]);
    let second = world.teu([
        "run", "-d", "--name", "only-one", "busybox", "sleep", "1000",
    ]);
    assert_eq!(second.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&second.stderr).contains("only-one"));
    world.ok(["rm", "-f", "only-one"]);
    world.ok([
        "run", "-d", "--name", "only-one", "busybox", "sleep", "1000",
    ]);
    world.ok(["rm", "-f", "only-one"]);
}

fn logs(world: &World) {
    let script = "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exit 3";
    let id = world.ok(["run", "-d", "busybox", "sh", "-c", script]);
    eventually("it ended", || world.ok(["ps", "-a"]).contains("exited (3)"));
    let output = world.teu(["logs", "-f", &id]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 5);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "oops\n");
    assert!(world.ok(["logs", "-n", "2", &id]).ends_with("line 5"));
    world.ok(["rm", &id]);
}

fn help(world: &World) {
    let top = world.teu(Vec::<&str>::new());
    assert!(String::from_utf8_lossy(&top.stderr).contains("Examples:"));
    let pages = world.scratch().join("man");
    world.ok(["man".as_ref(), pages.as_os_str()]);
    assert!(pages.join("teu-run.1").is_file());
    assert!(world.ok(["completions", "bash"]).contains("_teu"));
    let typo = world.teu(["runn"]);
    assert!(
        String::from_utf8_lossy(&typo.stderr).contains("'run'"),
        "did you mean"
    );
}

fn doctor(world: &World) {
    let report = world.teu(["doctor"]);
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.status.success(), "{text}");
    assert!(text.contains("connected"), "{text}");
}

fn resources(world: &World) {
    let offer: serde_json::Value =
        serde_json::from_str(&world.ok(["resources", "--format", "json"])).expect("JSON");
    assert_eq!(offer[0]["state"], "up");
    assert!(offer[0]["cpu_millis"].as_u64() > Some(0));
    assert!(offer[0]["memory_free_bytes"].as_u64() > Some(0));
}

fn accounts(world: &World) {
    let home = world.scratch().join("alice");
    let home = home.to_str().expect("a path");
    let key = world.ok(["--home", home, "account", "show"]);
    assert_eq!(key, world.ok(["--home", home, "account", "show"]));
    let known: serde_json::Value =
        serde_json::from_str(&world.ok(["location", "ls", "--format", "json"])).expect("JSON");
    let field = |name: &str| known[0][name].as_str().expect("a text").to_owned();
    let (endpoint, location, fqdn) = (field("endpoint"), field("key"), field("fqdn"));
    world.ok([
        "--home",
        home,
        "location",
        "add",
        "lab",
        "--endpoint",
        &endpoint,
        "--key",
        &location,
        "--fqdn",
        &fqdn,
    ]);
    // Not the test world's: that one is an administrator's.
    let alice = |arguments: &[&str]| {
        let own = ["--home", home, "--location", "lab"];
        world.teu([own.as_slice(), arguments].concat())
    };
    let refused = alice(&["ps"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("teu account show"));
    world.ok(["account", "enrol", &key, "--name", "alice"]);
    assert!(alice(&["ps"]).status.success());
    let forbidden = alice(&["account", "enrol", &key, "--name", "queen", "--admin"]);
    assert!(String::from_utf8_lossy(&forbidden.stderr).contains("administrator"));
    world.ok(["account", "revoke", &key]);
    assert_eq!(alice(&["ps"]).status.code(), Some(125));
}

fn many(world: &World) {
    let names: Vec<String> = (0..6).map(|number| format!("many-{number}")).collect();
    for name in &names {
        world.ok(["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    }
    // `sleep` is immune to SIGTERM as a first process: each takes the whole grace.
    let begin = std::time::Instant::now();
    let arguments = |verb: &[&str]| -> Vec<String> {
        let verb = verb.iter().map(|word| (*word).to_owned());
        verb.chain(names.iter().cloned()).collect()
    };
    let stopped = world.ok(arguments(&["stop", "-t", "2"]));
    assert!(
        begin.elapsed().as_secs() < 8,
        "six graces of 2 s pass at once, not one after the other"
    );
    assert_eq!(stopped.lines().collect::<Vec<_>>(), names);
    let removed = world.ok(arguments(&["rm"]));
    assert_eq!(removed.lines().collect::<Vec<_>>(), names);
}

fn wrong_name(world: &World) {
    world.ok([
        "run", "-d", "--name", "database", "busybox", "sleep", "1000",
    ]);
    let said = world.teu(["logs", "databse"]);
    assert_eq!(said.status.code(), Some(125));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("no container `databse`") && said.contains("did you mean `database`?"),
        "{said}"
    );
    world.ok(["rm", "-f", "database"]);
}

fn taken_port(world: &World) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let publish = format!("{}:80", address.port());
    let refused = world.teu([
        "run", "-d", "--name", "never", "-p", &publish, "busybox", "sleep", "1000",
    ]);
    assert_eq!(refused.status.code(), Some(125));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains(&format!("cannot listen at {address}")),
        "{said}"
    );
    assert!(!world.ok(["ps", "-a"]).contains("never"));
}
