//! Uploads against a fake master: only what is missing, from where it was cut off.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use teu_protocol::{
    ids::StreamId,
    message::{ImageInfo, RefusalCode, ReplyBody, Request, RequestBody, StreamEnd, StreamFrame},
};

use super::*;
use crate::{
    image::ImageBuilder,
    session::fake::{FakeMaster, FarEnd, ready},
};

/// Adds up what is told.
#[derive(Debug, Default)]
struct Sum(AtomicU64);

impl Progress for Sum {
    fn on_event(&self, event: ProgressEvent) {
        if let ProgressEvent::Sent { bytes } = event {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

fn archive(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("image.tar");
    let content: Vec<u8> = (0..900_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let image = ImageBuilder::new()
        .name("thing")
        .unwrap()
        .file("/data", 0o644, content);
    image.cmd(["/data"]).build(&path).unwrap();
    path
}

fn import(images: Images, path: PathBuf, sum: &Arc<Sum>) -> Importing {
    let sum = Arc::clone(sum);
    tokio::spawn(async move { images.import_file(path, sum).await })
}

type Importing = tokio::task::JoinHandle<Result<Vec<ImageInfo>>>;

/// Says that all layers are missing.
async fn all_missing(far: &mut FarEnd) {
    let Request { id, body } = far.request().await;
    let RequestBody::MissingLayers(layers) = body else {
        panic!("{body:?}")
    };
    far.reply(id, Ok(ReplyBody::Layers(layers)));
}

async fn upload_asked(far: &mut FarEnd, offset: u64, window: u64) -> (StreamId, u64) {
    let Request { id, body } = far.request().await;
    let RequestBody::UploadLayer { stream, size, .. } = body else {
        panic!("{body:?}")
    };
    far.reply(id, Ok(ReplyBody::Upload { offset, window }));
    (stream, size)
}

async fn added(far: &mut FarEnd, importing: Importing) -> ImageInfo {
    let Request { id, body } = far.request().await;
    let RequestBody::AddImage { manifest, names } = body else {
        panic!("{body:?}")
    };
    let platform = "linux/amd64".to_owned();
    let (size, layers, added_ms) = (0, 1, 0);
    let image = ImageInfo {
        id: manifest.id,
        names,
        size,
        layers,
        platform,
        added_ms,
    };
    far.reply(id, Ok(ReplyBody::Image(image)));
    importing.await.unwrap().unwrap().remove(0)
}

#[tokio::test]
async fn an_upload_goes_on_where_the_location_has_got_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = archive(&dir);
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let sum = Arc::new(Sum::default());
    let importing = import(Images::new(session), path, &sum);
    all_missing(&mut far).await;
    let (_, size) = upload_asked(&mut far, 0, 100_000).await;
    let mut blob = Vec::new();
    while blob.len() < 100_000 {
        blob.extend_from_slice(&far.next_frame().await.1);
    }
    // Of what was sent, the location has stored a part.
    blob.truncate(70_000);
    drop(far);
    let (_, mut far) = master.accept(ready()).await;
    let (stream, _) = upload_asked(&mut far, 70_000, 10 << 20).await;
    loop {
        match far.next_frame().await {
            (StreamFrame::Data { .. }, bytes) => blob.extend_from_slice(&bytes),
            (
                StreamFrame::Close {
                    end: StreamEnd::Done,
                    ..
                },
                _,
            ) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(blob.len() as u64, size);
    let layers = open(&archive(&dir), None).await.unwrap().layers;
    assert_eq!(teu_protocol::ids::Digest::of(&blob), layers[0].digest);
    far.close(stream, StreamEnd::Done);
    let image = added(&mut far, importing).await;
    assert_eq!(image.names, ["thing:latest"]);
    assert_eq!(sum.0.load(Ordering::Relaxed), size, "nothing is told twice");
}

#[tokio::test]
async fn what_is_there_is_not_sent_and_its_stream_is_not_closed_either() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let importing = import(Images::new(session), archive(&dir), &Arc::default());
    all_missing(&mut far).await;
    let Request { id, body } = far.request().await;
    let RequestBody::UploadLayer { size, .. } = body else {
        panic!("{body:?}")
    };
    far.reply(
        id,
        Ok(ReplyBody::Upload {
            offset: size,
            window: 0,
        }),
    );
    added(&mut far, importing).await;
    assert!(
        far.hear_now()
            .is_none_or(|(said, _)| !format!("{said:?}").contains("Close"))
    );
}

#[tokio::test]
async fn a_layer_that_the_location_refuses_ends_the_import_with_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let importing = import(Images::new(session), archive(&dir), &Arc::default());
    all_missing(&mut far).await;
    let (stream, _) = upload_asked(&mut far, 0, 1).await;
    let refusal = teu_protocol::message::Refusal::new(RefusalCode::DigestMismatch, "no");
    far.close(stream, StreamEnd::Failed(refusal));
    let error = importing.await.unwrap().unwrap_err();
    assert_eq!(
        error.refusal().map(|refusal| refusal.code),
        Some(RefusalCode::DigestMismatch)
    );
}
