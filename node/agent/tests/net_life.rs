//! The network's life: restart, repair, release, removal, and connections into containers.
//!
//! Each test owns a `Lab`. Next: `net.rs` for who reaches whom.
#![allow(clippy::unwrap_used, clippy::panic)]

mod net_lab;

use std::future::Future;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use net_lab::*;
use teu_node::sys::names::SlotName;
use teu_node::sys::net::{Adopted, NetError, NetProblem, Netns, NetworkHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn adopted(b: &Box) -> Adopted {
    Adopted {
        slot: b.slot.clone(),
        ip: b.ip,
    }
}

#[test]
fn a_restarted_agent_takes_over_without_a_gap() {
    in_lab(|lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b, lost) = (
            spawn(&net, "a").await,
            spawn(&net, "b").await,
            spawn(&net, "lost").await,
        );
        let server = b.ns.listen("0.0.0.0:80");
        let internet = lab.internet.listen("0.0.0.0:80");
        net.allow(a.ip, b.ip).await.unwrap();
        net.allow(lost.ip, b.ip).await.unwrap();
        let client = a.ns.connect((b.ip, 80)).unwrap();
        let (served, _) = server.accept().unwrap();
        let out = a.ns.connect((INTERNET, 80)).unwrap();
        let (outside, _) = internet.accept().unwrap();
        drop(net);

        // Bytes flow while the rules are replaced, several times over.
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            let mut client = &client;
            for _ in 0..2000 {
                client.write_all(&[7; 1000]).unwrap();
            }
        });
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 2_000_000];
            (&served).read_exact(&mut all).unwrap();
            served
        });
        let known = || vec![adopted(&a), adopted(&b)];
        let mut net = NetworkHandle::open(config(), known()).await.unwrap();
        let c = spawn(&net, "c").await;
        assert!(
            ![a.ip, b.ip, lost.ip].contains(&c.ip),
            "a fresh address: {}",
            c.ip
        );
        for _ in 0..5 {
            drop(net);
            net = NetworkHandle::open(config(), known()).await.unwrap();
        }
        writer.join().unwrap();
        let _served = reader.join().unwrap();

        assert!(passes(&out, &outside, b"nat lives on", *PATIENCE));
        assert!(passes(&outside, &out, b"both ways", *PATIENCE));
        let allowed: Vec<_> = net.allowed().await.unwrap();
        assert_eq!(
            allowed.iter().map(|p| (p.from, p.to)).collect::<Vec<_>>(),
            [(a.ip, b.ip)]
        );
        assert!(a.ns.connect((b.ip, 80)).is_ok(), "still allowed");
        assert!(b.ns.is_denied((a.ip, 80)), "still denied");
        assert!(
            !sh("ip -o link").contains(&lost.veth),
            "what nobody adopts is removed"
        );
        assert_eq!(net.check().await, vec![]);
    });
}

#[test]
fn a_flushed_firewall_is_back_at_once() {
    in_lab(|lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        let _server = b.ns.listen("0.0.0.0:80");
        net.allow(a.ip, b.ip).await.unwrap();
        let rules = sh("nft -s list ruleset");
        let attacks = [
            "nft flush ruleset",
            "nft flush table inet teu",
            "nft delete table bridge teu",
            "nft flush chain inet teu between",
            "nft insert rule inet teu forward accept",
            "nft 'add chain inet teu between { }; flush set inet teu allowed'",
            "nft add element inet teu allowed '{ 10.77.1.3 . 10.77.1.2 }'",
            "nft delete element bridge teu ports '{ teuv2 }'",
        ];
        for attack in attacks {
            sh(attack);
            let took = until(attack, || sh("nft -s list ruleset") == rules).await;
            println!("restored {took:?} after {attack}");
            assert!(a.ns.connect((b.ip, 80)).is_ok(), "{attack}");
            assert!(b.ns.is_denied((a.ip, 80)), "{attack}");
            assert!(lab.lan.is_denied((b.ip, 80)), "{attack}");
        }
        let problems = net.check().await;
        assert!(
            matches!(problems[..], [NetProblem::RulesRestored { times }] if times >= 8),
            "{problems:?}"
        );
    });
}

#[test]
fn somebody_elses_changes_are_not_ours() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let _a = spawn(&net, "a").await;
        for _ in 0..20 {
            sh("nft add table ip other; nft delete table ip other");
        }
        assert_eq!(net.check().await, vec![], "nothing was restored");
    });
}

#[test]
fn a_removed_bridge_is_made_again_for_the_next_slot() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        let _server = b.ns.listen("0.0.0.0:80");
        net.allow(a.ip, b.ip).await.unwrap();
        sh("ip link del teu0");
        let problems = net.check().await;
        assert!(
            problems.contains(&NetProblem::Bridge("teu0".to_owned())),
            "{problems:?}"
        );
        assert!(
            problems.contains(&NetProblem::Port { slot: slot("a") }),
            "{problems:?}"
        );
        let _c = spawn(&net, "c").await;
        assert!(
            a.ns.connect((b.ip, 80)).is_ok(),
            "the old ones are back on it"
        );
        assert_eq!(net.check().await, vec![]);
    });
}

#[test]
fn a_hundred_slots_leave_nothing() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let before = state_of_host();
        let boxes: Vec<Ns> = (0..100).map(|_| Ns::new()).collect();
        for round in 0..3 {
            let fresh: Vec<Ns> = if round == 0 {
                Vec::new()
            } else {
                (0..100).map(|_| Ns::new()).collect()
            };
            let namespaces = if round == 0 { &boxes } else { &fresh };
            let keepers: Vec<(SlotName, u32)> = namespaces
                .iter()
                .enumerate()
                .map(|(i, ns)| (slot(&format!("s-{i}")), ns.pid()))
                .collect();
            let slots: Vec<SlotName> = keepers.iter().map(|(slot, _)| slot.clone()).collect();
            let start = Instant::now();
            let prepared = net.prepare(keepers).await.unwrap();
            println!("prepare 100 slots: {:?}", start.elapsed());
            assert_eq!(prepared.len(), 100);
            let start = Instant::now();
            for pair in prepared.windows(2) {
                net.allow(pair[0].ip, pair[1].ip).await.unwrap();
            }
            println!("99 x allow: {:?}", start.elapsed());
            assert_eq!(net.check().await, vec![]);
            let start = Instant::now();
            net.release(slots.clone()).await.unwrap();
            println!("release 100 slots: {:?}", start.elapsed());
            net.release(slots).await.unwrap();
            assert_eq!(state_of_host(), before);
            // The addresses of this round have rested by then.
            tokio::time::sleep(net.config().address_rest).await;
        }
        assert_eq!(net.check().await, vec![]);
    });
}

#[test]
fn one_slot_at_a_time_is_quick_too() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let boxes: Vec<Ns> = (0..20).map(|_| Ns::new()).collect();
        let mut times = Vec::new();
        for (i, ns) in boxes.iter().enumerate() {
            let start = Instant::now();
            net.prepare(vec![(slot(&format!("s-{i}")), ns.pid())])
                .await
                .unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        println!(
            "prepare one slot: median {:?}, worst {:?}",
            times[10], times[19]
        );
        drop(boxes);
        // The veths go with their namespaces; releasing still cleans the rules.
        until("veths are gone", || !sh("ip -o link").contains("teuv")).await;
        let slots = (0..20).map(|i| slot(&format!("s-{i}"))).collect();
        let start = Instant::now();
        net.release(slots).await.unwrap();
        println!(
            "release 20 slots whose namespaces are gone: {:?}",
            start.elapsed()
        );
        assert!(!sh("nft list table bridge teu").contains("teuv"));
    });
}

#[test]
fn a_failed_or_forgotten_prepare_leaves_nothing() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let before = state_of_host();
        let (good, busy) = (Ns::new(), Ns::new());
        busy.sh("ip link add eth0 type bridge");
        let keepers = vec![(slot("good"), good.pid()), (slot("busy"), busy.pid())];
        let error = net.prepare(keepers).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot create a veth for slot busy");
        assert_eq!(state_of_host(), before);
        let error = net
            .prepare(vec![(slot("gone"), u32::MAX - 1)])
            .await
            .unwrap_err();
        assert!(matches!(error, NetError::Slot { .. }), "{error:?}");
        assert_eq!(state_of_host(), before);

        // A caller that asks and stops waiting: once the answer is on its way (commands are taken
        // in order, so a later one has been answered), and at once.
        for answered in [true, false] {
            let mut prepare = std::boxed::Box::pin(net.prepare(vec![(slot("good"), good.pid())]));
            let polled = prepare
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            if answered {
                net.allowed().await.unwrap();
                assert!(polled.is_ready() || sh("ip -o link").contains("teuv"));
            }
            drop(prepare);
            if let Poll::Ready(prepared) = polled {
                // Quicker than one poll: nobody has stopped waiting.
                net.release(vec![prepared.unwrap().remove(0).slot])
                    .await
                    .unwrap();
            }
            net.allowed().await.unwrap();
            assert_eq!(state_of_host(), before);
        }
        let again = net.prepare(vec![(slot("good"), good.pid())]).await.unwrap();
        let taken = net
            .prepare(vec![(slot("good"), busy.pid())])
            .await
            .unwrap_err();
        assert!(matches!(taken, NetError::SlotTaken(_)), "{taken:?}");
        assert_eq!(again[0].slot, slot("good"));
    });
}

#[test]
fn an_address_does_not_inherit() {
    in_lab(|_lab| async move {
        let mut config = config_of("teu", "10.77.1.0/29");
        config.address_rest = Duration::from_millis(300);
        let net = NetworkHandle::open(config, vec![]).await.unwrap();
        let b = spawn(&net, "b").await;
        let _server = b.ns.listen("0.0.0.0:80");
        let mut others = Vec::new();
        for i in 0..4 {
            others.push(spawn(&net, &format!("s-{i}")).await);
        }
        let first = others.remove(0);
        net.allow(first.ip, b.ip).await.unwrap();
        assert!(first.ns.connect((b.ip, 80)).is_ok());
        net.release(vec![first.slot.clone()]).await.unwrap();
        let next = Ns::new();
        let error = net
            .prepare(vec![(slot("next"), next.pid())])
            .await
            .unwrap_err();
        assert!(error.is_retryable(), "the address rests: {error}");
        let start = Instant::now();
        let again = loop {
            match net.prepare(vec![(slot("next"), next.pid())]).await {
                Ok(prepared) => break prepared,
                Err(error) if error.is_retryable() && start.elapsed() < *PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(again[0].ip, first.ip, "the same address");
        assert!(next.is_denied((b.ip, 80)), "without its permissions");
        let error = net
            .allow(Ipv4Addr::new(10, 77, 1, 1), b.ip)
            .await
            .unwrap_err();
        assert!(matches!(error, NetError::Refused(_)), "{error:?}");
    });
}

#[test]
fn closing_leaves_the_host_as_it_was() {
    in_lab(|_lab| async move {
        nft("table inet mine {
            set s { type ipv4_addr; elements = { 9.9.9.9 }; }
            chain c {
                type filter hook forward priority 5; policy accept;
                ip saddr @s drop
            }
        }
        table ip nat {
            chain p {
                type nat hook postrouting priority srcnat;
                oifname \"up0\" ip saddr 172.30.0.0/16 masquerade
            }
        }");
        sh(
            "ip link add other0 type bridge; ip link set other0 up; ip rule add from 9.9.9.9 table 99",
        );
        let before = state_of_host();
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        net.allow(a.ip, b.ip).await.unwrap();
        let with = sh("nft -s list table inet mine; nft -s list table ip nat");
        assert!(before.contains(&with), "others' tables stand as they were");
        net.close().await.unwrap();
        assert_eq!(state_of_host(), before);
        // Open, and close by hand in pieces: closing finishes what is left.
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        sh("ip link del teu0");
        net.close().await.unwrap();
        assert_eq!(state_of_host(), before);
        // A name that somebody else has is not taken.
        sh("ip link add teu0 type veth peer name teu0p");
        let error = NetworkHandle::open(config(), vec![]).await.unwrap_err();
        assert!(matches!(error, NetError::NameTaken(_)), "{error:?}");
    });
}

#[test]
fn connections_into_a_container_need_no_hole() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let a = spawn(&net, "a").await;
        let on_loopback = a.ns.listen("127.0.0.1:81");
        let on_eth0 = a.ns.listen(&format!("{}:82", a.ip));
        for (server, port) in [(on_loopback, 81), (on_eth0, 82)] {
            let address = SocketAddr::from((a.ip, port));
            let mut client = net
                .connect_in(Netns::OfProcess(a.ns.pid()), address)
                .await
                .unwrap();
            let (mut served, _) = server.accept().unwrap();
            client.write_all(b"knock").await.unwrap();
            let mut got = [0; 5];
            served.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"knock");
            drop(served);
            assert_eq!(client.read(&mut got).await.unwrap(), 0);
        }
        let nobody = SocketAddr::from((a.ip, 83));
        let refused = net
            .connect_in(Netns::OfProcess(a.ns.pid()), nobody)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let gone = net
            .connect_in(Netns::OfProcess(u32::MAX - 1), nobody)
            .await
            .unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);

        let server = a.ns.listen("0.0.0.0:84");
        let start = Instant::now();
        for _ in 0..200 {
            let address = SocketAddr::from((a.ip, 84));
            net.connect_in(Netns::OfProcess(a.ns.pid()), address)
                .await
                .unwrap();
            server.accept().unwrap();
        }
        println!("connect_in: {:?} each", start.elapsed() / 200);
    });
}

#[test]
fn a_subnet_may_have_more_than_253_addresses_and_nobody_asks_for_its_neighbours() {
    in_lab(|lab| async move {
        let config = config_of("teu", "10.77.16.0/20");
        let before = Adopted {
            slot: slot("before"),
            ip: Ipv4Addr::new(10, 77, 18, 255),
        };
        let net = NetworkHandle::open(config, vec![before]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        assert_eq!(
            a.ip,
            Ipv4Addr::new(10, 77, 19, 0),
            "no edge of a /24 is left out"
        );
        assert_eq!(a.veth, "teuv768");
        let _server = b.ns.listen("0.0.0.0:80");
        net.allow(a.ip, b.ip).await.unwrap();
        assert!(a.ns.connect((b.ip, 80)).is_ok(), "container to container");
        let _internet = lab.internet.listen("0.0.0.0:80");
        assert!(a.ns.connect((INTERNET, 80)).is_ok(), "the internet");
        let permanent = |entries: String| entries.lines().count();
        assert_eq!(
            permanent(lab.host.sh("ip neigh show dev teu0 nud permanent")),
            3
        );
        assert_eq!(
            permanent(a.ns.sh("ip neigh show dev eth0 nud permanent")),
            1
        );
        net.close().await.unwrap();
    });
}
