//! ResNet18 (He et al.: "Deep residual learning for image recognition", 2016) with torchvision's
//! structure, names and initialisation. Chooses no precision and no memory format of its input:
//! both are the caller's.

use std::collections::BTreeMap;

use kernels::Statistics;
use tch::{Device, Kind, Tensor};

use super::builder::Builder;
use super::norm::Norm;
use super::parameter::Parameter;
use super::state::{LoadError, overwrite};

const FIRST_CHANNELS: i64 = 64;
const COUNTER: &str = ".num_batches_tracked";

/// What [`ResNet18::load`] did with the classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Taken from the entries.
    Loaded,
    /// Kept as it was, because the entries are for another number of classes.
    Kept {
        /// The number of classes that the entries are for.
        classes_in_file: i64,
    },
    /// Kept as it was, because the entries have none.
    Absent,
}

#[derive(Debug)]
pub(super) struct Conv {
    pub(super) weight: Tensor,
    pub(super) stride: i64,
    pub(super) padding: i64,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) conv1: Conv,
    pub(super) bn1: Norm,
    pub(super) conv2: Conv,
    pub(super) bn2: Norm,
    pub(super) downsample: Option<(Conv, Norm)>,
}

/// The network. Layers, [`parameters`](Self::parameters) and [`state`](Self::state) are handles
/// to the same memory, so a change of one in place is seen by all.
#[derive(Debug)]
pub struct ResNet18 {
    conv1: Conv,
    bn1: Norm,
    blocks: Vec<Block>,
    fc: (Tensor, Tensor),
    parameters: Vec<Parameter>,
    state: Vec<(String, Tensor)>,
}

impl ResNet18 {
    /// Fresh weights, distributed as torchvision's are and the same for the same `seed`.
    ///
    /// # Panics
    /// When libtorch cannot allocate on `device`.
    pub fn new(classes: i64, device: Device, seed: u64) -> Self {
        let mut builder = Builder::new(device, seed);
        let conv1 = builder.conv("conv1", [3, FIRST_CHANNELS, 7, 2]);
        let bn1 = builder.norm("bn1", FIRST_CHANNELS);
        let mut channels = FIRST_CHANNELS;
        let mut blocks = Vec::new();
        for layer in 1..=4 {
            let output = FIRST_CHANNELS << (layer - 1);
            for place in 0..2 {
                let stride = if output == channels { 1 } else { 2 };
                let name = format!("layer{layer}.{place}");
                blocks.push(builder.block(&name, channels, output, stride));
                channels = output;
            }
        }
        let fc = builder.linear("fc", channels, classes);
        let Builder {
            parameters, state, ..
        } = builder;
        Self {
            conv1,
            bn1,
            blocks,
            fc,
            parameters,
            state,
        }
    }

    /// float32 logits `[B, classes]` of images `[B, 3, H, W]`, normalised as ImageNet's and on
    /// the model's device. Channels_last images are quickest. Works under autocast.
    ///
    /// # Panics
    /// When libtorch refuses: another shape or device, or no memory.
    pub fn forward(&self, images: &Tensor, mode: Statistics) -> Tensor {
        let x = self.conv1.forward(images);
        let mut x = self.bn1.forward_relu_max_pool(&x, mode);
        for block in &self.blocks {
            x = block.forward(x, mode);
        }
        let x = x.adaptive_avg_pool2d([1, 1]).flatten(1, -1);
        x.linear(&self.fc.0, Some(&self.fc.1)).to_kind(Kind::Float)
    }

    /// Counts a batch in `num_batches_tracked`, as PyTorch does in a forward pass that moves the
    /// running statistics. [`forward`](Self::forward) leaves it to the caller, since a GPU may
    /// repeat what was recorded.
    pub fn count_batch(&self) {
        let counts = self
            .state
            .iter()
            .filter(|(name, _)| name.ends_with(COUNTER));
        for (_, count) in counts {
            let _ = count.shallow_clone().g_add_scalar_(1);
        }
    }

    /// Every trained tensor, in torchvision's order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The running means and variances, sharing the model's memory: what ranks average.
    pub fn batch_norm_statistics(&self) -> Vec<Tensor> {
        let statistics = self.state.iter().filter(|(name, _)| is_statistic(name));
        statistics
            .map(|(_, tensor)| tensor.shallow_clone())
            .collect()
    }

    /// The state dict in torchvision's order, without gradients, sharing the model's memory:
    /// copy what must outlast the next step.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.state
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    }

    /// Overwrites the state, in place, with entries of any floating type and device. A
    /// classifier for another number of classes is passed over, and may lack. Counts of batches may lack, as
    /// they do in files from before PyTorch 0.4.1.
    ///
    /// # Errors
    /// Lists every missing, unexpected or misshapen entry; the model is unchanged then.
    pub fn load(&mut self, entries: Vec<(String, Tensor)>) -> Result<Head, LoadError> {
        let mut entries: BTreeMap<String, Tensor> = entries.into_iter().collect();
        let head = self.head_of(&entries);
        if head != Head::Loaded {
            entries.remove("fc.weight");
            entries.remove("fc.bias");
        }
        overwrite(&self.state, &entries, |name| {
            name.ends_with(COUNTER) || (head != Head::Loaded && name.starts_with("fc."))
        })?;
        Ok(head)
    }

    /// Only a classifier that is sound in itself counts as one for other classes; the rest is
    /// left to be reported.
    fn head_of(&self, entries: &BTreeMap<String, Tensor>) -> Head {
        let size = |name| entries.get(name).map(Tensor::size);
        let (weight, bias) = match (size("fc.weight"), size("fc.bias")) {
            (Some(weight), Some(bias)) => (weight, bias),
            (None, None) => return Head::Absent,
            _ => return Head::Loaded,
        };
        let [classes, features] = self.fc.0.size()[..] else {
            return Head::Loaded;
        };
        match (&weight[..], &bias[..]) {
            (&[rows, columns], &[length])
                if rows == length && columns == features && rows != classes =>
            {
                Head::Kept {
                    classes_in_file: rows,
                }
            }
            _ => Head::Loaded,
        }
    }
}

impl Conv {
    fn forward(&self, x: &Tensor) -> Tensor {
        let none: Option<&Tensor> = None;
        x.conv2d(
            &self.weight,
            none,
            [self.stride; 2],
            [self.padding; 2],
            [1, 1],
            1,
        )
    }
}

impl Block {
    fn forward(&self, x: Tensor, mode: Statistics) -> Tensor {
        let out = self.bn1.forward_relu(&self.conv1.forward(&x), mode);
        let out = self.conv2.forward(&out);
        let shortcut = match &self.downsample {
            None => x,
            Some((conv, norm)) => norm.forward(&conv.forward(&x), mode),
        };
        self.bn2.forward_add_relu(&out, &shortcut, mode)
    }
}

fn is_statistic(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}
