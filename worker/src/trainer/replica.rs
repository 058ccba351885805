//! The replicated state: weights, optimizer and position, equal on all ranks. It outlives the
//! process group in which it was trained, and is broadcast to ranks and saved in checkpoints.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use worker_control::{Position, Precision, State, TrainError};

use super::failure::{collective, internal, weights_failure};
use super::group::settled;
use super::optimizer::Adam;
use super::setup::Settings;
use super::snapshot::Snapshot;
use crate::model::state::overwrite;
use crate::model::{ResNet18, Statistics, weights};

/// A model that is being trained.
pub(super) struct Replica {
    pub(super) model: ResNet18,
    pub(super) optimizer: Adam,
    pub(super) position: Position,
    /// Loss over all samples of the epoch so far, of all ranks.
    pub(super) loss_sum: f64,
    device: Device,
    bf16: bool,
    /// Running statistics before the step under way, flat; a failed step is reverted to them.
    statistics: Option<Tensor>,
}

impl Replica {
    /// Fresh weights, and an optimizer that has made no step.
    pub(super) fn new(settings: &Settings, classes: i64, device: Device) -> Self {
        let model = ResNet18::new(classes, device, settings.seed);
        let optimizer = Adam::new(model.parameters(), settings.weight_decay);
        Self {
            model,
            optimizer,
            position: Position {
                epoch: 1,
                completed: 0,
            },
            loss_sum: 0.0,
            device,
            bf16: false,
            statistics: None,
        }
    }

    /// Sets the precision that the group agreed on.
    pub(super) fn compute_in(&mut self, precision: Precision) {
        self.bf16 = precision == Precision::Bf16;
    }

    /// Where it computes.
    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// What it computes in.
    pub(super) fn precision(&self) -> Precision {
        match self.bf16 {
            true => Precision::Bf16,
            false => Precision::Fp32,
        }
    }

    /// The type of images that [`logits`](Self::logits) need not cast.
    pub(super) fn image_kind(&self) -> Kind {
        if self.bf16 {
            Kind::BFloat16
        } else {
            Kind::Float
        }
    }

    /// Loads pretrained weights; the head is kept if theirs is for another number of classes.
    pub(super) fn load_pretrained(&mut self, path: &str) -> Result<(), TrainError> {
        let entries = match path.rsplit_once('#') {
            Some((file, key)) if !Path::new(path).exists() => {
                weights::read(Path::new(file), Some(key))
            }
            _ => weights::read(Path::new(path), None),
        };
        let weights::Adapted { entries, notes } = weights::adapt(entries.map_err(weights_failure)?)
            .map_err(|cause| weights_failure(format!("{path}: {cause}")))?;
        for note in notes {
            tracing::info!("{path}: {note}");
        }
        self.model
            .load(entries)
            .map(drop)
            .map_err(|error| weights_failure(format!("{path}: {error}")))
    }

    /// Float logits `[B, classes]` of images `[B, 3, S, S]`, in the precision of
    /// the group.
    pub(super) fn logits(&self, images: &Tensor, mode: Statistics) -> Result<Tensor, TrainError> {
        let forward = || self.model.forward(images, mode);
        let logits = if self.bf16 {
            kernels::autocast_bf16(self.device, forward).map_err(internal)?
        } else {
            forward()
        };
        Ok(logits.to_kind(Kind::Float))
    }

    /// Everything that a rank needs to continue from here: `model.*` under torchvision's
    /// names, `optimizer.*`, and `counters`, float64 `[3]`: epoch, completed steps, loss so far.
    fn entries(&self) -> Vec<(String, Tensor)> {
        let prefixed = |prefix: &str, entries: Vec<(String, Tensor)>| {
            let name = |(name, tensor)| (format!("{prefix}.{name}"), tensor);
            entries.into_iter().map(name).collect::<Vec<_>>()
        };
        let counters = [
            f64::from(self.position.epoch),
            f64::from(self.position.completed),
            self.loss_sum,
        ];
        let counters = Tensor::from_slice(&counters);
        let mut entries = prefixed("model", self.model.state());
        entries.extend(prefixed("optimizer", self.optimizer.state()));
        entries.push(("counters".to_owned(), counters));
        entries
    }

    /// Loads what [`entries`](Self::entries) returned, on any device; all or nothing.
    fn load(&mut self, entries: Vec<(String, Tensor)>) -> Result<(), TrainError> {
        let mut targets = self.entries();
        let entries: BTreeMap<String, Tensor> = entries.into_iter().collect();
        tch::no_grad(|| overwrite(&targets, &entries, |_| false)).map_err(internal)?;
        let counters = targets.pop().map(|(_, counters)| counters);
        let counters: Vec<f64> = counters
            .and_then(|counters| counters.try_into().ok())
            .unwrap_or_default();
        let [epoch, completed, loss_sum] = counters[..] else {
            return Err(internal("a state without counters"));
        };
        self.position = Position {
            epoch: epoch as u32,
            completed: completed as u32,
        };
        self.loss_sum = loss_sum;
        self.statistics = None;
        Ok(())
    }

    /// Broadcasts the state of `source` to all ranks. The former state of a rank stays valid
    /// until all of the other has arrived.
    pub(super) fn broadcast_state(
        &mut self,
        group: &c10d::ProcessGroup,
        source: u32,
    ) -> Result<(), TrainError> {
        let entries = self.entries();
        if group.rank() == source {
            let on_device = |(_, tensor): (_, Tensor)| tensor.to_device(self.device);
            let tensors: Vec<Tensor> = entries.into_iter().map(on_device).collect();
            return group.broadcast(&tensors, source).map_err(collective);
        }
        let (names, staging): (Vec<String>, Vec<Tensor>) = entries
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_device(self.device).detach().empty_like()))
            .unzip();
        group.broadcast(&staging, source).map_err(collective)?;
        settled(group, self.device)?;
        self.load(names.into_iter().zip(staging).collect())
    }

    /// A copy of the whole state, which becomes a checkpoint.
    pub(super) fn snapshot(&self) -> Result<Snapshot, TrainError> {
        Snapshot::take(self.entries())
    }

    /// Loads a checkpoint.
    pub(super) fn load_checkpoint(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let entries = weights::parse(bytes)
            .map_err(|error| internal(format!("the checkpoint cannot be read: {error}")))?;
        self.load(entries)
    }

    /// Remembers the running statistics before a step that moves them.
    pub(super) fn begin_step(&mut self, moves_statistics: bool) {
        self.statistics = moves_statistics.then(|| self.flat_statistics());
    }

    /// Completes a step, which can no longer be reverted.
    pub(super) fn end_step(&mut self, moved_statistics: bool) {
        self.statistics = None;
        if moved_statistics {
            self.model.count_batch();
        }
        self.position.completed += 1;
    }

    /// Counts the loss of a step that was completed.
    pub(super) fn add_loss(&mut self, mean_loss: f64, samples: u32) {
        self.loss_sum += mean_loss * f64::from(samples);
    }

    /// Sets every rank's running statistics to the mean over the ranks, so that all evaluate and
    /// save the same model.
    pub(super) fn average_batch_norm(
        &mut self,
        group: &c10d::ProcessGroup,
    ) -> Result<(), TrainError> {
        let world_size = group.world_size();
        let mut joined = self.flat_statistics();
        tch::no_grad(|| group.all_reduce_sum(&mut joined)).map_err(collective)?;
        settled(group, self.device)?;
        self.set_statistics(&(joined / f64::from(world_size)));
        Ok(())
    }

    fn flat_statistics(&self) -> Tensor {
        let statistics = self.model.batch_norm_statistics();
        let flat: Vec<Tensor> = statistics.iter().map(|t| t.reshape([-1])).collect();
        tch::no_grad(|| Tensor::cat(&flat, 0))
    }

    fn set_statistics(&mut self, flat: &Tensor) {
        tch::no_grad(|| {
            let mut offset = 0;
            for mut tensor in self.model.batch_norm_statistics() {
                let length = tensor.numel() as i64;
                tensor.copy_(&flat.narrow(0, offset, length).view_as(&tensor));
                offset += length;
            }
        });
    }
}

impl State for Replica {
    type Weights = Snapshot;

    fn position(&self) -> Position {
        self.position
    }

    fn loss_sum(&self) -> f64 {
        self.loss_sum
    }

    fn next_epoch(&mut self) {
        self.position = Position {
            epoch: self.position.epoch + 1,
            completed: 0,
        };
        self.loss_sum = 0.0;
    }

    fn undo_step(&mut self) {
        if let Some(before) = self.statistics.take() {
            self.set_statistics(&before);
        }
    }
}
