//! Who reaches whom, with real kernels' packets: default deny, permissions, spoofing, NAT, DNS.
//!
//! Each test owns a `Lab`. What must not arrive is always tested beside something that does by
//! the same road, so that a dead road cannot pass for a closed one. Next: `net_life.rs`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod net_lab;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use net_lab::*;
use teu_node::sys::net::{NetProblem, NetworkHandle};
use teu_node_core::firewall::{Firewall, Opening, Origin, Pair, Surroundings};

#[test]
fn nothing_reaches_a_container_until_allowed() {
    in_lab(|lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        let _server = b.ns.listen("0.0.0.0:80");
        let udp = b.ns.udp("0.0.0.0:80");
        let from_a = a.ns.udp("0.0.0.0:0");
        let to_b = SocketAddr::from((b.ip, 80));

        assert!(a.ns.is_denied((b.ip, 80)), "container to container");
        assert!(!datagram_arrives(&from_a, to_b, &udp, SILENCE), "datagram");
        assert!(
            lab.host.connect_within((b.ip, 80), SILENCE).is_err(),
            "host"
        );
        assert!(lab.lan.is_denied((b.ip, 80)), "lan");
        lab.internet
            .sh(&format!("ip route add 10.77.0.0/16 via {HOST_PUBLIC}"));
        assert!(lab.internet.is_denied((b.ip, 80)), "internet");
        for (who, ns) in [
            ("host", &lab.host),
            ("lan", &lab.lan),
            ("internet", &lab.internet),
        ] {
            let sender = ns.udp("0.0.0.0:0");
            assert!(
                !datagram_arrives(&sender, to_b, &udp, SILENCE),
                "datagram from {who}"
            );
        }

        net.allow(a.ip, b.ip).await.unwrap();
        assert!(a.ns.connect((b.ip, 80)).is_ok(), "allowed");
        assert!(
            datagram_arrives(&from_a, to_b, &udp, *PATIENCE),
            "allowed datagram"
        );
        // The other way, and everybody else, is as closed as before.
        let _back = a.ns.listen("0.0.0.0:80");
        assert!(b.ns.is_denied((a.ip, 80)), "the other way");
        assert!(
            lab.host.connect_within((b.ip, 80), SILENCE).is_err(),
            "host"
        );
        assert!(lab.lan.is_denied((b.ip, 80)), "lan");
    });
}

#[test]
fn a_container_has_only_so_many_connections_and_its_neighbour_its_own() {
    in_lab(|_lab| async move {
        let mut config = config();
        config.flows_per_container = 16;
        let net = NetworkHandle::open(config, vec![]).await.unwrap();
        let (a, b, c) = (
            spawn(&net, "a").await,
            spawn(&net, "b").await,
            spawn(&net, "c").await,
        );
        let udp = b.ns.udp("0.0.0.0:80");
        net.allow(a.ip, b.ip).await.unwrap();
        net.allow(c.ip, b.ip).await.unwrap();
        let to_b = SocketAddr::from((b.ip, 80));
        let senders: Vec<_> = (0..20).map(|_| a.ns.udp("0.0.0.0:0")).collect();
        let (first, more) = senders.split_at(16);
        for sender in first {
            assert!(datagram_arrives(sender, to_b, &udp, *PATIENCE));
        }
        for sender in more {
            assert!(!datagram_arrives(sender, to_b, &udp, SILENCE), "one more");
        }
        // What it has goes on, and the neighbour is not touched.
        assert!(datagram_arrives(&first[0], to_b, &udp, *PATIENCE));
        let from_c = c.ns.udp("0.0.0.0:0");
        assert!(datagram_arrives(&from_c, to_b, &udp, *PATIENCE));
    });
}

#[test]
fn disallow_cuts_open_connections() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        let server = b.ns.listen("0.0.0.0:80");
        net.allow(a.ip, b.ip).await.unwrap();
        let client = a.ns.connect((b.ip, 80)).unwrap();
        let (served, _) = server.accept().unwrap();
        assert!(passes(&client, &served, b"one", *PATIENCE));
        assert!(passes(&served, &client, b"two", *PATIENCE));

        net.disallow(a.ip, b.ip).await.unwrap();
        assert!(
            !passes(&client, &served, b"three", SILENCE),
            "cut towards the server"
        );
        assert!(
            !passes(&served, &client, b"four", SILENCE),
            "cut towards the client"
        );
        assert!(a.ns.is_denied((b.ip, 80)), "no new ones");

        // Allowed the other way only, the old connection stays cut.
        net.allow(b.ip, a.ip).await.unwrap();
        assert!(
            !passes(&served, &client, b"five", SILENCE),
            "not by the other permission"
        );

        net.allow(a.ip, b.ip).await.unwrap();
        assert!(a.ns.connect((b.ip, 80)).is_ok(), "allowed again");
    });
}

#[test]
fn a_container_reaches_the_internet_but_nothing_near() {
    in_lab(|lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let a = spawn(&net, "a").await;
        let internet = lab.internet.listen("0.0.0.0:80");
        let _lan = lab.lan.listen("0.0.0.0:80");
        let _host = lab.host.listen("0.0.0.0:80");

        let client = a.ns.connect((INTERNET, 80)).unwrap();
        let (served, peer) = internet.accept().unwrap();
        assert_eq!(peer.ip(), HOST_PUBLIC, "masqueraded");
        assert!(passes(&client, &served, b"out", *PATIENCE));
        assert!(passes(&served, &client, b"in", *PATIENCE));

        for near in [LAN, HOST_LAN, HOST_PUBLIC, GATEWAY] {
            assert!(lab.host.connect((near, 80)).is_ok(), "{near} serves");
            assert!(a.ns.is_denied((near, 80)), "{near} is not reached");
        }
        // Special ranges never leave, even though there is a way and somebody at its end.
        for special in [
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "10.1.1.1",
            "172.16.0.1",
        ] {
            lab.internet.sh(&format!("ip addr add {special}/32 dev lo"));
            let special: Ipv4Addr = special.parse().unwrap();
            assert!(lab.host.connect((special, 80)).is_ok(), "{special} serves");
            assert!(a.ns.is_denied((special, 80)), "{special} is not reached");
        }
    });
}

#[test]
fn resolvers_are_reached_on_port_53_only() {
    in_lab(|lab| async move {
        let mut config = config();
        config.resolvers = vec![LAN, HOST_LAN];
        let net = NetworkHandle::open(config, vec![]).await.unwrap();
        let a = spawn(&net, "a").await;
        let client = a.ns.udp("0.0.0.0:0");
        for (ns, ip) in [(&lab.lan, LAN), (&lab.host, HOST_LAN)] {
            let dns = ns.udp(&format!("{ip}:53"));
            let _tcp = ns.listen(&format!("{ip}:53"));
            let other = ns.udp(&format!("{ip}:54"));
            let _web = ns.listen(&format!("{ip}:80"));
            assert!(
                datagram_arrives(&client, (ip, 53).into(), &dns, *PATIENCE),
                "{ip} asked"
            );
            let (_, peer) = {
                client.send_to(b"again", (ip, 53)).unwrap();
                dns.recv_from(&mut [0; 16]).unwrap()
            };
            assert!(
                datagram_arrives(&dns, peer, &client, *PATIENCE),
                "{ip} answers"
            );
            assert!(a.ns.connect((ip, 53)).is_ok(), "{ip} by TCP");
            assert!(
                !datagram_arrives(&client, (ip, 54).into(), &other, SILENCE),
                "{ip} port 54"
            );
            assert!(a.ns.is_denied((ip, 80)), "{ip} port 80");
        }
        // From the resolver's port 53 nothing may be opened towards the container.
        let dns = lab.host.udp(&format!("{HOST_LAN}:53"));
        let inside = a.ns.udp("0.0.0.0:5353");
        assert!(!datagram_arrives(
            &dns,
            (a.ip, 5353).into(),
            &inside,
            SILENCE
        ));
    });
}

#[test]
fn addresses_cannot_be_spoofed() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b, c) = (
            spawn(&net, "a").await,
            spawn(&net, "b").await,
            spawn(&net, "c").await,
        );
        net.allow(a.ip, b.ip).await.unwrap();
        net.allow(b.ip, a.ip).await.unwrap();
        let udp = b.ns.udp("0.0.0.0:80");
        let to_b = SocketAddr::from((b.ip, 80));

        // C says that it is A.
        c.ns.sh(&format!("ip addr add {}/32 dev eth0", a.ip));
        let liar = c.ns.udp(&format!("{}:0", a.ip));
        let honest = a.ns.udp(&format!("{}:0", a.ip));
        assert!(datagram_arrives(&honest, to_b, &udp, *PATIENCE), "A itself");
        assert!(!datagram_arrives(&liar, to_b, &udp, SILENCE), "C as A");
        // Not with A's hardware address either.
        let mac =
            a.ns.sh("cat /proc/net/arp > /dev/null; ip -o link show eth0");
        let mac = mac
            .split("link/ether ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        c.ns.sh(&format!("ip link set eth0 address {mac}"));
        assert!(
            !datagram_arrives(&liar, to_b, &udp, SILENCE),
            "C as A, hardware too"
        );
        // Nor does the bridge or the host now believe that A lives at C.
        let _impostor = c.ns.listen("0.0.0.0:81");
        let real = a.ns.listen("0.0.0.0:81");
        sh("ip neigh flush dev teu0");
        c.ns.sh(&format!(
            "ip neigh flush dev eth0; ip neigh replace {GATEWAY} dev eth0 nud incomplete || true"
        ));
        let client = b.ns.connect((a.ip, 81)).unwrap();
        let (served, _) = real.accept().unwrap();
        assert!(passes(&client, &served, b"still A", *PATIENCE));
    });
}

#[test]
fn ports_of_the_bridge_are_isolated() {
    in_lab(|_lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let (a, b) = (spawn(&net, "a").await, spawn(&net, "b").await);
        let _server = b.ns.listen("[::]:80");
        // A bypasses the gateway and writes to B's hardware address.
        let octets = b.ip.octets();
        let mac = format!(
            "02:7e:{:02x}:{:02x}:{:02x}:{:02x}",
            octets[0], octets[1], octets[2], octets[3]
        );
        a.ns.sh(&format!(
            "ip route add {ip}/32 dev eth0; ip neigh replace {ip} lladdr {mac} dev eth0 nud permanent",
            ip = b.ip
        ));
        assert!(a.ns.is_denied((b.ip, 80)), "straight to the port");
        // And by IPv6, both turned on by the containers themselves.
        for (ns, end) in [(&a.ns, "a"), (&b.ns, "b")] {
            ns.sh(&format!(
                "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr add fd00::{end}/64 dev \
                 eth0 nodad"
            ));
        }
        a.ns.sh(&format!(
            "ip neigh replace fd00::b lladdr {mac} dev eth0 nud permanent"
        ));
        let v6: std::net::Ipv6Addr = "fd00::b".parse().unwrap();
        assert!(b.ns.connect((v6, 80)).is_ok(), "B serves IPv6");
        assert!(a.ns.is_denied((v6, 80)), "IPv6");

        // The permission opens the road through the gateway, and only that.
        net.allow(a.ip, b.ip).await.unwrap();
        assert!(a.ns.is_denied((b.ip, 80)), "still not straight");
        a.ns.sh(&format!("ip route del {}/32 dev eth0", b.ip));
        assert!(a.ns.connect((b.ip, 80)).is_ok(), "through the gateway");
    });
}

#[test]
fn no_rule_of_the_host_can_open_a_hole() {
    in_lab(|lab| async move {
        let accept_all = ["prerouting", "input", "forward", "output", "postrouting"].map(|hook| {
            let chain = |when: &str, priority: i32| {
                format!(
                    "chain {hook}_{when} {{
 type filter hook {hook} priority {priority}; policy \
                     accept;
 accept
 }}
"
                )
            };
            chain("early", -450) + &chain("late", 450)
        });
        let to_b = format!(
            "ip daddr {HOST_LAN} meta l4proto {{ tcp, udp }} th dport 81 dnat ip to 10.77.1.2:80"
        );
        let nat = format!(
            "chain arriving {{
 type nat hook prerouting priority dstnat;
 {to_b}
 }}
\
             chain leaving {{
 type nat hook output priority -100;
 {to_b}
 }}"
        );
        nft(&format!(
            "table inet open {{\n{}\n{nat}\n}}",
            accept_all.join("\n")
        ));
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let b = spawn(&net, "b").await;
        assert_eq!(b.ip, Ipv4Addr::new(10, 77, 1, 2));
        let _server = b.ns.listen("0.0.0.0:80");
        let a = spawn(&net, "a").await;
        assert!(a.ns.is_denied((b.ip, 80)), "container");
        assert!(lab.lan.is_denied((b.ip, 80)), "lan");
        assert!(lab.lan.is_denied((HOST_LAN, 81)), "lan, by port forwarding");
        assert!(
            lab.host.connect_within((b.ip, 80), SILENCE).is_err(),
            "host"
        );
        assert!(
            lab.host.connect_within((HOST_LAN, 81), SILENCE).is_err(),
            "host, forwarded"
        );
        assert!(a.ns.is_denied((HOST_LAN, 81)), "container, forwarded");
        // One way is a hole too: not a single datagram arrives.
        let inside = b.ns.udp("0.0.0.0:80");
        for (who, ns) in [("host", &lab.host), ("lan", &lab.lan), ("container", &a.ns)] {
            for to in [
                SocketAddr::from((b.ip, 80)),
                SocketAddr::from((HOST_LAN, 81)),
            ] {
                let sender = ns.udp("0.0.0.0:0");
                assert!(
                    !datagram_arrives(&sender, to, &inside, SILENCE),
                    "{who} to {to}"
                );
            }
        }
        assert_eq!(net.check().await, vec![]);

        // And what the host denies, TEU cannot allow: the doctor names it.
        nft("table ip strict {
 chain FORWARD {
 type filter hook forward priority 0; policy drop;
 }
 }");
        let _internet = lab.internet.listen("0.0.0.0:80");
        assert!(a.ns.is_denied((INTERNET, 80)));
        let chain = "ip strict FORWARD".to_owned();
        let expected = NetProblem::ForeignDrop {
            chain,
            bridge: "teu0".to_owned(),
        };
        assert_eq!(net.check().await, vec![expected]);
        sh("nft delete table ip strict");
        assert!(a.ns.connect((INTERNET, 80)).is_ok());
    });
}

#[test]
fn the_kernel_decides_as_the_model_does() {
    in_lab(|lab| async move {
        let net = NetworkHandle::open(config(), vec![]).await.unwrap();
        let mut boxes = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            boxes.push(spawn(&net, name).await);
        }
        let subnet = net.config().subnet;
        let mut model = Firewall::new(subnet, net.config().location_range).unwrap();
        for b in &boxes {
            model.attach(b.ip).unwrap();
        }
        // A pattern without symmetry: every third pair of the matrix.
        let mut pairs = BTreeSet::new();
        for (i, from) in boxes.iter().enumerate() {
            for (j, to) in boxes.iter().enumerate() {
                if i != j && (i * 5 + j * 2) % 3 == 0 {
                    pairs.insert(Pair {
                        from: from.ip,
                        to: to.ip,
                    });
                }
            }
        }
        net.replace_allowed(pairs.iter().copied().collect())
            .await
            .unwrap();
        model.replace_allowed(pairs.iter().copied());
        assert_eq!(
            net.allowed()
                .await
                .unwrap()
                .into_iter()
                .collect::<BTreeSet<_>>(),
            pairs
        );

        let mut servers: Vec<_> = boxes.iter().map(|b| b.ns.listen("0.0.0.0:80")).collect();
        servers.extend([&lab.lan, &lab.internet, &lab.host].map(|ns| ns.listen("0.0.0.0:80")));
        let around = Surroundings {
            resolvers: vec![],
            host: vec![HOST_LAN, HOST_PUBLIC, GATEWAY],
        };
        let near = [LAN, INTERNET, HOST_LAN, HOST_PUBLIC, GATEWAY];
        let targets: Vec<Ipv4Addr> = boxes.iter().map(|b| b.ip).chain(near).collect();
        let origins = boxes
            .iter()
            .map(|b| (Origin::Container(b.ip), &b.ns, b.ip))
            .chain([
                (Origin::Host, &lab.host, GATEWAY),
                (Origin::Outside, &lab.lan, LAN),
            ]);
        let mut decided = [0, 0];
        thread::scope(|scope| {
            let mut tries = Vec::new();
            for (origin, ns, source) in origins {
                for target in targets.iter().copied().filter(|t| *t != source) {
                    let own_affair =
                        !matches!(origin, Origin::Container(_)) && near.contains(&target);
                    if own_affair {
                        continue;
                    }
                    let opening = Opening {
                        origin,
                        source,
                        destination: target,
                        port: Some(80),
                    };
                    let expected = model.may_open(&opening, &around);
                    let patience = if expected { *PATIENCE } else { SILENCE };
                    let attempt =
                        scope.spawn(move || ns.connect_within((target, 80), patience).is_ok());
                    tries.push((opening, expected, attempt));
                }
            }
            for (opening, expected, attempt) in tries {
                assert_eq!(attempt.join().unwrap(), expected, "{opening:?}");
                decided[usize::from(expected)] += 1;
            }
        });
        assert!(
            decided.iter().all(|n| *n >= 5),
            "both outcomes occur: {decided:?}"
        );
    });
}

#[test]
fn two_nodes_on_one_machine_agree_on_a_pair() {
    in_lab(|_lab| async move {
        let one = NetworkHandle::open(config_of("one", "10.77.1.0/24"), vec![])
            .await
            .unwrap();
        let two = NetworkHandle::open(config_of("two", "10.77.2.0/24"), vec![])
            .await
            .unwrap();
        let (a, b) = (spawn(&one, "a").await, spawn(&two, "b").await);
        let server = b.ns.listen("0.0.0.0:80");
        assert!(a.ns.is_denied((b.ip, 80)), "denied");
        one.allow(a.ip, b.ip).await.unwrap();
        assert!(a.ns.is_denied((b.ip, 80)), "one side is not enough");
        two.allow(a.ip, b.ip).await.unwrap();
        let _client = a.ns.connect((b.ip, 80)).unwrap();
        assert_eq!(
            server.accept().unwrap().1.ip(),
            a.ip,
            "by its own address, without NAT"
        );
        one.close().await.unwrap();
        assert_eq!(
            two.check().await,
            vec![],
            "the other instance is not touched"
        );
    });
}
