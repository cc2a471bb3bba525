//! An honest client, before, during and after an attack.

use std::time::{Duration, Instant};

use teu_protocol::message::{RequestBody, SessionAsk};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{ANN, LinkedClient, Target};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// A client that asks on and on.
#[derive(Debug)]
pub struct Honest {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Served>,
}

/// How it was served.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Requests that were answered: all that it asked.
    pub requests: u32,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Honest {
    /// Connects and begins to ask. A request that is not answered fails the test.
    #[allow(
        clippy::expect_used,
        reason = "a client that cannot connect has failed the test"
    )]
    pub async fn begin(target: &Target) -> Self {
        let session = SessionAsk::New;
        let mut client = LinkedClient::dial(target, ANN, session)
            .await
            .expect("an honest client");
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut served = Served {
                requests: 0,
                slowest: Duration::ZERO,
            };
            loop {
                let begun = Instant::now();
                client.request(RequestBody::List).await.expect("an answer");
                served.requests += 1;
                served.slowest = served.slowest.max(begun.elapsed());
                if stopped.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            served
        });
        Self { stop, task }
    }

    /// Stops asking; fails the test if it was not served throughout.
    #[allow(
        clippy::expect_used,
        reason = "a client that was not served has failed the test"
    )]
    pub async fn end(self) -> Served {
        let _ = self.stop.send(());
        let served = self.task.await.expect("a client that was served");
        assert!(
            served.slowest < Duration::from_secs(3),
            "an answer took {:?}",
            served.slowest
        );
        served
    }
}
