//! How a rank adds up gradients, and the loss, over all ranks.
//!
//! Rank r back-propagates `Σ loss / global_n` over its own samples. The sum over ranks is the
//! gradient of the mean over the global batch, however unevenly the samples lie. The loss is
//! summed up with the gradients, so that no loss value is lost with a rank.

use std::rc::Rc;
use std::time::Instant;

use c10d::HostCopy;
use tch::{Device, Kind, Tensor};
use worker_control::TrainError;

use super::failure::{collective, device, internal};
use super::replica::Replica;

/// Samples of a rank up to which a GPU takes longer to be asked for a step than to compute it, so
/// that a recorded step pays more than an all-reduce that overlaps the backward pass. From the
/// launches that a step takes; not measured yet.
const SMALL_SLICE: u32 = 64;

/// On a GPU one step of so many is measured, since a measurement waits.
const MEASURED_STEPS: u32 = 20;

/// One way for a generation, the same on all ranks.
pub(super) enum Reduction {
    /// There are no other ranks.
    Alone,
    Overlapped(Overlapped),
    Joined(Joined),
}

/// DDP's Reducer: bucket by bucket, while the backward pass still runs.
pub(super) struct Overlapped {
    group: c10d::ProcessGroup,
    reducer: c10d::Reducer,
    /// float32 `[1]`: a parameter on which nothing depends, whose gradient is by construction the
    /// rank's part of the mean loss.
    loss_carrier: Tensor,
    clock: Clock,
}

/// All at once after the backward pass. What a GPU does before and after can be recorded.
pub(super) struct Joined {
    group: c10d::ProcessGroup,
    /// float32: all gradients, then the rank's part of the mean loss.
    joined: Tensor,
    /// The gradients in it, laid out as their parameters.
    places: Vec<Tensor>,
    clock: Clock,
}

/// How long the last step that was measured waited for other ranks.
#[derive(Default)]
struct Clock {
    steps: u32,
    seconds: f64,
}

impl Reduction {
    /// The quickest way for a rank of `group` with at most so many samples a step.
    pub(super) fn choose(
        group: Option<&c10d::ProcessGroup>,
        replica: &Replica,
        samples: u32,
    ) -> Result<Self, TrainError> {
        match (group, replica.device()) {
            (None, _) => Ok(Self::Alone),
            (Some(group), Device::Cuda(_)) if samples <= SMALL_SLICE => {
                Self::joined(group, replica)
            }
            (Some(group), _) => Self::overlapped(group, replica),
        }
    }

    fn joined(group: &c10d::ProcessGroup, replica: &Replica) -> Result<Self, TrainError> {
        let parameters = replica.optimizer.parameters();
        let length: i64 = parameters.iter().map(|p| p.numel() as i64).sum();
        let options = (Kind::Float, replica.device());
        let joined = Tensor::f_zeros([length + 1], options).map_err(internal)?;
        let mut offset = 0;
        let places = parameters.iter().map(|parameter| {
            let place = joined.f_as_strided(parameter.size(), parameter.stride(), offset);
            offset += parameter.numel() as i64;
            place.map_err(internal)
        });
        Ok(Self::Joined(Joined {
            group: group.clone(),
            places: places.collect::<Result<_, _>>()?,
            joined,
            clock: Clock::default(),
        }))
    }

    fn overlapped(group: &c10d::ProcessGroup, replica: &Replica) -> Result<Self, TrainError> {
        let options = (Kind::Float, replica.device());
        let loss_carrier = Tensor::zeros([1], options).set_requires_grad(true);
        let parameters = replica.model.parameters().iter().map(|p| &p.tensor);
        let parameters: Vec<Tensor> = parameters
            .chain([&loss_carrier])
            .map(Tensor::shallow_clone)
            .collect();
        let reducer = c10d::Reducer::new(&parameters, group, c10d::ReducerOptions::default())
            .map_err(collective)?;
        Ok(Self::Overlapped(Overlapped {
            group: group.clone(),
            reducer,
            loss_carrier,
            clock: Clock::default(),
        }))
    }

    /// Whether a GPU does the same for each step, but for the all-reduce between gradients and
    /// update.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Overlapped(_))
    }

    /// Back-propagates what `loss` returns: this rank's part of the mean loss, float32 `[]`.
    /// Returns that part, float32 `[1]`, for [`reduce`](Self::reduce).
    pub(super) fn gradients(
        &mut self,
        replica: &Replica,
        loss: impl FnOnce() -> Result<Tensor, TrainError>,
    ) -> Result<Rc<Tensor>, TrainError> {
        if let Self::Overlapped(overlapped) = self {
            return overlapped.gradients(replica, loss);
        }
        replica.optimizer.clear_grad().map_err(internal)?;
        let loss = loss()?;
        loss.f_backward().map_err(internal)?;
        let part = loss.detach().f_view([1]).map_err(internal)?;
        match self {
            Self::Joined(joined) => joined.join(replica, &part),
            _ => Ok(Rc::new(part)),
        }
    }

    /// The mean loss over the global batch, float32 `[1]`, with the gradients of the same in
    /// place. A lone GPU may still have to compute both. With other ranks both are complete: no
    /// update may follow a collective that is going to break.
    pub(super) fn reduce(&mut self, part: &Tensor) -> Result<HostCopy, TrainError> {
        match self {
            Self::Alone => HostCopy::begin(part).map_err(device),
            Self::Overlapped(overlapped) => complete(&overlapped.group, part),
            Self::Joined(joined) => joined.reduce(part),
        }
    }

    /// Seconds that the step waited for other ranks, or the last one that was measured.
    pub(super) fn waited(&mut self) -> Result<f64, TrainError> {
        match self {
            Self::Alone => Ok(0.0),
            Self::Overlapped(overlapped) => overlapped.waited(),
            Self::Joined(joined) => Ok(joined.clock.seconds),
        }
    }
}

impl Overlapped {
    fn gradients(
        &mut self,
        replica: &Replica,
        loss: impl FnOnce() -> Result<Tensor, TrainError>,
    ) -> Result<Rc<Tensor>, TrainError> {
        // They stay where they are, in the reducer's buckets.
        replica.optimizer.zero_grad().map_err(internal)?;
        kernels::zero_grads(std::slice::from_ref(&self.loss_carrier)).map_err(internal)?;
        self.reducer.prepare_for_forward().map_err(collective)?;
        // The Reducer divides sums by the number of ranks.
        let scaled = loss()? * f64::from(self.group.world_size());
        let value = scaled.detach();
        // Adds nothing to the loss, and its own value to the gradient of the carrier.
        let carried = (&self.loss_carrier - self.loss_carrier.detach()).sum(Kind::Float) * value;
        self.reducer
            .backward(&(scaled + carried))
            .map_err(collective)?;
        Ok(Rc::new(self.loss_carrier.grad()))
    }

    fn waited(&mut self) -> Result<f64, TrainError> {
        // On a GPU a measurement waits for six events.
        let measured = self.clock.measures() || self.loss_carrier.device() == Device::Cpu;
        if measured && let Some(timings) = self.reducer.last_timings().map_err(collective)? {
            self.clock.seconds = timings.allreduce_wait.as_secs_f64();
        }
        Ok(self.clock.seconds)
    }
}

impl Joined {
    /// Moves the gradients, and copies the rank's part of the mean loss behind them.
    fn join(&mut self, replica: &Replica, loss: &Tensor) -> Result<Rc<Tensor>, TrainError> {
        kernels::move_grads(replica.optimizer.parameters(), &self.places).map_err(internal)?;
        let last = self.joined.numel() as i64 - 1;
        let mut part = self.joined.f_narrow(0, last, 1).map_err(internal)?;
        part.f_copy_(loss).map_err(internal)?;
        Ok(Rc::new(part))
    }

    fn reduce(&mut self, part: &Tensor) -> Result<HostCopy, TrainError> {
        let own = self.clock.measures().then(|| HostCopy::begin(part));
        let own = own.transpose().map_err(device)?;
        let group = &self.group;
        tch::no_grad(|| group.all_reduce_sum(&mut self.joined)).map_err(collective)?;
        let Some(own) = own else {
            return complete(group, part);
        };
        own.wait().map_err(device)?;
        let waiting = Instant::now();
        let mean = complete(group, part)?;
        self.clock.seconds = waiting.elapsed().as_secs_f64();
        Ok(mean)
    }
}

impl Clock {
    /// Whether this step is measured.
    fn measures(&mut self) -> bool {
        self.steps += 1;
        self.steps % MEASURED_STEPS == 1
    }
}

/// What an all-reduce has left in `reduced`, once it is known to have succeeded. On a GPU it is
/// only queued so far. The copy comes after it, and an abort lets it come too, with an invalid
/// result.
fn complete(group: &c10d::ProcessGroup, reduced: &Tensor) -> Result<HostCopy, TrainError> {
    let copy = HostCopy::begin(reduced).map_err(collective)?;
    copy.wait().map_err(collective)?;
    group.check().map_err(collective)?;
    Ok(copy)
}

#[cfg(test)]
mod tests;
