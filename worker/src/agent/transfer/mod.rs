//! Uploads and downloads of blobs, beside the session. Uploads run one after the other, so that
//! newer weights never arrive before older ones.

mod images;

use common::blob::{self, Assembly};
use prost::Message;
use proto::v1;
use proto::v1::worker_message::Message as Up;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use worker_control::TrainError;

use crate::agent::connect::Client;
use crate::agent::convert;
use crate::agent::session::send;
use crate::trainer::link::{Download, FetchError, Unwritten, Upload, Wanted};

/// The uploads and downloads of one session.
pub(crate) struct Transfers {
    client: Client,
    worker_id: u64,
    /// To report an upload that failed.
    outbox: mpsc::UnboundedSender<v1::WorkerMessage>,
    last: Option<PendingUpload>,
}

/// An upload, which waits for those before. Dropping it aborts all of them.
struct PendingUpload(JoinHandle<Result<(), String>>);

impl PendingUpload {
    /// Waits for the end. May be cancelled and called again.
    async fn ended(&mut self) -> Result<(), String> {
        let ended = (&mut self.0).await;
        ended.unwrap_or_else(|error| Err(format!("an upload failed: {error}")))
    }
}

impl Drop for PendingUpload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Transfers {
    pub(crate) fn new(
        client: Client,
        worker_id: u64,
        outbox: mpsc::UnboundedSender<v1::WorkerMessage>,
    ) -> Self {
        Self {
            client,
            worker_id,
            outbox,
            last: None,
        }
    }

    /// Sends a blob once those before it have arrived.
    pub(crate) fn upload(&mut self, upload: Upload) {
        let (label, file) = labelled(upload);
        let mut client = self.client.clone();
        let worker_id = self.worker_id;
        let outbox = self.outbox.clone();
        let previous = self.last.take();
        self.last = Some(PendingUpload(tokio::spawn(async move {
            if let Some(mut previous) = previous {
                previous.ended().await?;
            }
            let kind = label.kind();
            let label = v1::BlobHeader { worker_id, ..label };
            let sent = async {
                // Both the file and its checksum take a while, which would block the session's
                // task.
                let chunks = tokio::task::spawn_blocking(move || {
                    let bytes = file.write()?;
                    Ok(blob::chunks(label, bytes))
                });
                let chunks = chunks.await.map_err(|error| error.to_string())?;
                let chunks = chunks.map_err(|error: TrainError| error.to_string())?;
                let answer = client.upload(tokio_stream::iter(chunks)).await;
                answer.map_err(|status| status.message().to_owned())
            };
            match sent.await {
                Ok(_) => Ok(()),
                Err(reason) if kind == v1::BlobKind::Predictions => {
                    tracing::warn!(reason, "cannot upload the predictions");
                    Ok(())
                }
                Err(reason) => {
                    let what = match kind {
                        v1::BlobKind::Checkpoint => "checkpoint",
                        _ => "best weights",
                    };
                    let message = format!("cannot upload the {what}: {reason}");
                    // The coordinator waits for the upload.
                    let failure = v1::Failure {
                        kind: v1::FailureKind::Internal.into(),
                        message: message.clone(),
                    };
                    send(&outbox, Up::Failure(failure));
                    Err(message)
                }
            }
        })));
    }

    /// Waits until all uploads so far have arrived at the coordinator. May be cancelled and called
    /// again.
    pub(crate) async fn settled(&mut self) -> Result<(), String> {
        let Some(upload) = &mut self.last else {
            return Ok(());
        };
        let ended = upload.ended().await;
        self.last = None;
        ended
    }

    /// Downloads a blob, and sends it to the thread that waits for it.
    pub(crate) fn download(
        &self,
        blob: Download,
        reply: std::sync::mpsc::Sender<Result<Vec<u8>, String>>,
    ) {
        let client = self.client.clone();
        let (kind, position) = match blob {
            Download::Best => (v1::BlobKind::BestState, None),
            Download::Checkpoint(at) => (v1::BlobKind::Checkpoint, Some(convert::to_wire(at))),
        };
        let request = v1::DownloadRequest {
            worker_id: self.worker_id,
            kind: kind.into(),
            position,
        };
        tokio::spawn(async move {
            // It fails only when the process is about to end.
            let _ = reply.send(fetch(client, request).await);
        });
    }

    /// Downloads images for the thread that waits for them.
    pub(crate) fn images(
        &self,
        wanted: Vec<Wanted>,
        reply: std::sync::mpsc::Sender<Result<(), FetchError>>,
    ) {
        let (client, worker_id) = (self.client.clone(), self.worker_id);
        tokio::spawn(async move {
            // As above.
            let _ = reply.send(images::fetch(client, worker_id, wanted).await);
        });
    }
}

async fn fetch(mut client: Client, request: v1::DownloadRequest) -> Result<Vec<u8>, String> {
    let status = |status: tonic::Status| status.message().to_owned();
    let mut chunks = client.download(request).await.map_err(status)?.into_inner();
    let first = chunks.message().await.map_err(status)?;
    let mut assembly = Assembly::begin(first).map_err(|error| error.to_string())?;
    while let Some(chunk) = chunks.message().await.map_err(status)? {
        assembly.add(chunk).map_err(|error| error.to_string())?;
    }
    let (_, bytes) = assembly.finish().map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn labelled(upload: Upload) -> (v1::BlobHeader, Unwritten) {
    let (kind, epoch, completed, file) = match upload {
        Upload::Best { epoch, file } => (v1::BlobKind::BestState, epoch, 0, file),
        Upload::Checkpoint { position, file } => (
            v1::BlobKind::Checkpoint,
            position.epoch,
            position.completed,
            file,
        ),
        Upload::Predictions(predictions) => {
            let predictions = convert::predictions(predictions);
            let file = Unwritten::new(move || Ok(predictions.encode_to_vec()));
            (v1::BlobKind::Predictions, 0, 0, file)
        }
    };
    let label = v1::BlobHeader {
        kind: kind.into(),
        epoch,
        completed,
        ..Default::default()
    };
    (label, file)
}
