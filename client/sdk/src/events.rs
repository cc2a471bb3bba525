//! What happens at the location, as a stream.
//!
//! Owner: the session task sends, each [`Events`] reads. Invariant: an event is told after handles show
//! it; a reader that falls behind is told how much it missed, and holds up nobody.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, stream};
use teu_protocol::{
    ids::{ContainerId, NodeId, VolumeId},
    message::{ContainerInfo, EventBody, NodeOffer, ProcessInfo, VolumeInfo},
};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events kept for a reader that is behind: some seconds of a busy session (one event is some
/// hundred bytes).
pub(crate) const KEPT: usize = 1024;

/// Something that happened at the location; see [`crate::Location::events`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LocationEvent {
    /// A node is new or changed.
    Node(NodeOffer),
    /// A node left the offer.
    NodeGone(NodeId),
    /// A container of this session is new or changed.
    Container(ContainerInfo),
    /// A container of this session is destroyed.
    ContainerGone(ContainerId),
    /// A further process of a container ended.
    Process(ProcessInfo),
    /// A volume of the account is new or changed.
    Volume(VolumeInfo),
    /// A volume of the account is destroyed.
    VolumeGone(VolumeId),
    /// A message of the location, for people.
    Warning(String),
    /// The link came back after a loss. Events of the meantime are not told one by one:
    /// [`crate::Location::containers`] and the offer show what holds now.
    Resumed,
    /// This reader was behind, and so many events were dropped.
    Missed(u64),
}

impl From<EventBody> for LocationEvent {
    fn from(body: EventBody) -> Self {
        match body {
            EventBody::Node(node) => Self::Node(node),
            EventBody::NodeGone(id) => Self::NodeGone(id),
            EventBody::Container(info) => Self::Container(*info),
            EventBody::ContainerGone(id) => Self::ContainerGone(id),
            EventBody::Process(info) => Self::Process(info),
            EventBody::Volume(info) => Self::Volume(*info),
            EventBody::VolumeGone(id) => Self::VolumeGone(id),
            EventBody::Warning(text) => Self::Warning(text),
        }
    }
}

/// A stream of [`LocationEvent`]s from when it was made. It ends with the session.
pub struct Events {
    events: Pin<Box<dyn Stream<Item = LocationEvent> + Send>>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<LocationEvent>) -> Self {
        let events = stream::unfold(receiver, |mut receiver| async {
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(count)) => LocationEvent::Missed(count),
                Err(RecvError::Closed) => return None,
            };
            Some((event, receiver))
        });
        Self {
            events: Box::pin(events),
        }
    }
}

impl Stream for Events {
    type Item = LocationEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_how_much_it_missed() {
        let (sender, receiver) = broadcast::channel(2);
        let mut events = Events::new(receiver);
        for number in 0..5 {
            sender
                .send(LocationEvent::Warning(number.to_string()))
                .unwrap();
        }
        drop(sender);
        let seen: Vec<_> = events.by_ref().collect().await;
        assert_eq!(
            seen,
            [
                LocationEvent::Missed(3),
                LocationEvent::Warning("3".to_owned()),
                LocationEvent::Warning("4".to_owned()),
            ]
        );
    }
}
