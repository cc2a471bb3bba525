//! A cut of the network is told on standard error, so that waiting does not look like hanging.
//!
//! Owner: every verb that is connected. Invariant: nothing is said of what is over within three seconds.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use teu::LinkState;
use tokio::{sync::watch, time::timeout};

/// Shorter waits are not worth a word.
pub(crate) const TOLD_AFTER: Duration = Duration::from_secs(3);

/// Tells of cuts until the session is over.
pub(crate) async fn watch(mut state: watch::Receiver<LinkState>) {
    loop {
        let begun = state.wait_for(|state| since(state).is_some()).await;
        let Some(since) = begun.ok().and_then(|state| since(&state)) else {
            return;
        };
        let left = TOLD_AFTER.saturating_sub(since.elapsed());
        let over = |state: &LinkState| self::since(state).is_none();
        if timeout(left, state.wait_for(over)).await.is_ok() {
            continue;
        }
        say("the location does not answer; waiting until it does (Ctrl-C gives up)");
        match state.wait_for(over).await.as_deref() {
            Ok(LinkState::Connected) => {
                let seconds = since.elapsed().as_secs();
                say(&format!("the location answers again, after {seconds} s"));
            }
            // Its end is told by whoever waits.
            _ => return,
        }
    }
}

/// Since when the location does not answer.
const fn since(state: &LinkState) -> Option<Instant> {
    match state {
        LinkState::Unanswered { since } | LinkState::Reconnecting { since } => Some(*since),
        LinkState::Connected | LinkState::Closed(_) => None,
    }
}

/// Says it; a terminal may be in raw mode.
pub(crate) fn say(text: &str) {
    let end = if io::stderr().is_terminal() {
        "\r\n"
    } else {
        "\n"
    };
    // Nobody may be there to read it.
    let _ = write!(io::stderr(), "teu: {text}{end}");
}
