//! Adam with a learning rate per parameter group, by libtorch's fused kernels. It decides no
//! learning rate and changes no gradient.

use tch::{Device, Kind, Tensor};

use crate::model::{Parameter, ParameterGroup};

/// Learning rates in the order of [`ParameterGroup::ALL`].
pub type GroupLrs = [f64; ParameterGroup::COUNT];

/// Why a step was not made.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// No backward pass has reached a parameter.
    #[error("{name} has no gradient; run the backward pass first")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// libtorch refused.
    #[error("{0}")]
    Kernel(#[from] kernels::Error),
    /// The same.
    #[error("{0}")]
    Tensor(#[from] tch::TchError),
}

/// The parameters of one group, and Adam's state of them.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    averages: Vec<Tensor>,
    squares: Vec<Tensor>,
    steps: Vec<Tensor>,
    /// In the memory of the device, where a recorded step reads it.
    learning_rate: Tensor,
}

/// The optimizer (Kingma, Ba: "Adam: a method for stochastic optimization", 2015), equal to
/// `torch.optim.Adam(fused=True)` with its default betas and epsilon.
#[derive(Debug)]
pub struct Adam {
    weight_decay: f64,
    /// Those of all groups.
    parameters: Vec<Tensor>,
    groups: [Group; ParameterGroup::COUNT],
    rates: GroupLrs,
}

impl Adam {
    /// An optimizer that has made no step. `weight_decay` is an L2 penalty added to the
    /// gradients, as in `torch.optim.Adam`; 0 turns it off.
    ///
    /// # Panics
    /// When libtorch cannot allocate the moments.
    pub fn new(parameters: &[Parameter], weight_decay: f64) -> Self {
        let groups = ParameterGroup::ALL.map(|group| {
            Group::new(
                parameters
                    .iter()
                    .filter(|parameter| parameter.group == group),
            )
        });
        let all = groups.iter().flat_map(|group| &group.parameters);
        Self {
            weight_decay,
            parameters: all.map(Tensor::shallow_clone).collect(),
            groups,
            rates: [0.0; ParameterGroup::COUNT],
        }
    }

    /// All parameters, in the order of their groups.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Sets all gradients to zero where they are, so that views of a reducer's buckets stay so.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn zero_grad(&self) -> Result<(), kernels::Error> {
        kernels::zero_grads(&self.parameters)
    }

    /// Drops all gradients.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn clear_grad(&self) -> Result<(), kernels::Error> {
        kernels::clear_grads(&self.parameters)
    }

    /// One update of every parameter from its gradient. A learning rate of 0 leaves a group's
    /// parameters as they are but counts the step.
    ///
    /// # Errors
    /// When a gradient is missing, and nothing changes; or when libtorch refuses, as it does where
    /// a gradient is laid out otherwise than its parameter.
    pub fn step(&mut self, lrs: &GroupLrs) -> Result<(), StepError> {
        self.set_rates(lrs)?;
        self.update()
    }

    /// Sets the learning rates of the next updates.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn set_rates(&mut self, lrs: &GroupLrs) -> Result<(), StepError> {
        if *lrs != self.rates {
            for (group, &lr) in self.groups.iter_mut().zip(lrs) {
                let _ = group.learning_rate.f_fill_(lr)?;
            }
            self.rates = *lrs;
        }
        Ok(())
    }

    /// One update with the learning rates that are set.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    pub fn update(&mut self) -> Result<(), StepError> {
        self.groups.iter().try_for_each(Group::check)?;
        let options = kernels::AdamOptions {
            weight_decay: self.weight_decay,
            ..Default::default()
        };
        for group in self.groups.iter().filter(|g| !g.parameters.is_empty()) {
            kernels::adam_step(
                &group.parameters,
                &group.averages,
                &group.squares,
                &group.steps,
                &group.learning_rate,
                &options,
            )?;
        }
        Ok(())
    }

    /// What is remembered: per parameter `exp_avg.<name>` and `exp_avg_sq.<name>` of its shape
    /// and `step.<name>`, a float32 scalar as torch counts. Shares the optimizer's memory.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let group = |group: &Group| {
            let parts: Vec<_> = [
                ("exp_avg", &group.averages),
                ("exp_avg_sq", &group.squares),
                ("step", &group.steps),
            ]
            .into_iter()
            .flat_map(|(kind, tensors)| {
                let named = group.names.iter().zip(tensors);
                named.map(move |(name, tensor)| (format!("{kind}.{name}"), tensor.shallow_clone()))
            })
            .collect();
            parts
        };
        self.groups.iter().flat_map(group).collect()
    }
}

impl Group {
    fn new<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> Self {
        let (names, parameters): (Vec<String>, Vec<Tensor>) = parameters
            .map(|p| (p.name.clone(), p.tensor.shallow_clone()))
            .unzip();
        // zeros_like keeps the strides, which the kernel needs to be alike.
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect();
        let scalar: [i64; 0] = [];
        let step = |p: &Tensor| Tensor::zeros(scalar, (Kind::Float, p.device()));
        let (averages, squares) = (zeros(), zeros());
        let steps = parameters.iter().map(step).collect();
        // Where it is read as a number, it stays the number that it is.
        let device = parameters.first().map_or(Device::Cpu, Tensor::device);
        let kind = match device {
            Device::Cpu => Kind::Double,
            _ => Kind::Float,
        };
        Self {
            learning_rate: Tensor::zeros(scalar, (kind, device)),
            names,
            parameters,
            averages,
            squares,
            steps,
        }
    }

    /// The kernel would pass over a parameter without a gradient in silence.
    fn check(&self) -> Result<(), StepError> {
        let mut named = self.names.iter().zip(&self.parameters);
        match named.find(|(_, parameter)| !parameter.grad().defined()) {
            Some((name, _)) => Err(StepError::NoGradient { name: name.clone() }),
            None => Ok(()),
        }
    }
}
