//! What a message from outside may hold. Everything that a worker says passes here before the run
//! hears of it; what passes has bounded size and plain values. Whether it fits the moment is for
//! the core to say.

use proto::v1;
use proto::v1::worker_message::Message as Up;
use tonic::Status;

/// A host, a device, a fingerprint.
const MAX_NAME: usize = 255;
/// A path, as Linux bounds it.
const MAX_PATH: usize = 4096;
/// What a failure may say: an error of libtorch holds a stack.
const MAX_MESSAGE: usize = 64 << 10;
/// Things that are wrong with one machine, and words on each.
const MAX_WARNINGS: usize = 16;
const MAX_WORDS: usize = 1024;
const MAX_CLASSES: usize = 100_000;
const MAX_FILES: usize = 10_000_000;

/// The greeting that opens a session.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything else, `FAILED_PRECONDITION` for another protocol.
pub fn register(first: Option<v1::WorkerMessage>) -> Result<v1::Register, Status> {
    let Some(Up::Register(register)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument(
            "the first message must be Register",
        ));
    };
    if register.protocol_version != proto::PROTOCOL_VERSION {
        return Err(Status::failed_precondition(format!(
            "worker speaks protocol {}, coordinator {}: use binaries of one build",
            register.protocol_version,
            proto::PROTOCOL_VERSION
        )));
    }
    name("Register.host", &register.host)?;
    if register.instance == 0 {
        return Err(Status::invalid_argument("Register.instance is not set"));
    }
    Ok(register)
}

/// A message of a session after its greeting.
///
/// # Errors
/// `INVALID_ARGUMENT` for a second greeting, a message of no known kind, and a field out of
/// bounds, which is named.
pub fn message(message: v1::WorkerMessage) -> Result<Up, Status> {
    let Some(message) = message.message else {
        return Err(Status::invalid_argument(
            "a message of a kind that this coordinator does not know",
        ));
    };
    match &message {
        Up::Register(_) => return Err(Status::invalid_argument("a second Register")),
        Up::Scanned(m) => {
            name("Scanned.fingerprint", &m.fingerprint)?;
            name("Scanned.device", &m.device)?;
            name("Scanned.gpu_uuid", &m.gpu_uuid)?;
            retained("Scanned.held", m.retained)?;
            count("Scanned.classes", m.classes.len(), MAX_CLASSES)?;
            count("Scanned.files", m.files.len(), MAX_FILES)?;
            count("Scanned.warnings", m.warnings.len(), MAX_WARNINGS)?;
            for warning in &m.warnings {
                text("Scanned.warnings", warning, MAX_WORDS)?;
            }
            for class in &m.classes {
                text("Scanned.classes", class, MAX_PATH)?;
            }
            for file in &m.files {
                text("Scanned.files.path", &file.path, MAX_PATH)?;
            }
        }
        Up::Prepared(m) => {
            count("Prepared.bad", m.bad.len(), MAX_FILES)?;
            for bad in &m.bad {
                text("Prepared.bad.reason", &bad.reason, MAX_PATH)?;
            }
        }
        Up::StoreListening(m) => {
            if !(1..=u32::from(u16::MAX)).contains(&m.port) {
                let port = m.port;
                return Err(Status::invalid_argument(format!(
                    "StoreListening.port is {port}, which is no port"
                )));
            }
            if !m.host.is_empty() {
                name("StoreListening.host", &m.host)?;
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
        Up::Failure(m) => text("Failure.message", &m.message, MAX_MESSAGE)?,
        Up::Heartbeat(m) => seconds("Heartbeat.seconds", m.seconds)?,
        Up::GenerationAborted(m) => retained("GenerationAborted.held", m.retained)?,
        Up::Preparing(_) | Up::GroupReady(_) | Up::Finished(_) | Up::Draining(_) => {}
    }
    Ok(message)
}

/// What the header of an upload says beside its size.
///
/// # Errors
/// `INVALID_ARGUMENT` for a blob of no known kind and for a sum that is none.
pub fn header(header: &v1::BlobHeader) -> Result<(), Status> {
    if header.kind() == v1::BlobKind::Unspecified {
        let kind = header.kind;
        return Err(Status::invalid_argument(format!(
            "a blob of kind {kind}, which this coordinator does not know"
        )));
    }
    if header.kind() == v1::BlobKind::Checkpoint && header.epoch == 0 {
        return Err(Status::invalid_argument(
            "a checkpoint of epoch 0; epochs count from 1",
        ));
    }
    if header.sha256.len() != 32 {
        let length = header.sha256.len();
        return Err(Status::invalid_argument(format!(
            "a sha256 of {length} bytes instead of 32"
        )));
    }
    Ok(())
}

/// Words that stand in logs and labels.
fn name(field: &str, value: &str) -> Result<(), Status> {
    text(field, value, MAX_NAME)?;
    if value.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "{field} holds control characters"
        )));
    }
    Ok(())
}

fn text(field: &str, value: &str, most: usize) -> Result<(), Status> {
    count(field, value.len(), most)
}

fn count(field: &str, length: usize, most: usize) -> Result<(), Status> {
    if length > most {
        return Err(Status::invalid_argument(format!(
            "{field} is {length} long, at most {most} are accepted"
        )));
    }
    Ok(())
}

/// Epochs count from 1.
fn retained(field: &str, position: Option<v1::Position>) -> Result<(), Status> {
    if position.is_some_and(|position| position.epoch == 0) {
        return Err(Status::invalid_argument(format!("{field} is in epoch 0")));
    }
    Ok(())
}

fn phases(field: &str, phases: Option<v1::PhaseSeconds>) -> Result<(), Status> {
    let Some(p) = phases else { return Ok(()) };
    [
        p.data_wait,
        p.forward_backward,
        p.allreduce_wait,
        p.optimizer,
        p.validation,
    ]
    .into_iter()
    .try_for_each(|value| seconds(field, value))
}

/// A loss may be infinite, and ends the run then. A duration may not.
fn seconds(field: &str, value: f64) -> Result<(), Status> {
    if !value.is_finite() || value < 0.0 {
        return Err(Status::invalid_argument(format!(
            "{field} is {value}, which is no duration"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn greeting(change: impl FnOnce(&mut v1::Register)) -> Option<v1::WorkerMessage> {
        let mut register = v1::Register {
            protocol_version: proto::PROTOCOL_VERSION,
            host: "node-a".to_owned(),
            instance: 1,
            ..Default::default()
        };
        change(&mut register);
        Some(v1::WorkerMessage {
            message: Some(Up::Register(register)),
        })
    }

    #[test]
    fn a_session_begins_with_one_sound_greeting() {
        assert!(register(greeting(|_| ())).is_ok());
        for (first, code) in [
            (None, Code::InvalidArgument),
            (
                Some(v1::WorkerMessage { message: None }),
                Code::InvalidArgument,
            ),
            (
                greeting(|register| register.host = "h".repeat(256)),
                Code::InvalidArgument,
            ),
            (
                greeting(|register| register.host = "a\nb".to_owned()),
                Code::InvalidArgument,
            ),
            (
                greeting(|register| register.protocol_version += 1),
                Code::FailedPrecondition,
            ),
        ] {
            assert_eq!(
                register(first.clone()).unwrap_err().code(),
                code,
                "{first:?}"
            );
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_the_name_of_its_field() {
        let long = |length: usize| "x".repeat(length);
        let scanned = |scanned: v1::Scanned| Some(Up::Scanned(scanned));
        for (sent, expected) in [
            (None, "does not know"),
            (
                Some(Up::Register(v1::Register::default())),
                "second Register",
            ),
            (
                scanned(v1::Scanned {
                    fingerprint: long(256),
                    ..Default::default()
                }),
                "Scanned.fingerprint",
            ),
            (
                scanned(v1::Scanned {
                    classes: vec![String::new(); MAX_CLASSES + 1],
                    ..Default::default()
                }),
                "Scanned.classes",
            ),
            (
                scanned(v1::Scanned {
                    files: vec![v1::FileEntry {
                        path: long(4097),
                        size: 1,
                    }],
                    ..Default::default()
                }),
                "Scanned.files.path",
            ),
            (
                Some(Up::Prepared(v1::Prepared {
                    bad: vec![v1::BadFile {
                        sample: 0,
                        reason: long(4097),
                    }],
                })),
                "Prepared.bad.reason",
            ),
            (
                Some(Up::StoreListening(v1::StoreListening {
                    generation: 1,
                    port: 65_536,
                    ..Default::default()
                })),
                "StoreListening.port",
            ),
            (
                Some(Up::StepReport(v1::StepReport {
                    seconds: f64::NAN,
                    ..Default::default()
                })),
                "StepReport.seconds",
            ),
            (
                Some(Up::EpochReport(v1::EpochReport {
                    phases: Some(v1::PhaseSeconds {
                        optimizer: -1.0,
                        ..Default::default()
                    }),
                    ..Default::default()
                })),
                "EpochReport.phases",
            ),
            (
                Some(Up::Failure(v1::Failure {
                    kind: 0,
                    message: long(MAX_MESSAGE + 1),
                })),
                "Failure.message",
            ),
        ] {
            let refused = message(v1::WorkerMessage { message: sent }).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains(expected), "{refused}");
        }
        // A loss that is no number ends a run by its own rule.
        let diverged = Up::StepReport(v1::StepReport {
            loss_sum: f64::NAN,
            ..Default::default()
        });
        assert!(
            message(v1::WorkerMessage {
                message: Some(diverged)
            })
            .is_ok()
        );
    }

    #[test]
    fn a_blob_is_of_a_known_kind_and_has_a_sum() {
        let sound = v1::BlobHeader {
            kind: v1::BlobKind::Checkpoint.into(),
            epoch: 1,
            sha256: vec![0; 32],
            ..Default::default()
        };
        assert!(header(&sound).is_ok());
        let before_all = v1::BlobHeader {
            epoch: 0,
            ..sound.clone()
        };
        assert!(header(&before_all).is_err());
        for kind in [0, 99] {
            let wrong = v1::BlobHeader {
                kind,
                ..sound.clone()
            };
            assert_eq!(header(&wrong).unwrap_err().code(), Code::InvalidArgument);
        }
        let wrong = v1::BlobHeader {
            sha256: vec![0; 31],
            ..sound
        };
        assert_eq!(header(&wrong).unwrap_err().code(), Code::InvalidArgument);
    }
}
