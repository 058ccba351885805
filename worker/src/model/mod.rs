//! The network and the files its weights come from. Knows nothing of ranks or steps.

pub mod resnet18;
pub mod weights;

mod pickle;

pub use resnet18::{BatchNorm, LayerGroup, LoadError, Parameter, ResNet18};
