//! The task that owns a session.
//!
//! It waits for four things: what handles ask, what the link says, what the outbox reports, and
//! streams that nobody holds any more. While the link is down it waits for the reconnect instead
//! of the link. It never waits for a reader of a stream.

use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use teu_protocol::{
    ids::RequestId,
    message::{
        ClientToMaster, Initiate, MasterToClient, Ready, Reply, ReplyBody, Request, RequestBody,
        SessionAsk, SessionLimits, StreamFrame,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    LinkState, SessionHandle, StreamAsk,
    command::{AskError, Command},
    cut::Cuts,
    outbox::{self, Outbox, Report},
    pending::{Pending, Waiter, WaitingOpen, refuse_impatient},
    reconnect::{reconnect, why_over},
    streams::Streams,
    transport::{Dialled, LinkReceive as _, Transport},
    view::ViewWriter,
};
use crate::{
    error::{CloseReason, ConnectError},
    stream::{Notice, Outgoing},
};

/// Commands that may wait for the task: enough for a burst of spawns, few enough that callers feel
/// it when the task is behind.
const COMMAND_QUEUE: usize = 256;

/// How long a goodbye waits for the location to hang up.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

pub(super) type DialOutcome<T> =
    Result<Dialled<<T as Transport>::Sender, <T as Transport>::Receiver>, ConnectError>;
type Reconnect<T> = Pin<Box<dyn Future<Output = DialOutcome<T>> + Send>>;

/// Starts the task on a connection that is up. `initiate` is what the first connection said.
pub(crate) fn start<T: Transport>(
    transport: T,
    initiate: Initiate,
    dialled: Dialled<T::Sender, T::Receiver>,
) -> SessionHandle {
    let (commands, command_rx) = mpsc::channel(COMMAND_QUEUE);
    let (link, link_rx) = watch::channel(LinkState::Connected);
    let (view_writer, view) = ViewWriter::new();
    let (notices, notice_rx) = mpsc::unbounded_channel();
    let (outbox, outbox_task) = outbox::start();
    let mut task = SessionTask {
        transport: std::sync::Arc::new(transport),
        initiate,
        commands: command_rx,
        notices: notice_rx,
        link,
        outbox,
        epoch: 0,
        limits: dialled.ready.limits,
        pending: Pending::default(),
        waiting: VecDeque::new(),
        streams: Streams::new(notices),
        view: view_writer,
        cuts: Cuts::default(),
        next_check: Instant::now(),
        line: Line::Down(Box::pin(std::future::pending())),
        closing: Vec::new(),
    };
    task.link_up(dialled);
    tokio::spawn(task.run(outbox_task));
    SessionHandle {
        commands,
        link: link_rx,
        view,
    }
}

pub(super) struct SessionTask<T: Transport> {
    transport: std::sync::Arc<T>,
    initiate: Initiate,
    commands: mpsc::Receiver<Command>,
    notices: mpsc::UnboundedReceiver<Notice>,
    pub(super) link: watch::Sender<LinkState>,
    outbox: Outbox<T::Sender>,
    /// Counts connections.
    epoch: u64,
    limits: SessionLimits,
    pub(super) pending: Pending,
    waiting: VecDeque<WaitingOpen>,
    pub(super) streams: Streams,
    view: ViewWriter,
    cuts: Cuts,
    pub(super) next_check: Instant,
    pub(super) line: Line<T>,
    /// Who waits for the goodbye.
    closing: Vec<oneshot::Sender<()>>,
}

pub(super) enum Line<T: Transport> {
    Up(T::Receiver),
    Down(Reconnect<T>),
}

/// What woke the task.
enum Wake<T: Transport> {
    Command(Option<Command>),
    Notice(Notice),
    Report(Report),
    Heard(MasterToClient, Vec<Bytes>),
    LinkGone(String),
    /// Time to see whether the location still answers.
    Check,
    Dialled(DialOutcome<T>),
}

/// Why the task ends.
struct Over(CloseReason);

impl<T: Transport> SessionTask<T> {
    async fn run(mut self, outbox_task: JoinHandle<()>) {
        let Over(reason) = loop {
            let wake = self.next_wake().await;
            if let Err(over) = self.handle(wake).await {
                break over;
            }
        };
        self.streams.link_lost();
        self.link.send_replace(LinkState::Closed(reason.clone()));
        for waiter in self.pending.drain() {
            fail(waiter, &reason);
        }
        for open in self.waiting.drain(..) {
            let _ = open.reply.send(Err(AskError::Closed(reason.clone())));
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Request { reply, .. } => drop(reply),
                Command::Open { reply, .. } => drop(reply),
                Command::Close { done } => drop(done),
            }
        }
        drop(self);
        // The outbox ends with our side of its channels.
        let _ = outbox_task.await;
    }

    /// Cancel-safe: each branch is.
    async fn next_wake(&mut self) -> Wake<T> {
        let (expects, next_check) = (self.quiet().is_some(), self.next_check);
        let line = async {
            match &mut self.line {
                Line::Up(receiver) => match receiver.receive().await {
                    Ok((message, bulk)) => Wake::Heard(message, bulk),
                    Err(gone) => Wake::LinkGone(gone.0),
                },
                Line::Down(reconnect) => Wake::Dialled(reconnect.await),
            }
        };
        tokio::select! {
            command = self.commands.recv() => Wake::Command(command),
            Some(notice) = self.notices.recv() => Wake::Notice(notice),
            Some(report) = self.outbox.reports.recv() => Wake::Report(report),
            wake = line => wake,
            () = sleep_until(next_check), if expects => Wake::Check,
        }
    }

    async fn handle(&mut self, wake: Wake<T>) -> Result<(), Over> {
        match wake {
            Wake::Command(Some(command)) => return self.command(command).await,
            Wake::Command(None) => return Err(self.goodbye().await),
            Wake::Notice(notice) => {
                if let Some(frame) = self.streams.abandoned(notice) {
                    self.send_behind_data(frame);
                }
                self.open_waiting();
            }
            Wake::Report(Report::Failed(epoch, why)) if epoch == self.epoch => {
                self.link_lost(&why);
            }
            Wake::Report(Report::Failed(..)) => {}
            Wake::Report(Report::CloseSent(stream)) => {
                self.streams.close_sent(stream);
                self.open_waiting();
            }
            Wake::Heard(message, bulk) => {
                self.answers();
                return self.heard(message, bulk);
            }
            Wake::Check => self.check(),
            Wake::LinkGone(why) => self.link_lost(&why),
            Wake::Dialled(Ok(dialled)) => self.link_up(dialled),
            Wake::Dialled(Err(error)) => return Err(Over(why_over(error, self.cuts.away()))),
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<(), Over> {
        match command {
            Command::Request {
                id,
                body,
                bulk,
                reply,
            } => {
                self.pending
                    .insert(id, Waiter::Request { body, bulk, reply });
                if matches!(self.line, Line::Up(_)) && self.may_send(id) {
                    self.send_request(id);
                }
            }
            Command::Open { ask, reply } => {
                self.waiting.push_back(WaitingOpen { ask, reply });
                self.open_waiting();
            }
            Command::Close { done } => {
                self.closing.push(done);
                return Err(self.goodbye().await);
            }
        }
        Ok(())
    }

    fn heard(&mut self, message: MasterToClient, bulk: Vec<Bytes>) -> Result<(), Over> {
        match message {
            MasterToClient::Reply(reply) => self.reply(*reply),
            MasterToClient::Event(event) => {
                if let Err(missing) = self.view.apply(event.seq, event.body) {
                    // READY of a new connection brings the whole truth.
                    self.link_lost(&format!(
                        "event {} came instead of {}",
                        missing.got, missing.expected
                    ));
                }
            }
            MasterToClient::Stream(frame) => {
                let closes = matches!(frame, StreamFrame::Close { .. });
                if let Err(offence) = self.streams.receive(frame, bulk) {
                    return Err(Over(CloseReason::Protocol(offence.0.to_owned())));
                }
                if closes {
                    self.open_waiting();
                }
            }
            MasterToClient::Closing(refusal) if refusal.retryable => {
                self.link_lost(&refusal.message);
            }
            MasterToClient::Closing(refusal) => return Err(Over(CloseReason::Ended(refusal))),
            MasterToClient::Ready(ready) => self.snapshot(*ready),
            // The link keeps heartbeats to itself.
            MasterToClient::Ping(_) | MasterToClient::Pong(_) => {}
        }
        Ok(())
    }

    fn reply(&mut self, reply: Reply) {
        let Reply { id, mut result } = reply;
        self.cuts.explain(id, &mut result);
        if let Ok(body) = &result {
            self.learn(body);
        }
        match self.pending.remove(id) {
            Some(Waiter::Request { body, reply, .. }) => {
                match (&body, &result) {
                    (RequestBody::Destroy(container), Ok(_)) => self.view.remove(*container),
                    (RequestBody::DestroyVolume(volume), Ok(_)) => self.view.remove_volume(*volume),
                    _ => {}
                }
                let _ = reply.send(result.map_err(AskError::Refused));
            }
            Some(Waiter::Open { stream, reply }) => {
                let outcome = match result {
                    Ok(body) => {
                        let credit = match &body {
                            ReplyBody::Opened { window, .. }
                            | ReplyBody::Upload { window, .. }
                            | ReplyBody::Importing { window, .. } => *window,
                            _ => 0,
                        };
                        let opened = self.streams.opened(stream, credit);
                        opened
                            .map(|stream| (stream, body))
                            .ok_or(AskError::LinkLost)
                    }
                    Err(refusal) => {
                        self.streams.refused(stream);
                        Err(AskError::Refused(refusal))
                    }
                };
                // If nobody waits any more, dropping the stream closes it.
                let _ = reply.send(outcome);
            }
            None => {}
        }
        while let Some(id) = self.pending.next_held_back(self.limits.requests as usize) {
            self.send_request(id);
        }
        self.open_waiting();
    }

    fn learn(&mut self, body: &ReplyBody) {
        match body {
            ReplyBody::Spawned(info) | ReplyBody::Container(info) => self.view.learn(info),
            ReplyBody::Detail(detail) => self.view.learn(&detail.info),
            ReplyBody::Containers(infos) => infos.iter().for_each(|info| self.view.learn(info)),
            ReplyBody::Volume(info) => self.view.put_volume((**info).clone()),
            _ => {}
        }
    }

    /// Opens what waits, first come first served, until there is no room.
    fn open_waiting(&mut self) {
        if !matches!(self.line, Line::Up(_)) {
            return;
        }
        while self.pending.has_room(self.limits.requests as usize) {
            let Some(open) = self.waiting.pop_front() else {
                return;
            };
            if open.reply.is_closed() {
                continue;
            }
            let Outbox { control, bulk, .. } = &self.outbox;
            let room = self
                .streams
                .reserve(&open.ask, self.epoch, &self.limits, control, bulk);
            let Some((stream, window)) = room else {
                self.waiting.push_front(open);
                refuse_impatient(&mut self.waiting, self.limits.streams);
                return;
            };
            let WaitingOpen { ask, reply } = open;
            // A new id each time: a stream lives on one connection, so does its request.
            let id = RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes());
            self.pending.insert_open(id, Waiter::Open { stream, reply });
            let body = StreamAsk::body(&ask, stream, window);
            self.cuts.asked(id, &body);
            self.send(
                ClientToMaster::Request(Box::new(Request { id, body })),
                Vec::new(),
            );
        }
    }

    fn may_send(&mut self, id: RequestId) -> bool {
        self.pending.may_send(id, self.limits.requests as usize)
    }

    fn send_request(&mut self, id: RequestId) {
        let Some((body, bulk)) = self.pending.request(id) else {
            return;
        };
        self.cuts.asked(id, body);
        let request = Request {
            id,
            body: body.clone(),
        };
        let bulk = bulk.clone();
        self.send(ClientToMaster::Request(Box::new(request)), bulk);
    }

    fn send(&self, message: ClientToMaster, bulk: Vec<Bytes>) {
        // The outbox lives as long as this task.
        let _ = self
            .outbox
            .control
            .send(Outgoing::new(self.epoch, message, bulk));
    }

    /// A Close must not overtake the Data that was written before it.
    fn send_behind_data(&self, frame: StreamFrame) {
        let outgoing = Outgoing::new(self.epoch, ClientToMaster::Stream(frame), Vec::new());
        if let Err(mpsc::error::TrySendError::Full(outgoing)) = self.outbox.bulk.try_send(outgoing)
        {
            let bulk = self.outbox.bulk.clone();
            // At most one a stream; ends when the outbox has taken or dropped it.
            tokio::spawn(async move { bulk.send(outgoing).await });
        }
    }

    fn link_up(&mut self, dialled: Dialled<T::Sender, T::Receiver>) {
        let Dialled {
            sender,
            receiver,
            ready,
        } = dialled;
        self.epoch += 1;
        let _ = self.outbox.links.send(Some((self.epoch, sender)));
        self.line = Line::Up(receiver);
        let ended = self.view.missing_in(&ready);
        if let Some(away) = self.cuts.over(&ended) {
            self.view.ended_by_cut(&ended, away);
        }
        self.snapshot(ready);
        self.link.send_replace(LinkState::Connected);
        for id in self.pending.ids() {
            if self.may_send(id) {
                self.send_request(id);
            }
        }
        self.open_waiting();
    }

    fn snapshot(&mut self, ready: Ready) {
        self.limits = ready.limits;
        if self.initiate.session == SessionAsk::New {
            self.initiate.session = SessionAsk::Resume(ready.session);
        }
        self.view.replace(ready);
    }

    fn link_lost(&mut self, why: &str) {
        tracing::debug!(target: "teu", why, "the link to the location is lost");
        // What is queued for the old connection is worth nothing any more.
        self.epoch += 1;
        let _ = self.outbox.links.send(None);
        self.streams.link_lost();
        for waiter in self.pending.link_lost() {
            if let Waiter::Open { reply, .. } = waiter {
                let _ = reply.send(Err(AskError::LinkLost));
            }
        }
        self.cuts.lost();
        let since = std::time::Instant::now();
        self.link.send_replace(LinkState::Reconnecting { since });
        let (transport, initiate) = (
            std::sync::Arc::clone(&self.transport),
            self.initiate.clone(),
        );
        self.line = Line::Down(Box::pin(reconnect(transport, initiate)));
    }

    /// Says goodbye and waits, briefly, until the location hangs up: then it has heard it.
    async fn goodbye(&mut self) -> Over {
        let Line::Up(receiver) = &mut self.line else {
            return Over(CloseReason::Closed);
        };
        let (sent, was_sent) = oneshot::channel();
        let mut outgoing = Outgoing::new(self.epoch, ClientToMaster::Goodbye, Vec::new());
        outgoing.sent = Some(sent);
        let _ = self.outbox.control.send(outgoing);
        let farewell = async {
            let _ = was_sent.await;
            while receiver.receive().await.is_ok() {}
        };
        if timeout(GOODBYE_PATIENCE, farewell).await.is_err() {
            tracing::debug!(target: "teu", "the location did not hang up after our goodbye");
        }
        Over(CloseReason::Closed)
    }
}

fn fail(waiter: Waiter, reason: &CloseReason) {
    match waiter {
        Waiter::Request { reply, .. } => {
            let _ = reply.send(Err(AskError::Closed(reason.clone())));
        }
        Waiter::Open { reply, .. } => {
            let _ = reply.send(Err(AskError::Closed(reason.clone())));
        }
    }
}
