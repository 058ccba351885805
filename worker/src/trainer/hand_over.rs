//! Hands over what the coordinator keeps: the best weights, a checkpoint, the last picture.

use proto::v1;
use v1::worker_message::Message as Up;

use super::failure::internal;
use super::{Worker, best, epoch, predict};
use crate::control::Outgoing;

impl Worker<'_> {
    pub(super) fn keep(&mut self, keep: &v1::SaveState) -> Result<(), v1::Failure> {
        match (keep.what, &self.best, &self.replica) {
            (Some(v1::save_state::What::Best(epoch)), Some(best), _) if best.epoch == epoch => {
                self.link.send(Outgoing::Upload {
                    label: v1::BlobHeader {
                        kind: v1::BlobKind::BestState.into(),
                        epoch,
                        ..Default::default()
                    },
                    bytes: best.to_file(&self.manifest.classes, self.settings.image_size)?,
                });
                Ok(())
            }
            (Some(v1::save_state::What::Checkpoint(_)), _, Some(replica)) => {
                epoch::checkpoint(replica, self.link)
            }
            _ => Err(internal("asked for a state that this worker does not hold")),
        }
    }

    pub(super) fn finish(&mut self, finish: &v1::Finish) -> Result<(), v1::Failure> {
        if !finish.show.is_empty()
            && let Err(failure) = self.show(&finish.show)
        {
            // A run without its last picture is still a run.
            tracing::warn!(reason = failure.message, "no picture of predictions");
        }
        self.link.message(Up::Finished(v1::Finished {
            generation: finish.generation,
        }));
        Ok(())
    }

    fn show(&mut self, samples: &[u32]) -> Result<(), v1::Failure> {
        let file = self.fetch(v1::DownloadRequest {
            kind: v1::BlobKind::BestState.into(),
            ..Default::default()
        })?;
        let (Some(replica), Some(cache)) = (&mut self.replica, &self.cache) else {
            return Err(internal("there is no model to show it with"));
        };
        best::load(&mut replica.model, &file)?;
        let bytes = predict::show(replica, cache, samples, &self.compute)?;
        self.link.send(Outgoing::Upload {
            label: v1::BlobHeader {
                kind: v1::BlobKind::Predictions.into(),
                ..Default::default()
            },
            bytes,
        });
        Ok(())
    }
}
