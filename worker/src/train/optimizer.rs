//! Adam with a learning rate per layer group.

use c10d::Error;
use tch::{Kind, Tensor};

use crate::model::{LayerGroup, Parameter};

/// One layer group's parameters and their moments.
#[derive(Debug)]
struct Group {
    parameters: Vec<Tensor>,
    averages: Vec<Tensor>,
    squares: Vec<Tensor>,
    steps: Vec<Tensor>,
}

/// The optimizer, with PyTorch's defaults.
#[derive(Debug)]
pub struct Adam {
    weight_decay: f64,
    groups: [Group; LayerGroup::ALL.len()],
}

impl Adam {
    /// An optimizer without a past. `weight_decay` is an L2 penalty, as in `torch.optim.Adam`.
    pub fn new(parameters: &[Parameter], weight_decay: f64) -> Self {
        let groups = LayerGroup::ALL.map(|group| {
            let parameters: Vec<Tensor> = parameters
                .iter()
                .filter(|parameter| parameter.group == group)
                .map(|parameter| parameter.tensor.shallow_clone())
                .collect();
            // zeros_like keeps the strides, which the fused kernel needs to be alike.
            let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect();
            let (averages, squares) = (zeros(), zeros());
            let steps = parameters
                .iter()
                .map(|p| Tensor::zeros([0i64; 0], (Kind::Float, p.device())))
                .collect();
            Group {
                averages,
                squares,
                steps,
                parameters,
            }
        });
        Self {
            weight_decay,
            groups,
        }
    }

    /// Sets all gradients to zero, in place.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn zero_grad(&self) -> Result<(), Error> {
        self.groups
            .iter()
            .try_for_each(|group| c10d::zero_grads(&group.parameters))
    }

    /// One update at these rates, in the order of [`LayerGroup::ALL`].
    ///
    /// # Errors
    /// When a gradient is missing.
    pub fn step(&mut self, rates: &[f64; LayerGroup::ALL.len()]) -> Result<(), Error> {
        self.groups
            .iter()
            .zip(rates)
            .try_for_each(|(group, &rate)| {
                let options = c10d::AdamOptions {
                    weight_decay: self.weight_decay,
                    ..c10d::AdamOptions::new(rate)
                };
                c10d::adam_step(
                    &group.parameters,
                    &group.averages,
                    &group.squares,
                    &group.steps,
                    &options,
                )
            })
    }
}
