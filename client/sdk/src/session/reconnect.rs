//! Dialling again after the link was lost, and what it means when that fails for good.
//!
//! Owner: the session task waits for [`reconnect`] instead of the link.

use std::time::Duration;

use teu_protocol::message::{Initiate, Refusal, RefusalCode};
use tokio::time::sleep;

use super::{task::DialOutcome, transport::Transport};
use crate::error::{CloseReason, ConnectError};

/// Dials until it is let in or told that there is no point.
pub(super) async fn reconnect<T: Transport>(
    transport: std::sync::Arc<T>,
    initiate: Initiate,
) -> DialOutcome<T> {
    for attempt in 0.. {
        match transport.dial(initiate.clone()).await {
            Err(error) if may_pass(&error) => {
                tracing::debug!(target: "teu", %error, attempt, "reconnecting");
                sleep(transport.pause(attempt)).await;
            }
            outcome => return outcome,
        }
    }
    Err(ConnectError::Link {
        reason: "no attempts are left".to_owned(),
    })
}

/// A location that hangs up on a greeting may be one that is being restarted.
const fn may_pass(error: &ConnectError) -> bool {
    matches!(error, ConnectError::NotRecognised { .. }) || error.is_retryable()
}

pub(super) fn why_over(error: ConnectError, away: Duration) -> CloseReason {
    match error {
        ConnectError::Refused(Refusal {
            code: RefusalCode::NotFound,
            ..
        }) => CloseReason::Expired { away },
        ConnectError::Refused(refusal) => CloseReason::Ended(refusal),
        ConnectError::NotAccepted { code } => CloseReason::NotAccepted(code),
        ConnectError::Link { reason }
        | ConnectError::NotRecognised { reason }
        | ConnectError::Protocol { reason } => CloseReason::Protocol(reason),
    }
}
