//! Default deny: nothing reaches a container unless it is allowed; sessions do not meet.

use std::{net::SocketAddr, time::Duration};

use teu::{Container, Location, RefusalCode};
use teu_integration::world::World;

use crate::{Shared, wait};

pub(crate) const TRIALS: &[Shared] = &[
    (
        "isolation::containers_reach_each_other_only_if_allowed",
        default_deny,
    ),
    (
        "isolation::the_host_does_not_reach_a_container",
        host_denied,
    ),
    (
        "isolation::a_container_does_not_reach_the_host",
        host_hidden,
    ),
    (
        "isolation::another_sessions_container_does_not_exist",
        sessions,
    ),
    ("isolation::root_inside_is_nobody_outside", user_namespace),
    (
        "isolation::users_and_directories_outside_are_refused",
        outside,
    ),
    ("isolation::a_container_fills_its_own_storage", storage),
    ("isolation::the_kernel_is_kept_at_a_distance", confinement),
];

async fn server(location: &Location) -> Container {
    let command = ["httpd", "-f", "-p", "80", "-h", "/var/www"];
    let container = location
        .spawn("busybox")
        .command(command)
        .start()
        .await
        .expect("spawned");
    container
        .wait_tcp(80, Duration::from_secs(20))
        .await
        .expect("it listens");
    container
}

async fn idle(location: &Location) -> Container {
    location
        .spawn("busybox")
        .command(["sleep", "1000"])
        .start()
        .await
        .expect("spawned")
}

async fn reaches(from: &Container, to: &Container) -> bool {
    let ip = to.ip().expect("an address");
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {ip} 80");
    let output = from.run(["sh", "-c", &script]).output().await.expect("ran");
    String::from_utf8_lossy(&output.stdout).contains("Hello from a TEU container")
}

fn default_deny(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let (a, b) = (idle(&location).await, server(&location).await);
        assert!(!reaches(&a, &b).await, "denied unless allowed");
        b.allow_connection_from(&a).await.expect("allowed");
        assert!(reaches(&a, &b).await, "allowed");
        let c = idle(&location).await;
        assert!(!reaches(&c, &b).await, "only A was allowed");
        b.disallow(&a).await.expect("disallowed");
        assert!(!reaches(&a, &b).await, "denied again");
        location.close().await;
    });
}

fn host_denied(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let b = server(&location).await;
        let address = SocketAddr::new(b.ip().expect("an address").into(), 80);
        let connected = tokio::time::timeout(
            Duration::from_secs(2),
            tokio::net::TcpStream::connect(address),
        );
        assert!(
            !matches!(connected.await, Ok(Ok(_))),
            "the host reached {address}"
        );
        location.close().await;
    });
}

fn host_hidden(world: &World) {
    wait(async {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a listener");
        let port = listener
            .local_addr()
            .expect("its address")
            .port()
            .to_string();
        let location = world.connect().await.expect("connected");
        let a = idle(&location).await;
        let script = format!(
            "for ip in $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'); do \
             nc -w 2 $ip {port} </dev/null && echo reached; done; echo tried"
        );
        let output = a.run(["sh", "-c", &script]).output().await.expect("ran");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "tried\n");
        location.close().await;
    });
}

fn sessions(world: &World) {
    wait(async {
        let one = world.connect().await.expect("connected");
        let other = world.connect().await.expect("connected");
        let container = idle(&one).await;
        let theirs = other
            .find(&container.id().to_string())
            .await
            .expect_err("not theirs");
        let nobodys = other.find(&"0".repeat(32)).await.expect_err("nobody's");
        let code = |error: &teu::Error| error.refusal().map(|refusal| refusal.code);
        assert_eq!(code(&theirs), Some(RefusalCode::NotFound));
        let text = |error: &teu::Error, id: &str| error.to_string().replace(id, "ID");
        assert_eq!(
            text(&theirs, &container.id().to_string()),
            text(&nobodys, &"0".repeat(32)),
            "the same answer as for nobody's"
        );
        one.close().await;
        other.close().await;
    });
}

fn user_namespace(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let a = idle(&location).await;
        let output = a
            .run(["cat", "/proc/self/uid_map"])
            .output()
            .await
            .expect("ran");
        let map = String::from_utf8_lossy(&output.stdout).into_owned();
        let fields: Vec<u64> = map
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        assert_eq!(fields.len(), 3, "{map}");
        assert_eq!(fields[0], 0);
        assert!(fields[1] >= 100_000, "root inside is {} outside", fields[1]);
        assert_eq!(fields[2], 65_536);
        location.close().await;
    });
}

/// However a process comes to be: run, woken, or a further one.
fn outside(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let code = |error: &teu::Error| error.refusal().map(|refusal| refusal.code);
        let a = idle(&location).await;
        for user in ["4294967295", "0:4294967295", "1000680000"] {
            let ran = location.spawn("busybox").user(user).start().await;
            let error = ran.expect_err("no such user");
            assert_eq!(code(&error), Some(RefusalCode::BadRequest), "{error}");
            let error = a.run(["true"]).user(user).output().await;
            let error = error.expect_err("no such user");
            assert_eq!(code(&error), Some(RefusalCode::BadRequest), "{error}");
            assert!(error.to_string().contains("0 to 65535"), "{error}");
        }
        for directory in ["/proc/self/fd/13", "/proc/1/cwd", "/proc/self/root/tmp"] {
            let spawn = || location.spawn("busybox").workdir(directory);
            let error = spawn().start().await.expect_err("it leads outside");
            assert_eq!(code(&error), Some(RefusalCode::BadRequest), "{error}");
            assert!(error.to_string().contains(directory), "{error}");
            let error = a.run(["pwd"]).workdir(directory).output().await;
            let error = error.expect_err("it leads outside");
            assert_eq!(code(&error), Some(RefusalCode::BadRequest), "{error}");
            let sleeper = spawn().asleep().start().await.expect("it sleeps");
            let error = sleeper.wake().await.expect_err("it leads outside");
            assert!(error.to_string().contains(directory), "{error}");
        }
        location.close().await;
    });
}

fn confinement(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let a = idle(&location).await;
        let script = "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status; \
                      mount -t tmpfs none /mnt 2>&1; cat /proc/kcore 2>&1 | head -c 1 | wc -c; \
                      dmesg 2>&1; mknod /tmp/x c 1 3 2>&1; echo done";
        let output = a.run(["sh", "-c", script]).output().await.expect("ran");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        assert!(text.contains("Seccomp:\t2"), "{text}");
        assert!(!text.contains("CapEff:\t000001ff"), "{text}");
        assert!(text.contains("done"), "{text}");
        let mounts = a
            .run(["sh", "-c", "mkdir -p /mnt; mount -t tmpfs none /mnt"])
            .output()
            .await;
        assert!(
            !mounts.expect("ran").termination.status.is_success(),
            "mount is refused"
        );
        location.close().await;
    });
}

/// Bytes and empty files beyond the bound are refused; the log and the neighbours go on; more processes than a node has to
/// give are refused at once.
fn storage(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let full = location
            .spawn("busybox")
            .storage(32 << 20)
            .command(["sleep", "1000"])
            .start()
            .await
            .expect("spawned");
        let script = "dd if=/dev/zero of=/big bs=1M count=64 conv=fsync; echo $?; wc -c < /big";
        let output = full.run(["sh", "-c", script]).output().await.expect("ran");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = told.lines();
        assert_eq!(lines.next(), Some("1"), "{told}");
        let size: u64 = lines.next().and_then(|one| one.parse().ok()).expect(&told);
        assert!(size < 33 << 20, "{size}");
        let neighbour = idle(&location).await;
        let script = "dd if=/dev/zero of=/big bs=1M count=64 conv=fsync && rm /big";
        let output = neighbour
            .run(["sh", "-c", script])
            .output()
            .await
            .expect("ran");
        assert_eq!(output.code(), Some(0), "{output:?}");
        let script = "rm /big && echo again > /again";
        let output = full.run(["sh", "-c", script]).output().await.expect("ran");
        assert_eq!(output.code(), Some(0), "{output:?}");
        let many = location.spawn("busybox").pids(4_000_000).start().await;
        let refusal = many.expect_err("refused");
        assert_eq!(
            refusal.refusal().map(|one| one.code),
            Some(RefusalCode::BadRequest)
        );
        full.destroy().await.expect("destroyed");
        neighbour.destroy().await.expect("destroyed");
    });
}
