//! The texts of refusals that more than one place gives, so that they cannot differ.
//!
//! Invariant: a container of another session and one that does not exist are refused by the same
//! function.

use teu_protocol::message::{Refusal, RefusalCode};

pub(crate) fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

pub(crate) fn no_container() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "there is no such container in this session. `teu ps` lists those that there are",
    )
}

pub(crate) fn no_volume() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "there is no such volume of this account. `teu volume ls` lists those that there are",
    )
}

pub(crate) fn no_process() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "there is no such process in this container: it has ended, or never was. \
         `teu inspect` lists those that there are",
    )
}

pub(crate) fn no_session() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "there is no such session of this account: it has ended. Connect without it",
    )
}

pub(crate) fn no_image() -> Refusal {
    Refusal::new(
        RefusalCode::ImageMissing,
        "the image is not in this account's catalogue. `teu images` lists those that are; \
         `teu image import` adds one",
    )
}

pub(crate) fn node_lost(name: &str) -> Refusal {
    Refusal::new(
        RefusalCode::NodeLost,
        format!("the link to node `{name}` is down; it is tried again until it is back"),
    )
}

/// Instead of `refusal`, which holds only as long as that node is away.
pub(crate) fn node_may_come_back(name: &str, refusal: &Refusal) -> Refusal {
    Refusal::new(
        RefusalCode::NodeLost,
        format!(
            "{}; the link to node `{name}` was lost a moment ago, and it is waited for",
            refusal.message
        ),
    )
}

pub(crate) fn settling() -> Refusal {
    Refusal::new(
        RefusalCode::Unavailable,
        "the master has just started and still asks its nodes what they run; try again shortly",
    )
}

pub(crate) fn node_is_receiving() -> Refusal {
    Refusal::new(
        RefusalCode::Unavailable,
        "the node still receives the files of other spawns; try again shortly",
    )
}

pub(crate) fn wrong_state(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::WrongState, message)
}

pub(crate) fn limit(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::LimitReached, message)
}

pub(crate) fn odd_answer(node: &str) -> Refusal {
    Refusal::new(
        RefusalCode::Internal,
        format!(
            "node `{node}` answered something else than it was asked. Compare the versions \
                 of master and node with `teu doctor`"
        ),
    )
}
