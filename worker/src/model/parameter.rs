//! Trained tensors and the groups that share a learning rate.

use tch::Tensor;

/// Layers that share a learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParameterGroup {
    /// `conv1` and `bn1`, before the first block.
    Stem,
    /// Two blocks of 64 channels.
    Layer1,
    /// Two blocks of 128 channels.
    Layer2,
    /// Two blocks of 256 channels.
    Layer3,
    /// Two blocks of 512 channels.
    Layer4,
    /// The classifier.
    Fc,
}

impl ParameterGroup {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// From the input to the head. A group's discriminant is its place here.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Stem,
        Self::Layer1,
        Self::Layer2,
        Self::Layer3,
        Self::Layer4,
        Self::Fc,
    ];

    /// The name in configuration, messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stem => "stem",
            Self::Layer1 => "layer1",
            Self::Layer2 => "layer2",
            Self::Layer3 => "layer3",
            Self::Layer4 => "layer4",
            Self::Fc => "fc",
        }
    }

    /// The group of a parameter by torchvision's name for it.
    pub(super) fn of(name: &str) -> Self {
        let module = name.split('.').next().unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|group| group.as_str() == module)
            .unwrap_or(Self::Stem)
    }
}

/// A trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// torchvision's name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// float32 on the model's device, requiring gradients. Convolutions are channels_last.
    pub tensor: Tensor,
    /// The group whose learning rate it has.
    pub group: ParameterGroup,
}
