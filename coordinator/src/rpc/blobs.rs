//! Files between workers and the run directory, in chunks. What arrives is verified once, off the
//! async runtime, and handed to the driver; what is sent is read from the disk in pieces. It does
//! not decide who may upload what: the driver drops what the run does not wait for.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use common::blob::{Assembly, BlobError};
use coordinator_core::WorkerId;
use proto::{CHUNK_BYTES, v1};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::admission::{Admission, Permit};
use super::limits::{REGISTER_TIMEOUT, UPLOAD_STALL_LIMIT};
use super::service::within;
use super::{convert, validate};
use crate::runtime::Mailbox;
use crate::runtime::channels::RunOver;
use crate::runtime::input::DriverInput;
use crate::store::{BEST_WEIGHTS, Checkpoints};

/// Chunks that are read ahead of the network.
const AHEAD: usize = 4;

/// A file on its way to a worker.
pub(super) type BlobStream = ReceiverStream<Result<v1::Chunk, Status>>;

/// Receives and sends files; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    admission: Admission,
    mailbox: Mailbox,
    best: PathBuf,
    checkpoints: Checkpoints,
}

impl Blobs {
    pub(super) fn new(admission: Admission, mailbox: Mailbox, run_dir: &Path) -> Self {
        Self {
            admission,
            mailbox,
            best: run_dir.join(BEST_WEIGHTS),
            checkpoints: Checkpoints::open(run_dir),
        }
    }

    /// Receives a file, once others leave room for it, and hands it to the driver. The permit is
    /// held until it is written.
    ///
    /// # Errors
    /// The worker has no session, a chunk is invalid or late, the file is not what its header says,
    /// or the run is over.
    pub(super) async fn receive(&self, mut chunks: Streaming<v1::Chunk>) -> Result<(), Status> {
        let permit = self.admission.upload().await?;
        let first = within(REGISTER_TIMEOUT, "the header", chunks.message()).await?;
        let mut assembly = Assembly::begin(first).map_err(refused)?;
        validate::header(assembly.header())?;
        let worker = assembly.header().worker_id;
        self.admission.known(worker)?;
        while let Some(chunk) = within(UPLOAD_STALL_LIMIT, "more data", chunks.message()).await? {
            assembly.add(chunk).map_err(refused)?;
        }
        // A checksum of a GiB takes seconds.
        let verified = off_runtime(move || assembly.finish()).await?;
        let (header, bytes) = verified.map_err(refused)?;
        let size = bytes.len();
        let (upload, credit) = match header.kind() {
            // Decoded, they no longer hold the permit, so they count among the messages.
            v1::BlobKind::Predictions => (convert::predictions(&bytes)?, size),
            _ => (convert::upload(&header, bytes, permit)?, 0),
        };
        let worker = WorkerId(worker);
        let input = DriverInput::Upload { worker, upload };
        Ok(self.mailbox.send(input, credit).await?)
    }

    /// Sends a state of the run directory to a member of the run.
    ///
    /// # Errors
    /// There are too many downloads, the worker is no member, the file cannot be read, or the run
    /// is over.
    pub(super) async fn send(&self, request: v1::DownloadRequest) -> Result<BlobStream, Status> {
        let permit = self.admission.download()?;
        self.admission.known(request.worker_id)?;
        let path = match (request.kind(), request.position) {
            (v1::BlobKind::BestState, _) => self.best.clone(),
            (v1::BlobKind::Checkpoint, Some(at)) => {
                self.checkpoints.state_path(convert::position(at))
            }
            _ => return Err(Status::invalid_argument("no such file can be downloaded")),
        };
        let worker = WorkerId(request.worker_id);
        let (reply, is_member) = oneshot::channel();
        let input = DriverInput::Download { worker, reply };
        self.mailbox.send(input, 0).await?;
        if !is_member.await.map_err(|_| RunOver)? {
            return Err(Status::permission_denied(format!(
                "{worker} is not a member of this run"
            )));
        }
        let failed = |path: &Path, error| Status::not_found(format!("{}: {error}", path.display()));
        let opened = off_runtime(move || open(&path).map_err(|error| failed(&path, error)));
        let (file, header) = opened.await??;
        let (sender, chunks) = mpsc::channel(AHEAD);
        // The place is taken until the last chunk is on its way.
        tokio::task::spawn_blocking(move || pass_on(file, header, &sender, permit));
        Ok(ReceiverStream::new(chunks))
    }
}

/// Opens a file whose content never changes, and reads it once for the checksum in its header.
fn open(path: &Path) -> io::Result<(File, v1::BlobHeader)> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let bytes = io::copy(&mut file, &mut sum)?;
    io::Seek::rewind(&mut file)?;
    let header = v1::BlobHeader {
        bytes,
        sha256: sum.finalize().to_vec(),
        ..Default::default()
    };
    Ok((file, header))
}

/// Sends header and pieces until the file or the worker's interest ends.
fn pass_on(
    mut file: File,
    header: v1::BlobHeader,
    to: &mpsc::Sender<Result<v1::Chunk, Status>>,
    _permit: Permit,
) {
    let mut part = v1::chunk::Part::Header(header);
    loop {
        let chunk = v1::Chunk { part: Some(part) };
        if to.blocking_send(Ok(chunk)).is_err() {
            return;
        }
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut piece);
        part = match read {
            Ok(0) => return,
            Ok(_) => v1::chunk::Part::Data(piece),
            Err(error) => {
                // It fails when the worker is gone.
                let _ = to.blocking_send(Err(Status::data_loss(error.to_string())));
                return;
            }
        };
    }
}

/// Runs what would keep other calls waiting on a thread that may block.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string()))
}

fn refused(error: BlobError) -> Status {
    match error {
        BlobError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        BlobError::NoHeader | BlobError::NoData => Status::invalid_argument(error.to_string()),
        BlobError::Length { .. } | BlobError::Checksum => Status::data_loss(error.to_string()),
    }
}
