//! The network and the files its weights come from and go to.
//! Knows nothing of ranks, steps or data; the only randomness is the seed of fresh weights.

pub mod resnet18;
pub mod state;
pub mod weights;

mod builder;
mod norm;
mod parameter;
mod random;

pub use kernels::Statistics;
pub use parameter::{Parameter, ParameterGroup};
pub use resnet18::{Head, ResNet18};
pub use state::{LoadError, Mismatch};
