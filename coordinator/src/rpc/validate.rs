//! What a message from a worker may contain. Every message passes here before the run sees it;
//! what passes has bounded size and finite durations. Whether it fits the state of the run is for
//! the core to decide.

use proto::v1;
use proto::v1::worker_message::Message as Up;
use tonic::Status;

/// Bytes of a host, a device, a fingerprint.
const MAX_NAME: usize = 255;
/// Bytes of a path, as Linux bounds it.
const MAX_PATH: usize = 4096;
/// Bytes of the message of a failure: an error of libtorch contains a stack trace.
const MAX_MESSAGE: usize = 64 << 10;
/// Warnings about one machine, and the bytes of each.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING: usize = 1024;
/// As many as Linux can be built for.
const MAX_PROCESSORS: usize = 8192;
const MAX_CLASSES: usize = 100_000;
const MAX_FILES: usize = 10_000_000;

/// The `Register` that opens a session.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything else, `FAILED_PRECONDITION` for another protocol version.
pub fn register(first: Option<v1::WorkerMessage>) -> Result<v1::Register, Status> {
    let Some(Up::Register(register)) = first.and_then(|first| first.message) else {
        return Err(invalid("the first message must be Register"));
    };
    if register.protocol_version != proto::PROTOCOL_VERSION {
        return Err(Status::failed_precondition(format!(
            "the worker speaks protocol version {}, the coordinator {}: use binaries of one build",
            register.protocol_version,
            proto::PROTOCOL_VERSION
        )));
    }
    name("Register.host", &register.host)?;
    match register.instance {
        0 => Err(invalid("Register.instance is not set")),
        _ => Ok(register),
    }
}

/// A message of a session after its `Register`.
///
/// # Errors
/// `INVALID_ARGUMENT` for a second `Register`, an unknown message, and a field out of bounds,
/// which is named.
pub fn message(message: v1::WorkerMessage) -> Result<Up, Status> {
    let Some(message) = message.message else {
        return Err(invalid("unknown message: use binaries of one build"));
    };
    match &message {
        Up::Register(_) => return Err(invalid("a second Register")),
        Up::Scanned(m) => scanned(m)?,
        Up::Prepared(m) => {
            count("Prepared.bad", m.bad.len(), MAX_FILES)?;
            texts("Prepared.bad.reason", m.bad.iter().map(|bad| &bad.reason))?;
        }
        Up::StoreListening(m) => {
            name("StoreListening.host", &m.host)?;
            if u16::try_from(m.port).is_err() || m.port == 0 {
                return Err(invalid(format!(
                    "StoreListening.port is {}, which is no port",
                    m.port
                )));
            }
        }
        Up::StepReport(m) => {
            seconds("StepReport.seconds", m.seconds)?;
            phases("StepReport.phases", m.phases)?;
        }
        Up::EpochReport(m) => {
            count("EpochReport.validation", m.validation.len(), MAX_FILES)?;
            phases("EpochReport.phases", m.phases)?;
        }
        Up::Failure(m) => count("Failure.message", m.message.len(), MAX_MESSAGE)?,
        Up::Heartbeat(m) => seconds("Heartbeat.seconds", m.seconds)?,
        Up::GenerationAborted(m) => retained("GenerationAborted.retained", m.retained)?,
        Up::Preparing(_) | Up::GroupReady(_) | Up::Finished(_) | Up::Draining(_) => {}
    }
    Ok(message)
}

fn scanned(m: &v1::Scanned) -> Result<(), Status> {
    name("Scanned.fingerprint", &m.fingerprint)?;
    name("Scanned.device", &m.device)?;
    name("Scanned.gpu_uuid", &m.gpu_uuid)?;
    retained("Scanned.retained", m.retained)?;
    if let Some(processors) = &m.processors {
        name("Processors.machine", &processors.machine)?;
        texts("Processors.cgroup", [&processors.cgroup])?;
        count("Processors.ids", processors.ids.len(), MAX_PROCESSORS)?;
    }
    count("Scanned.classes", m.classes.len(), MAX_CLASSES)?;
    count("Scanned.files", m.files.len(), MAX_FILES)?;
    count("Scanned.warnings", m.warnings.len(), MAX_WARNINGS)?;
    for warning in &m.warnings {
        count("Scanned.warnings", warning.len(), MAX_WARNING)?;
    }
    texts("Scanned.classes", &m.classes)?;
    texts("Scanned.files.path", m.files.iter().map(|file| &file.path))
}

/// The header of an upload, but for its size.
///
/// # Errors
/// `INVALID_ARGUMENT` for an unknown kind, a checkpoint of no epoch, and a malformed checksum.
pub fn header(header: &v1::BlobHeader) -> Result<(), Status> {
    let length = header.sha256.len();
    match header.kind() {
        v1::BlobKind::Unspecified => {
            let kind = header.kind;
            Err(invalid(format!("a blob of the unknown kind {kind}")))
        }
        v1::BlobKind::Checkpoint if header.epoch == 0 => {
            Err(invalid("a checkpoint of epoch 0; epochs count from 1"))
        }
        _ if length != 32 => Err(invalid(format!("a sha256 of {length} bytes instead of 32"))),
        _ => Ok(()),
    }
}

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// A text for logs and labels.
fn name(field: &str, value: &str) -> Result<(), Status> {
    count(field, value.len(), MAX_NAME)?;
    match value.chars().any(char::is_control) {
        true => Err(invalid(format!("{field} contains control characters"))),
        false => Ok(()),
    }
}

fn texts<'a>(field: &str, values: impl IntoIterator<Item = &'a String>) -> Result<(), Status> {
    let mut values = values.into_iter();
    values.try_for_each(|value| count(field, value.len(), MAX_PATH))
}

fn count(field: &str, length: usize, most: usize) -> Result<(), Status> {
    match length > most {
        true => Err(invalid(format!(
            "{field} is {length} long, at most {most} are accepted"
        ))),
        false => Ok(()),
    }
}

/// Epochs count from 1.
fn retained(field: &str, position: Option<v1::Position>) -> Result<(), Status> {
    match position {
        Some(v1::Position { epoch: 0, .. }) => Err(invalid(format!("{field} is in epoch 0"))),
        _ => Ok(()),
    }
}

fn phases(field: &str, phases: Option<v1::PhaseSeconds>) -> Result<(), Status> {
    let p = phases.unwrap_or_default();
    let steps = [
        p.data_wait,
        p.forward_backward,
        p.allreduce_wait,
        p.optimizer,
    ];
    let mut all = steps.into_iter().chain([p.validation]);
    all.try_for_each(|value| seconds(field, value))
}

/// A loss may be infinite, and ends the run then. A duration may not.
fn seconds(field: &str, value: f64) -> Result<(), Status> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(invalid(format!("{field} is {value}, which is no duration"))),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn first(change: impl FnOnce(&mut v1::Register)) -> Option<v1::WorkerMessage> {
        let mut register = v1::Register {
            protocol_version: proto::PROTOCOL_VERSION,
            host: "node-a".to_owned(),
            instance: 1,
            ..Default::default()
        };
        change(&mut register);
        let message = Some(Up::Register(register));
        Some(v1::WorkerMessage { message })
    }

    #[test]
    fn a_session_begins_with_one_valid_register() {
        assert!(register(first(|_| ())).is_ok());
        let invalid = [
            None,
            Some(v1::WorkerMessage { message: None }),
            first(|register| register.host = "h".repeat(256)),
            first(|register| register.host = "a\nb".to_owned()),
            first(|register| register.instance = 0),
        ];
        for first in invalid {
            let refused = register(first.clone()).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{first:?}");
        }
        let newer = register(first(|register| register.protocol_version += 1));
        assert_eq!(newer.unwrap_err().code(), Code::FailedPrecondition);
    }

    fn scanned(change: fn(&mut v1::Scanned)) -> Up {
        let mut scanned = v1::Scanned::default();
        change(&mut scanned);
        Up::Scanned(scanned)
    }

    fn prepared(reason: String) -> Up {
        let bad = vec![v1::BadFile { sample: 0, reason }];
        Up::Prepared(v1::Prepared { bad })
    }

    fn listening(port: u32) -> Up {
        Up::StoreListening(v1::StoreListening {
            port,
            ..Default::default()
        })
    }

    fn step(seconds: f64, loss_sum: f64) -> Up {
        Up::StepReport(v1::StepReport {
            seconds,
            loss_sum,
            ..Default::default()
        })
    }

    fn epoch(optimizer: f64) -> Up {
        let phases = Some(v1::PhaseSeconds {
            optimizer,
            ..Default::default()
        });
        Up::EpochReport(v1::EpochReport {
            phases,
            ..Default::default()
        })
    }

    fn failure(message: String) -> Up {
        Up::Failure(v1::Failure { kind: 0, message })
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_the_name_of_its_field() {
        for (sent, expected) in [
            (None, "unknown message"),
            (
                Some(Up::Register(v1::Register::default())),
                "second Register",
            ),
            (
                Some(scanned(|m| m.fingerprint = "x".repeat(256))),
                "Scanned.fingerprint",
            ),
            (
                Some(scanned(|m| {
                    m.classes = vec![String::new(); MAX_CLASSES + 1]
                })),
                "Scanned.classes",
            ),
            (
                Some(scanned(|m| {
                    m.files = vec![v1::FileEntry {
                        path: "x".repeat(4097),
                        size: 1,
                    }];
                })),
                "Scanned.files.path",
            ),
            (Some(prepared("x".repeat(4097))), "Prepared.bad.reason"),
            (Some(listening(65_536)), "StoreListening.port"),
            (Some(listening(0)), "StoreListening.port"),
            (Some(step(f64::NAN, 0.0)), "StepReport.seconds"),
            (Some(epoch(-1.0)), "EpochReport.phases"),
            (
                Some(failure("x".repeat(MAX_MESSAGE + 1))),
                "Failure.message",
            ),
        ] {
            let refused = message(v1::WorkerMessage { message: sent }).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(expected), "{refused}");
        }
        // A loss that is no number ends a run by its own rule.
        let diverged = Some(step(0.5, f64::NAN));
        assert!(message(v1::WorkerMessage { message: diverged }).is_ok());
    }

    #[test]
    fn a_blob_has_a_known_kind_and_a_checksum() {
        let valid = v1::BlobHeader {
            kind: v1::BlobKind::Checkpoint.into(),
            epoch: 1,
            sha256: vec![0; 32],
            ..Default::default()
        };
        assert!(header(&valid).is_ok());
        let changes: [fn(&mut v1::BlobHeader); 4] = [
            |header| header.epoch = 0,
            |header| header.kind = 0,
            |header| header.kind = 99,
            |header| header.sha256 = vec![0; 31],
        ];
        for change in changes {
            let mut changed = valid.clone();
            change(&mut changed);
            let refused = super::header(&changed).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
    }
}
