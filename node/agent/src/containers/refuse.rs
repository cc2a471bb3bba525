//! What went wrong on a node, as its user should read it.
//!
//! Invariant: the message says what happened, why, and what to do; it never holds a secret.

use std::error::Error;

use teu_protocol::message::{Refusal, RefusalCode};

use crate::{
    keeper::{self, LinkError, StartError},
    layers::LayerError,
    link::chain,
    slots::SlotError,
    sys::net::NetError,
};

/// A defect or a broken machine.
#[must_use]
pub fn refuse_internal(what: &str, error: &(dyn Error + 'static)) -> Refusal {
    let message = format!("{what}: {}. `teu doctor` looks at the node", chain(error));
    Refusal::new(RefusalCode::Internal, message)
}

/// As [`refuse_start`], of a container that was running: its keeper leaves when it ends.
#[must_use]
pub fn refuse_running(error: &StartError) -> Refusal {
    match error {
        StartError::Link(LinkError::Gone) => refuse_start(&keeper::Refusal::NotRunning.into()),
        error => refuse_start(error),
    }
}

/// A process that could not be started, or a keeper's other refusals.
#[must_use]
pub fn refuse_start(error: &StartError) -> Refusal {
    use keeper::{Refusal as Keeper, StartStep};
    let StartError::Refused(refusal) = error else {
        return refuse_internal("the container's supervisor does not answer", error);
    };
    let code = match refusal {
        Keeper::CommandNotFound { .. } => RefusalCode::CommandNotFound,
        Keeper::NotExecutable { .. } => RefusalCode::CommandNotExecutable,
        Keeper::UnknownUser(_)
        | Keeper::Failed {
            step: StartStep::ResolveUser | StartStep::MakeWorkingDirectory,
            ..
        } => RefusalCode::BadRequest,
        Keeper::NotRunning | Keeper::NoTerminal | Keeper::Superseded => RefusalCode::WrongState,
        Keeper::NoSuchProcess => RefusalCode::NotFound,
        Keeper::TooManyProcesses | Keeper::TooManyReaders | Keeper::PidsLimit { .. } => {
            RefusalCode::LimitReached
        }
        Keeper::Failed { .. }
        | Keeper::NotWarm
        | Keeper::ProcessExists
        | Keeper::StdinOverrun
        | Keeper::InputMissing { .. } => RefusalCode::Internal,
    };
    let cure = match refusal {
        Keeper::CommandNotFound { .. } => {
            "; check its name and the container's PATH, or choose another image"
        }
        Keeper::NotExecutable { .. } => {
            "; check its permissions, and that its interpreter is in the image"
        }
        Keeper::PidsLimit { .. } => "; end some of its processes, or run it with a larger limit",
        Keeper::NotRunning => ". `teu logs` shows what it said; spawn another one",
        Keeper::Failed {
            step: StartStep::MakeWorkingDirectory,
            ..
        } => "; choose another working directory (-w)",
        Keeper::NoTerminal => "; start it with a terminal (-t)",
        _ => "",
    };
    Refusal::new(code, format!("{refusal}{cure}"))
}

pub(super) fn refuse_layer(error: &LayerError) -> Refusal {
    let code = match error {
        LayerError::Corrupt { .. } | LayerError::WrongSize { .. } => RefusalCode::DigestMismatch,
        error if error.is_layers_fault() => RefusalCode::BadImage,
        LayerError::Source { .. } => RefusalCode::Unavailable,
        LayerError::Missing { .. } => RefusalCode::LayerMissing,
        _ => RefusalCode::Internal,
    };
    let cure = match code {
        RefusalCode::BadImage => ". Rebuild the image, or import it again",
        RefusalCode::DigestMismatch => ". Import the image again",
        RefusalCode::Unavailable => ". Try again",
        _ => "",
    };
    Refusal::new(code, format!("{}{cure}", chain(error)))
}

pub(super) fn refuse_slot(error: &SlotError) -> Refusal {
    let full =
        matches!(error, SlotError::Network(error) if matches!(**error, NetError::Address(_)));
    if full {
        let message = "the node has no free address for another container; destroy some, or \
                       spawn on another node";
        return Refusal::new(RefusalCode::NoCapacity, message);
    }
    refuse_internal("the node cannot make a sandbox", error)
}
