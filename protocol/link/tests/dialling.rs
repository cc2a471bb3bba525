//! Dialling a ROUTER over loopback, successfully and not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod router;

use std::time::{Duration, Instant};

use router::{Router, Said, key, location};
use teu_link::{Awaited, Connection, DialError, Dialer};
use teu_protocol::noise::{LocationIdentity, Suite};
use tokio::net::TcpListener;

/// Far more than loopback needs; a test that runs into it has failed.
const DEADLINE: Duration = Duration::from_secs(10);

fn dialer(router: &Router) -> Dialer {
    Dialer::new(router.address().to_string(), location(), key(2)).with_deadline(DEADLINE)
}

async fn dial(dialer: &Dialer) -> Result<Connection<Said, Said>, DialError> {
    dialer.dial(b"initiate").await
}

#[tokio::test]
async fn a_dial_ends_with_welcome_and_ready() {
    for suite in [Suite::AesGcmSha256, Suite::ChaChaPolyBlake2s] {
        let router = Router::bind().await;
        let dialer = dialer(&router).with_suite(suite);
        let ((wire, accepted), dialled) = tokio::join!(
            async {
                let (wire, mut accepted) = router.accept_initiate().await;
                let ready = rmp_serde::to_vec_named(&Said::Text("ready".into())).unwrap();
                let mut wire = wire;
                wire.send(&accepted.sealer.seal(&ready, &[], Duration::ZERO).unwrap())
                    .await;
                (wire, accepted)
            },
            dial(&dialer)
        );
        let connection = dialled.unwrap();
        assert_eq!(accepted.peer, key(2).public());
        assert_eq!(accepted.payload.as_ref(), b"initiate");
        assert_eq!(connection.welcome().as_ref(), b"welcome");
        assert_eq!(connection.ready(), &Said::Text("ready".into()));
        drop(wire);
    }
}

#[tokio::test]
async fn a_master_under_load_is_answered_with_its_cookie() {
    let mut router = Router::bind().await;
    router.under_load = true;
    let dialer = dialer(&router);
    let (_peer, connection) = tokio::join!(router.accept(), dial(&dialer));
    assert_eq!(connection.unwrap().ready(), &Said::Text("ready".into()));
}

#[tokio::test]
async fn a_refusal_after_initiate_carries_its_code() {
    let router = Router::bind().await;
    let dialer = dialer(&router);
    let ((), refused) = tokio::join!(router.refuse(403), dial(&dialer));
    assert!(
        matches!(refused, Err(DialError::Refused(403))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_location_with_another_key_hangs_up_and_the_error_says_so() {
    let router = Router::bind().await;
    let other = LocationIdentity::new("test.example.org", key(9).public(), 1).unwrap();
    let dialer = Dialer::new(router.address().to_string(), other, key(2)).with_deadline(DEADLINE);
    let accept = async {
        for _ in 0..2 {
            let mut wire = router.accept_zmtp().await;
            let hello = wire.recv().await.unwrap();
            let check = teu_protocol::noise::HelloCheck::new(vec![(location(), key(1))]);
            assert!(check.check(&hello).is_err());
        }
    };
    let ((), refused) = tokio::join!(accept, dial(&dialer));
    let error = refused.unwrap_err();
    assert!(
        matches!(error, DialError::NotRecognised { .. }),
        "{error:?}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_location_that_dies_in_the_middle_of_a_handshake_is_not_taken_for_another() {
    let router = Router::bind().await;
    let dialer = dialer(&router);
    let dies = async move {
        let mut wire = router.accept_zmtp().await;
        wire.recv().await.unwrap();
        drop((wire, router));
    };
    let ((), refused) = tokio::join!(dies, dial(&dialer));
    let error = refused.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_location_that_is_restarted_in_the_middle_of_a_handshake_is_reached() {
    let router = Router::bind().await;
    let dialer = dialer(&router);
    let restarts = async {
        let mut wire = router.accept_zmtp().await;
        wire.recv().await.unwrap();
        drop(wire);
        router.accept().await
    };
    let (_peer, connection) = tokio::join!(restarts, dial(&dialer));
    connection.unwrap();
}

#[tokio::test]
async fn nobody_there_is_noticed_long_before_the_deadline() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let dialer = Dialer::new(unused.to_string(), location(), key(2)).with_deadline(DEADLINE);
    let start = Instant::now();
    let error = dial(&dialer).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert!(start.elapsed() < DEADLINE / 2);
}

#[tokio::test]
async fn a_peer_that_says_nothing_runs_into_the_deadline() {
    let router = Router::bind().await;
    let dialer = dialer(&router).with_deadline(Duration::from_millis(300));
    let accept = async {
        let mut wire = router.accept_zmtp().await;
        wire.recv().await.unwrap();
        // Silence, until the dialler goes.
        assert!(wire.recv().await.is_none());
    };
    let ((), refused) = tokio::join!(accept, dial(&dialer));
    let Err(DialError::TimedOut { awaited, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(awaited, Awaited::Welcome);
}

#[tokio::test]
async fn an_address_without_a_port_is_not_dialled() {
    let dialer = Dialer::new("localhost", location(), key(2)).with_deadline(DEADLINE);
    let error = dial(&dialer).await.unwrap_err();
    assert!(matches!(error, DialError::Endpoint { .. }), "{error:?}");
}
