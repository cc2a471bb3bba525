//! The way over COOKIE.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::{
    limits::COOKIE_ROTATE_AFTER,
    noise::{ConnectionOrigin, CookieJar, HandshakeError},
};

const ORIGIN: ConnectionOrigin = ConnectionOrigin {
    connection: 5,
    address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
};

fn jar() -> CookieJar {
    CookieJar::new([21; 32], NOW)
}

/// A HELLO that carries the cookie that `jar` gave for [`ORIGIN`].
fn hello_with_cookie(jar: &CookieJar, suite: Suite) -> (ClientHandshake, Vec<Bytes>) {
    let (client, first) = hello(suite);
    let checked = door().check(&first).unwrap();
    assert!(!jar.admits(&checked, ORIGIN));
    let cookie = jar.issue(&checked, ORIGIN, [31; 12]).unwrap();
    let size = |parts: &[Bytes]| parts.iter().map(Bytes::len).sum::<usize>();
    assert!(size(&cookie) < size(&first));
    match client.on_message(&cookie).unwrap() {
        ClientStep::SendHello(client, second) => (client, second),
        ClientStep::Welcomed(_) => panic!("a cookie is no welcome"),
    }
}

#[test]
fn the_client_comes_back_with_it_and_is_welcomed() {
    for suite in SUITES {
        let jar = jar();
        let (client, second) = hello_with_cookie(&jar, suite);
        let checked = door().check(&second).unwrap();
        assert!(jar.admits(&checked, ORIGIN));
        let (_, welcome) = ServerHandshake::accept(&checked, [12; 32], b"welcome").unwrap();
        let welcomed = welcomed(client.on_message(&welcome).unwrap());
        assert_eq!(welcomed.payload().as_ref(), b"welcome");
    }
}

#[test]
fn it_is_good_for_its_origin_only() {
    let jar = jar();
    let (_, second) = hello_with_cookie(&jar, Suite::AesGcmSha256);
    let checked = door().check(&second).unwrap();
    let elsewhere = ConnectionOrigin {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
        ..ORIGIN
    };
    assert!(!jar.admits(&checked, elsewhere));
    assert!(!jar.admits(
        &checked,
        ConnectionOrigin {
            connection: 6,
            ..ORIGIN
        }
    ));
}

#[test]
fn it_outlives_one_rotation_and_not_two() {
    let mut jar = jar();
    let (_, second) = hello_with_cookie(&jar, Suite::AesGcmSha256);
    let checked = door().check(&second).unwrap();
    assert!(!jar.is_stale(NOW + COOKIE_ROTATE_AFTER - Duration::from_millis(1)));
    assert!(jar.is_stale(NOW + COOKIE_ROTATE_AFTER));
    jar.rotate([22; 32], NOW + COOKIE_ROTATE_AFTER);
    assert!(jar.admits(&checked, ORIGIN));
    jar.rotate([23; 32], NOW + 2 * COOKIE_ROTATE_AFTER);
    assert!(!jar.admits(&checked, ORIGIN));
}

#[test]
fn a_damaged_cookie_ends_the_handshake() {
    let (_, first) = hello(Suite::AesGcmSha256);
    let checked = door().check(&first).unwrap();
    let cookie = jar().issue(&checked, ORIGIN, [31; 12]).unwrap();
    for (part, byte, damaged) in every_damage(&cookie) {
        let (client, _) = hello(Suite::AesGcmSha256);
        assert!(
            client.on_message(&damaged).is_err(),
            "byte {byte} of part {part}"
        );
    }
    for reshaped in every_reshape(&cookie) {
        let (client, _) = hello(Suite::AesGcmSha256);
        assert!(client.on_message(&reshaped).is_err(), "{reshaped:?}");
    }
}

#[test]
fn a_second_cookie_is_one_too_many() {
    let jar = jar();
    let (client, second) = hello_with_cookie(&jar, Suite::AesGcmSha256);
    let checked = door().check(&second).unwrap();
    let cookie = jar.issue(&checked, ORIGIN, [32; 12]).unwrap();
    assert_eq!(
        client.on_message(&cookie).unwrap_err(),
        HandshakeError::CookieTwice
    );
}

#[test]
fn a_forged_mac2_does_not_pass() {
    let jar = jar();
    let (_, mut second) = hello_with_cookie(&jar, Suite::AesGcmSha256);
    second[3] = Bytes::from_static(&[7; 16]);
    assert!(!jar.admits(&door().check(&second).unwrap(), ORIGIN));
}
