//! How long each operation takes, printed; it fails only if one fails.
//!
//! Owner: the pools' tests. The ratios between sizes are asserted by `bench volume`, not here.

use std::time::Instant;

use super::{
    cases::{Case, id, noise, tag, write},
    lab::{Lab, MIB},
    streams::{received, sent},
};

pub const ALL: &[Case] = &[("timings", timings)];

fn timings(lab: &Lab) {
    let mut line = format!("{:10}", lab.kind.name());
    let mut timed = |name: &str, run: &mut dyn FnMut()| {
        let started = Instant::now();
        run();
        line += &format!(" {name} {:.0}", started.elapsed().as_secs_f64() * 1e3);
    };
    let mut pool = None;
    timed("open", &mut || pool = Some(lab.open()));
    let pool = pool.unwrap();
    timed("create", &mut || {
        pool.create(id(1), b"r", Some(64 * MIB)).unwrap()
    });
    write(&*pool, id(1), "f", &noise(16 * MIB));
    timed("snapshot", &mut || pool.snapshot(id(1), &tag("a")).unwrap());
    pool.snapshot(id(1), &tag("b")).unwrap();
    timed("set-record", &mut || pool.set_record(id(1), b"s").unwrap());
    timed("clone", &mut || {
        pool.clone_from((id(1), &tag("a")), id(2), b"r", None)
            .unwrap()
    });
    timed("usage", &mut || assert!(pool.usage(id(1)).is_ok()));
    timed("snapshots", &mut || drop(pool.snapshots(id(1)).unwrap()));
    timed("volumes", &mut || drop(pool.volumes().unwrap()));
    timed("space", &mut || assert!(pool.space().is_ok()));
    timed("roll-back", &mut || {
        pool.roll_back(id(1), &tag("b")).unwrap()
    });
    timed("recover", &mut || pool.recover().unwrap());
    timed("maintain", &mut || pool.maintain().unwrap());
    let mut stream = Vec::new();
    timed("send-16MiB", &mut || {
        stream = sent(&*pool, id(1), "a", None)
    });
    timed("receive-16MiB", &mut || {
        received(&*pool, 3, "a", None, &stream).unwrap()
    });
    timed("destroy-snapshot", &mut || {
        pool.destroy_snapshot(id(1), &tag("b")).unwrap()
    });
    timed("destroy", &mut || pool.destroy(id(3)).unwrap());
    eprintln!("ms: {line}");
}
