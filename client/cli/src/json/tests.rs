//! Every field that is printed is documented, and the form of each is held by a snapshot.

use serde_json::json;

use super::*;

/// One that has ended.
pub(crate) fn container() -> ContainerInfo {
    serde_json::from_value(json!({
        "id": "11".repeat(16),
        "tag": "web",
        "node": "22".repeat(16),
        "ip": "10.77.0.9",
        "image": format!("sha256:{}", "33".repeat(32)),
        "image_name": "nginx:latest",
        "command": ["nginx", "-g", "daemon off;"],
        "labels": {"a": "b"},
        "created_ms": 1000,
        "state": {"Exited": {"termination": {"status": {"Code": 9}, "cause": "Exited"}, "at_ms": 2000}},
        "tty": false,
        "limits": {"memory_bytes": 64, "cpu_millis": null, "pids": null},
        "allowed_from": [],
        "volumes": [],
    }))
    .unwrap()
}

/// One key a line, so that the snapshots show what is documented: names, and the form of values.
fn fields(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap();
    let object = value.as_object().unwrap();
    let lines: Vec<String> = object
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.join("\n")
}

/// The fields that docs/reference/json.md lists below a heading.
fn documented(heading: &str) -> Vec<String> {
    let text = include_str!("../../../../docs/reference/json.md");
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("no section {heading}"));
    section
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect()
}

fn same_as_documented(heading: &str, value: &impl Serialize) {
    let value = serde_json::to_value(value).unwrap();
    let mut has: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    let mut wanted = documented(heading);
    has.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(has, wanted, "(left: printed, right: documented) {heading}");
}

#[test]
fn a_container() {
    let info = container();
    let ports = ["127.0.0.1:8080->80".to_owned()];
    let volumes = ["db:/data".to_owned()];
    let row = Container::new(&info, "default", "pc", &ports, &volumes);
    insta::assert_snapshot!(fields(&row), @r#"
    allowed_from: []
    cause: "exited"
    command: ["nginx","-g","daemon off;"]
    cpu_millis: null
    created_ms: 1000
    ended_ms: 2000
    exit_code: 9
    id: "11111111111111111111111111111111"
    image: "sha256:3333333333333333333333333333333333333333333333333333333333333333"
    image_name: "nginx:latest"
    ip: "10.77.0.9"
    labels: {"a":"b"}
    memory_bytes: 64
    name: "web"
    node: "22222222222222222222222222222222"
    node_lost: false
    node_name: "pc"
    pids: null
    ports: ["127.0.0.1:8080->80"]
    session: "default"
    signal: null
    started_ms: null
    state: "exited"
    storage_bytes: null
    tty: false
    volumes: ["db:/data"]
    "#);
    same_as_documented("Containers", &row);
}

#[test]
fn states_are_one_word_each() {
    let ended = Termination {
        status: ExitStatus::Signal(9),
        cause: Cause::OutOfMemory,
    };
    let ending = Ending::from(&ended);
    assert_eq!(
        (ending.exit_code, ending.signal, ending.cause),
        (Some(137), Some(9), Some("out_of_memory"))
    );
    assert_eq!(container_state(&ContainerState::Asleep), "asleep");
    assert_eq!(node_state(NodeState::Lost), "lost");
    assert_eq!(volume_state(VolumeState::NodeLost), "node_lost");
}

#[test]
fn a_node() {
    let offer: NodeOffer = serde_json::from_value(json!({
        "id": "22".repeat(16),
        "name": "pc",
        "state": "Up",
        "platform": "linux/amd64",
        "subnet": ["10.77.0.0", 24],
        "capacity": NodeCapacity::default(),
        "usage": {
            "cpu_used_millis": 1, "memory_free_bytes": 2, "disk_free_bytes": 3, "pool_free_bytes": 4,
            "disk_read_bytes_per_s": 5, "disk_write_bytes_per_s": 6, "containers": 7,
            "memory_promised_bytes": 8, "cpu_promised_millis": 9
        },
    }))
    .unwrap();
    let text = fields(&Node::from(&offer));
    assert!(
        text.contains("state: \"up\"\nsubnet: \"10.77.0.0/24\""),
        "{text}"
    );
    same_as_documented("Nodes", &Node::from(&offer));
}

#[test]
fn images_sessions_and_volumes() {
    let image: ImageInfo = serde_json::from_value(json!({
        "id": format!("sha256:{}", "33".repeat(32)),
        "names": ["a:latest", "b:latest"], "size": 5, "layers": 2, "platform": "linux/amd64", "added_ms": 7,
    }))
    .unwrap();
    same_as_documented("Images", &Image::from(&image));
    assert!(fields(&Image::from(&image)).contains("name: \"a:latest\""));
    let session: SessionInfo = serde_json::from_value(json!({
        "id": "11".repeat(16), "name": "default", "attachments": 0, "containers": 3, "created_ms": 4,
    }))
    .unwrap();
    same_as_documented("Sessions", &SessionRow::from(&session));
    assert!(fields(&SessionRow::from(&session)).contains("state: \"detached\""));
    let volume: VolumeInfo = serde_json::from_value(json!({
        "id": "11".repeat(16), "node": "22".repeat(16), "created_ms": 1,
        "spec": {"tag": "db", "quota_bytes": 5, "schedule": {"every_s": 60, "keep": 3}, "labels": {}},
        "origin": null, "state": "NodeLost", "used_by": [],
    }))
    .unwrap();
    let row = VolumeRow::new(&volume, "pc".to_owned(), vec!["web".to_owned()]);
    assert!(fields(&row).contains("snapshot_every_s: 60\nsnapshots_kept: 3\nstate: \"node_lost\""));
    same_as_documented("Volumes", &row);
}
