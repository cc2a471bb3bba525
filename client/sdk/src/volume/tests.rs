//! Volumes against a fake master: what is asked, what the view shows, and streams that are cut.

use std::{future::IntoFuture, io, time::Duration};

use bytes::Bytes;
use teu_protocol::{
    ids::StreamId,
    message::{
        Channel, Event, EventBody, ImportTarget, MasterToClient, RefusalCode, RollBack,
        SnapshotSchedule, StreamEnd, StreamFrame, VolumeState,
    },
};
use tokio::{io::AsyncReadExt as _, task::JoinHandle};

use super::*;
use crate::session::fake::{FakeMaster, FarEnd, ready, volume_info};

const PIECE: &[u8] = b"piece";

struct Scene {
    session: SessionHandle,
    _master: FakeMaster,
    far: FarEnd,
    volume: Volume,
}

impl Scene {
    async fn new() -> Self {
        let (session, master, far) = FakeMaster::connected(ready()).await;
        let volume = Volume::new(session.clone(), volume_info());
        Self {
            session,
            _master: master,
            far,
            volume,
        }
    }

    /// Lets the client ask, and answers; gives what was asked for.
    async fn asked<T: Send + 'static>(
        &mut self,
        ask: impl Future<Output = T> + Send + 'static,
        reply: ReplyBody,
    ) -> (RequestBody, T) {
        let asked = tokio::spawn(ask);
        let request = self.far.request().await;
        self.far.reply(request.id, Ok(reply));
        (request.body, asked.await.unwrap())
    }

    fn event(&self, seq: u64, body: EventBody) {
        self.far
            .say(MasterToClient::Event(Event { seq, body }), Vec::new());
    }

    /// An export that is open, and its stream.
    async fn export(&mut self) -> (VolumeExport, StreamId) {
        let volume = self.volume.clone();
        let export = tokio::spawn(async move { volume.export("two", Some("one")).await });
        let (body, stream, _) = self.far.open(0).await;
        assert!(
            matches!(&body, RequestBody::ExportVolume { snapshot, base: Some(base), .. }
                if snapshot.as_str() == "two" && base.as_str() == "one"),
            "{body:?}"
        );
        (export.await.unwrap().unwrap(), stream)
    }

    /// An import of `reader` that is open, and its stream.
    async fn import(
        &mut self,
        reader: impl AsyncRead + Unpin + Send + 'static,
    ) -> (JoinHandle<Result<Volume>>, StreamId) {
        let builder = self.volume.import_from(reader);
        let import = tokio::spawn(builder.into_future());
        let request = self.far.request().await;
        let RequestBody::ImportVolume { target, stream } = request.body else {
            panic!("an import is expected");
        };
        assert_eq!(target, ImportTarget::Into(self.volume.id()));
        let reply = ReplyBody::Importing {
            volume: self.volume.id(),
            window: 1 << 20,
        };
        self.far.reply(request.id, Ok(reply));
        (import, stream)
    }
}

fn named(tag: &str) -> VolumeInfo {
    let mut info = volume_info();
    info.spec.tag = Some(tag.parse().unwrap());
    info
}

#[tokio::test(start_paused = true)]
async fn a_builder_asks_for_all_that_was_chosen() {
    let mut scene = Scene::new().await;
    let node = scene.volume.node();
    let builder = VolumeBuilder::new(scene.session.clone())
        .tag("db")
        .quota(1 << 30)
        .node(node)
        .schedule(Duration::from_secs(3600), 24)
        .label("app", "shop");
    let reply = ReplyBody::Volume(Box::new(named("db")));
    let (body, made) = scene.asked(builder.into_future(), reply).await;
    let spec = VolumeSpec {
        tag: Some("db".parse().unwrap()),
        quota_bytes: Some(1 << 30),
        schedule: Some(SnapshotSchedule {
            every_s: 3600,
            keep: 24,
        }),
        labels: [("app".to_owned(), "shop".to_owned())].into(),
    };
    let wanted = RequestBody::CreateVolume {
        node: Some(node),
        spec,
        ensure: false,
    };
    assert_eq!(body, wanted);
    // It is in the offer before any event tells of it.
    assert_eq!(made.unwrap().tag().unwrap().as_str(), "db");
    assert_eq!(scene.session.view().offer.borrow().volumes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_name_is_not_asked_for() {
    let mut scene = Scene::new().await;
    let bad = VolumeBuilder::ensuring(scene.session.clone(), parse_tag("no/name")).await;
    assert!(matches!(bad, Err(Error::Tag(_))));
    assert!(matches!(
        scene.volume.rollback("no/name").await,
        Err(Error::Tag(_))
    ));
    let clone = scene.volume.clone_from("s").node(scene.volume.node()).await;
    assert!(matches!(clone, Err(Error::Invalid { .. })));
    assert!(scene.far.hear_now().is_none());
}

#[tokio::test(start_paused = true)]
async fn events_and_answers_keep_the_view_true() {
    let mut scene = Scene::new().await;
    let mut offer = scene.session.view().offer.clone();
    offer.mark_unchanged();
    assert!(scene.volume.is_gone(), "nobody has told of it yet");
    scene.event(1, EventBody::Volume(Box::new(named("db"))));
    offer.changed().await.unwrap();
    assert_eq!(scene.volume.tag().unwrap().as_str(), "db");
    let mut lost = named("db");
    lost.state = VolumeState::NodeLost;
    scene.event(2, EventBody::Volume(Box::new(lost)));
    offer.changed().await.unwrap();
    assert_eq!(scene.volume.info().state, VolumeState::NodeLost);
    assert_eq!(offer.borrow().volumes.len(), 1);
    scene.event(3, EventBody::VolumeGone(scene.volume.id()));
    offer.changed().await.unwrap();
    assert!(scene.volume.is_gone() && offer.borrow().volumes.is_empty());
    // What this program destroys is gone when the answer is there.
    scene.event(4, EventBody::Volume(Box::new(named("db"))));
    offer.changed().await.unwrap();
    let volume = scene.volume.clone();
    let destroy = async move { volume.destroy().await };
    let (body, done) = scene.asked(destroy, ReplyBody::Done).await;
    assert_eq!(body, RequestBody::DestroyVolume(scene.volume.id()));
    assert!(done.is_ok() && scene.volume.is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_says_what_may_be_lost_and_a_refusal_keeps_its_code() {
    let mut scene = Scene::new().await;
    let rollback = scene.volume.rollback("before").discard_later().force();
    let (body, done) = scene.asked(rollback.into_future(), ReplyBody::Done).await;
    let wanted = RollBack {
        volume: scene.volume.id(),
        snapshot: "before".parse().unwrap(),
        discard_later: true,
        force: true,
    };
    assert_eq!(body, RequestBody::RollBack(wanted));
    done.unwrap();

    let rollback = tokio::spawn(scene.volume.rollback("before").into_future());
    let request = scene.far.request().await;
    assert!(
        matches!(&request.body, RequestBody::RollBack(ask) if !ask.discard_later && !ask.force)
    );
    scene.far.refuse(request.id, RefusalCode::Busy);
    let refused = rollback.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Some(RefusalCode::Busy));
    assert!(!refused.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn an_export_ends_only_when_the_location_says_so() {
    let mut scene = Scene::new().await;
    let (mut export, stream) = scene.export().await;
    scene.far.data(stream, Channel::Main, 0, PIECE);
    scene.far.frame(StreamFrame::Eof {
        stream,
        channel: Channel::Main,
        cursor: 0,
    });
    let mut piece = [0; PIECE.len()];
    export.read_exact(&mut piece).await.unwrap();
    assert_eq!(piece, PIECE);
    // End of data is not the end: the Close may still say that it failed.
    let early = tokio::time::timeout(Duration::from_secs(9), export.read(&mut piece)).await;
    assert!(early.is_err(), "{early:?}");
    scene.far.close(stream, StreamEnd::Done);
    assert_eq!(export.read(&mut piece).await.unwrap(), 0);
    assert_eq!(export.read(&mut piece).await.unwrap(), 0);
}

/// How an export can be cut.
fn cuts() -> Vec<Option<StreamEnd>> {
    let refusal = teu_protocol::message::Refusal::new(RefusalCode::Faulted, "no");
    vec![
        Some(StreamEnd::Reset),
        Some(StreamEnd::Failed(refusal)),
        // The link is lost.
        None,
    ]
}

#[tokio::test(start_paused = true)]
async fn an_export_that_is_cut_fails_and_stays_failed() {
    for cut in cuts() {
        let mut scene = Scene::new().await;
        let (mut export, stream) = scene.export().await;
        scene.far.data(stream, Channel::Main, 0, PIECE);
        match cut.clone() {
            Some(end) => scene.far.close(stream, end),
            None => scene.far = scene.lost_link(),
        }
        let mut all = Vec::new();
        let failed = export.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(all, PIECE);
        let why = failed.downcast::<Error>().unwrap();
        let typed = match &cut {
            Some(StreamEnd::Reset) => matches!(why, Error::Cut { .. }),
            Some(_) => why.code() == Some(RefusalCode::Faulted),
            None => matches!(why, Error::LinkLost { .. }),
        };
        assert!(typed, "{cut:?}: {why:?}");
        assert!(export.read_to_end(&mut all).await.is_err(), "{cut:?}");
    }
}

impl Scene {
    /// Drops the far end; the session would dial again, nobody answers.
    fn lost_link(&mut self) -> FarEnd {
        FarEnd::unconnected()
    }
}

#[tokio::test]
async fn a_file_gets_its_name_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.teu");
    let part = directory.path().join("db.teu.part");
    std::fs::write(&path, "older").unwrap();
    for cut in cuts() {
        let mut scene = Scene::new().await;
        let (export, stream) = scene.export().await;
        let target = path.clone();
        let (begun, mut began) = tokio::sync::mpsc::unbounded_channel();
        let save = tokio::spawn(async move {
            let told = |bytes| begun.send(bytes).unwrap_or_default();
            export.save(target, told).await
        });
        scene.far.data(stream, Channel::Main, 0, PIECE);
        assert_eq!(began.recv().await, Some(PIECE.len() as u64));
        assert!(part.exists());
        match cut {
            Some(end) => scene.far.close(stream, end),
            None => scene.far = scene.lost_link(),
        }
        assert!(save.await.unwrap().is_err());
        assert!(!part.exists());
        assert_eq!(std::fs::read(&path).unwrap(), b"older");
    }
    let mut scene = Scene::new().await;
    let (export, stream) = scene.export().await;
    scene.far.data(stream, Channel::Main, 0, PIECE);
    scene.far.close(stream, StreamEnd::Done);
    assert_eq!(
        export.save(&path, |_| {}).await.unwrap(),
        PIECE.len() as u64
    );
    assert!(!part.exists());
    assert_eq!(std::fs::read(&path).unwrap(), PIECE);
}

#[tokio::test(start_paused = true)]
async fn an_export_that_nobody_reads_any_more_is_told() {
    let mut scene = Scene::new().await;
    let (export, stream) = scene.export().await;
    drop(export);
    let (frame, _) = scene.far.next_frame().await;
    let end = StreamEnd::Reset;
    assert_eq!(frame, StreamFrame::Close { stream, end });
}

#[tokio::test(start_paused = true)]
async fn an_import_is_done_when_the_node_says_so() {
    let mut scene = Scene::new().await;
    let (import, stream) = scene.import(PIECE).await;
    assert_eq!(scene.far.next_frame().await.1, PIECE);
    let (frame, _) = scene.far.next_frame().await;
    let channel = Channel::Main;
    assert_eq!(
        frame,
        StreamFrame::Eof {
            stream,
            channel,
            cursor: 0
        }
    );
    scene.far.close(stream, StreamEnd::Done);
    let request = scene.far.request().await;
    assert_eq!(
        request.body,
        RequestBody::FindVolume(scene.volume.id().to_string())
    );
    let reply = ReplyBody::Volume(Box::new(named("db")));
    scene.far.reply(request.id, Ok(reply));
    assert_eq!(import.await.unwrap().unwrap().id(), scene.volume.id());
}

#[tokio::test(start_paused = true)]
async fn an_import_whose_reader_fails_is_reset() {
    let mut scene = Scene::new().await;
    let failing = failing_reader();
    let (import, stream) = scene.import(failing).await;
    assert_eq!(scene.far.next_frame().await.1, PIECE);
    let (frame, _) = scene.far.next_frame().await;
    let end = StreamEnd::Reset;
    assert_eq!(frame, StreamFrame::Close { stream, end });
    let failed = import.await.unwrap().unwrap_err();
    assert!(matches!(failed, Error::Io { .. }), "{failed:?}");
}

/// Gives a piece, then fails.
fn failing_reader() -> impl AsyncRead + Unpin + Send {
    let items = [
        Ok(Bytes::from_static(PIECE)),
        Err(io::Error::other("the disk is gone")),
    ];
    tokio_util::io::StreamReader::new(futures::stream::iter(items))
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_refused_midway_does_not_wait_for_more_bytes() {
    let mut scene = Scene::new().await;
    // Its writing end is held open: it never ends.
    let (endless, _held) = tokio::io::duplex(16);
    let (import, stream) = scene.import(endless).await;
    let refusal = teu_protocol::message::Refusal::new(RefusalCode::NoSpace, "full");
    scene.far.close(stream, StreamEnd::Failed(refusal));
    let failed = import.await.unwrap().unwrap_err();
    assert_eq!(failed.code(), Some(RefusalCode::NoSpace));
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_dropped_or_loses_its_link_is_no_success() {
    let mut scene = Scene::new().await;
    let (endless, _held) = tokio::io::duplex(16);
    let (import, stream) = scene.import(endless).await;
    import.abort();
    let (frame, _) = scene.far.next_frame().await;
    let end = StreamEnd::Reset;
    assert_eq!(frame, StreamFrame::Close { stream, end });

    let (import, _) = scene.import(PIECE).await;
    scene.far.next_frame().await;
    scene.far = scene.lost_link();
    let failed = import.await.unwrap().unwrap_err();
    assert!(matches!(failed, Error::LinkLost { .. }), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_import_that_the_node_ends_too_early_is_no_success() {
    let mut scene = Scene::new().await;
    let (endless, _held) = tokio::io::duplex(16);
    let (import, stream) = scene.import(endless).await;
    scene.far.close(stream, StreamEnd::Done);
    assert!(import.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_has_no_common_snapshot_is_refused_before_anything_travels() {
    let mut scene = Scene::new().await;
    let (volume, copy) = (scene.volume.clone(), scene.volume.clone());
    let increment = tokio::spawn(async move { volume.copy_into("new", &copy).await });
    for names in ["theirs", "ours"] {
        let request = scene.far.request().await;
        assert!(matches!(request.body, RequestBody::Snapshots(_)));
        let snapshot = SnapshotInfo {
            name: names.parse().unwrap(),
            created_ms: 0,
            referenced_bytes: 0,
            exclusive_bytes: 0,
        };
        let reply = ReplyBody::Snapshots(vec![snapshot]);
        scene.far.reply(request.id, Ok(reply));
    }
    let refused = increment.await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused:?}");
    assert!(scene.far.hear_now().is_none());
}
