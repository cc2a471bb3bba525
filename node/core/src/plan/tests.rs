//! Tables for [`super`].

use teu_protocol::{
    ids::{Digest, PublicKey, SessionId},
    message::{Compression, ImageManifest, SpawnSpec},
};

use super::*;

fn spawn(config: &str) -> NodeSpawn {
    let config = config.as_bytes().to_vec();
    let layer = Digest::of(b"layer");
    NodeSpawn {
        container: ContainerId::from_bytes([7; 16]),
        session: SessionId::from_bytes([1; 16]),
        attachment: AttachmentId::from_bytes([2; 16]),
        account: PublicKey::from_bytes([3; 32]),
        created_ms: 5,
        spec: SpawnSpec::of(Digest::of(&config), "busybox"),
        image: ImageManifest {
            id: Digest::of(&config),
            config,
            layers: vec![LayerRef {
                digest: layer,
                diff_id: layer,
                size: 1,
                compression: Compression::None,
            }],
        },
    }
}

const CONFIG: &str = r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["sh"],
    "Env":["A=image"],"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT"}}"#;

fn file(path: &str, size: u64) -> PreBootFile {
    PreBootFile {
        path: path.into(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        secret: true,
        size,
    }
}

#[test]
fn the_image_and_the_wishes_make_the_process() {
    let mut order = spawn(CONFIG);
    order.spec.process.env = vec![("A".into(), "mine".into())];
    let plan = plan_spawn(&order, &[], "linux/amd64").unwrap();
    assert_eq!(plan.record.process.args, ["sh"]);
    assert!(plan.record.process.env.contains(&"A=mine".to_owned()));
    assert_eq!(
        plan.record.process.stop_signal,
        teu_protocol::image_config::signal::Signal::QUIT
    );
    assert_eq!(plan.hostname, "070707070707");
    assert_eq!(plan.record.exposed_ports, ["80/tcp"]);
    let exec = ProcessSpec {
        args: Some(vec!["ps".into()]),
        ..ProcessSpec::default()
    };
    let exec = plan_exec(&plan.record, ProcessId::from_bytes([9; 16]), &exec, None).unwrap();
    assert_eq!(exec.process.args, ["ps"]);
    assert!(exec.process.env.contains(&"A=mine".to_owned()));
}

#[test]
fn what_can_never_work_is_refused_with_its_code() {
    let code = |change: &dyn Fn(&mut NodeSpawn), bulk: &[Bytes]| {
        let mut order = spawn(CONFIG);
        change(&mut order);
        plan_spawn(&order, bulk, "linux/amd64")
            .map(|_| ())
            .map_err(|refusal| refusal.code)
    };
    use RefusalCode::{BadImage, BadRequest, WrongPlatform};
    assert_eq!(code(&|_| {}, &[]), Ok(()));
    assert_eq!(
        code(&|o| o.image.config = b"{".to_vec(), &[]),
        Err(BadImage)
    );
    assert_eq!(code(&|o| o.image.layers.clear(), &[]), Err(BadImage));
    assert_eq!(
        code(&|o| o.image.config = b"{}".to_vec(), &[]),
        Err(BadRequest),
        "no command"
    );
    let arm = br#"{"os":"linux","architecture":"arm64","config":{"Cmd":["sh"]}}"#;
    assert_eq!(
        code(&|o| o.image.config = arm.to_vec(), &[]),
        Err(WrongPlatform)
    );
    assert_eq!(
        code(&|o| o.spec.limits.memory_bytes = Some(1), &[]),
        Err(BadRequest)
    );
    assert_eq!(
        code(&|o| o.spec.limits.cpu_millis = Some(9), &[]),
        Err(BadRequest)
    );
    assert_eq!(
        code(&|o| o.spec.limits.pids = Some(0), &[]),
        Err(BadRequest)
    );
    assert_eq!(
        code(&|o| o.spec.hostname = Some("a b".into()), &[]),
        Err(BadRequest)
    );
    let env = |name: &str| vec![(name.to_owned(), "x".to_owned())];
    assert_eq!(
        code(&|o| o.spec.process.env = env("A=B"), &[]),
        Err(BadRequest)
    );
    assert_eq!(
        code(&|o| o.spec.files = vec![file("/a", 3)], &[]),
        Err(BadRequest)
    );
    let bulk = [Bytes::from_static(b"abc")];
    assert_eq!(
        code(&|o| o.spec.files = vec![file("a", 3)], &bulk),
        Err(BadRequest)
    );
    let owned_by = |uid, gid| {
        let owned = PreBootFile {
            uid,
            gid,
            ..file("/a", 3)
        };
        code(
            &move |o: &mut NodeSpawn| o.spec.files = vec![owned.clone()],
            &bulk,
        )
    };
    assert_eq!(owned_by(65_535, 65_535), Ok(()));
    assert_eq!(owned_by(u32::MAX, 0), Err(RefusalCode::BadRequest));
    assert_eq!(owned_by(0, 65_536), Err(RefusalCode::BadRequest));
    assert_eq!(code(&|o| o.spec.files = vec![file("/a", 3)], &bulk), Ok(()));
    let many = |o: &mut NodeSpawn| o.spec.files = vec![file("/a", u64::MAX), file("/b", 4)];
    assert_eq!(code(&many, &bulk), Err(BadRequest));
}

#[test]
fn files_get_their_bytes_over_parts_and_never_show_them() {
    let mut order = spawn(CONFIG);
    order.spec.files = vec![file("/a", 3), file("/b", 0), file("/c", 4)];
    let bulk = [
        Bytes::from_static(b"hun"),
        Bytes::from_static(b"t"),
        Bytes::from_static(b"er2"),
    ];
    let plan = plan_spawn(&order, &bulk, "linux/amd64").unwrap();
    let contents: Vec<&[u8]> = plan.files.iter().map(|(.., bytes)| &bytes[..]).collect();
    assert_eq!(contents, [&b"hun"[..], b"", b"ter2"]);
    assert!(!format!("{plan:?}").contains("ter2"));
}
