//! Adam with a learning rate per layer group, by libtorch's fused kernels. Decides no rate and
//! changes no gradient.

use std::collections::BTreeMap;

use c10d::AdamOptions;
use tch::{Kind, Tensor};

use crate::model::state::overwrite;
use crate::model::{LayerGroup, LoadError, Parameter};

/// Learning rates in the order of [`LayerGroup::ALL`].
pub type LayerRates = [f64; LayerGroup::COUNT];

/// Why a step was not made.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// No backward pass has reached a parameter.
    #[error("{name} has no gradient; run the backward pass first")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// The kernel walks memory, not indices: it would mix up the elements.
    #[error("{name} has strides {parameter:?} and its gradient {gradient:?}")]
    Strides {
        /// The parameter.
        name: String,
        /// Its strides.
        parameter: Vec<i64>,
        /// Its gradient's strides.
        gradient: Vec<i64>,
    },
    /// libtorch refused.
    #[error("{0}")]
    Kernel(#[from] c10d::Error),
}

/// The parameters of one layer group and what Adam remembers of them.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    averages: Vec<Tensor>,
    squares: Vec<Tensor>,
    steps: Vec<Tensor>,
}

/// The optimizer (Kingma, Ba: "Adam: a method for stochastic optimization", 2015), equal to
/// `torch.optim.Adam(fused=True)` with its default betas and epsilon.
#[derive(Debug)]
pub struct Adam {
    recipe: AdamOptions,
    groups: [Group; LayerGroup::COUNT],
}

impl Adam {
    /// An optimizer that has made no step. `weight_decay` is an L2 penalty added to the
    /// gradients, as in `torch.optim.Adam`; 0 turns it off.
    ///
    /// # Panics
    /// When libtorch cannot allocate the moments.
    pub fn new(parameters: &[Parameter], weight_decay: f64) -> Self {
        // The rate is each group's own, given with the step.
        let recipe = AdamOptions {
            weight_decay,
            ..AdamOptions::new(0.0)
        };
        let groups = LayerGroup::ALL.map(|group| {
            Group::new(
                parameters
                    .iter()
                    .filter(|parameter| parameter.group == group),
            )
        });
        Self { recipe, groups }
    }

    /// Sets all gradients to zero where they are, so that views of a reducer's buckets stay so.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn zero_grad(&self) -> Result<(), c10d::Error> {
        self.groups
            .iter()
            .try_for_each(|group| c10d::zero_grads(&group.parameters))
    }

    /// One update of every parameter from its gradient. A rate of 0 leaves a group's parameters
    /// as they are but counts the step.
    ///
    /// # Errors
    /// When a gradient is missing or laid out otherwise than its parameter; nothing changes then.
    pub fn step(&mut self, rates: &LayerRates) -> Result<(), StepError> {
        self.groups.iter().try_for_each(Group::check)?;
        for (group, &rate) in self.groups.iter().zip(rates) {
            let Group {
                parameters,
                averages,
                squares,
                steps,
                ..
            } = group;
            if !parameters.is_empty() {
                let options = AdamOptions {
                    learning_rate: rate,
                    ..self.recipe
                };
                c10d::adam_step(parameters, averages, squares, steps, &options)?;
            }
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

    /// Takes over what [`state`](Self::state) gave, on any device.
    ///
    /// # Errors
    /// Lists every missing, unexpected or misshapen entry; nothing changes then.
    pub fn load(&mut self, entries: Vec<(String, Tensor)>) -> Result<(), LoadError> {
        let entries: BTreeMap<String, Tensor> = entries.into_iter().collect();
        overwrite(&self.state(), &entries, |_| false)
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
        Self {
            names,
            parameters,
            averages,
            squares,
            steps,
        }
    }

    fn check(&self) -> Result<(), StepError> {
        for (name, parameter) in self.names.iter().zip(&self.parameters) {
            let gradient = parameter.grad();
            if !gradient.defined() {
                return Err(StepError::NoGradient { name: name.clone() });
            }
            let (ours, theirs) = (parameter.stride(), gradient.stride());
            // The stride of a dimension of size 1 is never walked.
            let differ = |(size, (a, b)): (i64, (&i64, &i64))| size != 1 && a != b;
            if parameter
                .size()
                .into_iter()
                .zip(ours.iter().zip(&theirs))
                .any(differ)
            {
                let name = name.clone();
                return Err(StepError::Strides {
                    name,
                    parameter: ours,
                    gradient: theirs,
                });
            }
        }
        Ok(())
    }
}
