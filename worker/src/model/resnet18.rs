//! ResNet18 (He et al.: "Deep residual learning", 2016) with torchvision's structure and names.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Kind, Tensor};

/// The weight of a batch in the running statistics, as torchvision has it.
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;
const FIRST_CHANNELS: i64 = 64;
/// Entries named in one error before the rest is only counted.
const LISTED: usize = 12;

/// Layers that share a learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "the names are torchvision's, but for the stem: conv1 and bn1"
)]
pub enum LayerGroup {
    Stem,
    Layer1,
    Layer2,
    Layer3,
    Layer4,
    Fc,
}

impl LayerGroup {
    /// From the input to the head.
    pub const ALL: [Self; 6] = [
        Self::Stem,
        Self::Layer1,
        Self::Layer2,
        Self::Layer3,
        Self::Layer4,
        Self::Fc,
    ];

    /// The name on the wire.
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

    fn of(name: &str) -> Self {
        let first = name.split('.').next().unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|group| group.as_str() == first)
            .unwrap_or(Self::Stem)
    }
}

/// Which statistics normalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchNorm {
    /// The batch's, which also move the running ones.
    Batch,
    /// The running ones, which stay as they are.
    Running,
}

/// A trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// torchvision's name.
    pub name: String,
    /// Float, on the model's device, taking gradients.
    pub tensor: Tensor,
    /// Where it belongs.
    pub group: LayerGroup,
}

/// Weights that do not fit this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the weights are not of this ResNet18: {0}")]
pub struct LoadError(pub String);

#[derive(Debug)]
struct Norm {
    weight: usize,
    bias: usize,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
    name: String,
}

#[derive(Debug)]
struct Block {
    conv1: usize,
    bn1: Norm,
    conv2: usize,
    bn2: Norm,
    downsample: Option<(usize, Norm)>,
    stride: i64,
}

/// The network: parameters in torchvision's order, and the blocks that use them.
#[derive(Debug)]
pub struct ResNet18 {
    parameters: Vec<Parameter>,
    conv1: usize,
    bn1: Norm,
    blocks: Vec<Block>,
    fc: (usize, usize),
}

struct Builder {
    parameters: Vec<Parameter>,
    device: Device,
}

impl Builder {
    fn parameter(&mut self, name: String, tensor: Tensor) -> usize {
        let tensor = tensor.to_device(self.device).set_requires_grad(true);
        let group = LayerGroup::of(&name);
        self.parameters.push(Parameter {
            name,
            tensor,
            group,
        });
        self.parameters.len() - 1
    }

    /// Kaiming-normal by fan-out, stored channels_last. A 1×1 kernel keeps the plain strides,
    /// which are the ones its gradient gets.
    fn conv(&mut self, name: String, input: i64, output: i64, kernel: i64) -> usize {
        let deviation = (2.0 / (output * kernel * kernel) as f64).sqrt();
        let weight =
            Tensor::randn([output, input, kernel, kernel], (Kind::Float, Device::Cpu)) * deviation;
        let weight = if kernel == 1 {
            weight
        } else {
            channels_last(&weight)
        };
        self.parameter(name, weight)
    }

    fn norm(&mut self, name: &str, channels: i64) -> Norm {
        let options = (Kind::Float, Device::Cpu);
        let weight = self.parameter(format!("{name}.weight"), Tensor::ones([channels], options));
        let bias = self.parameter(format!("{name}.bias"), Tensor::zeros([channels], options));
        let options = (Kind::Float, self.device);
        Norm {
            weight,
            bias,
            running_mean: Tensor::zeros([channels], options),
            running_var: Tensor::ones([channels], options),
            batches: Tensor::zeros([0i64; 0], (Kind::Int64, self.device)),
            name: name.to_owned(),
        }
    }

    fn block(&mut self, name: &str, input: i64, output: i64, stride: i64) -> Block {
        let conv1 = self.conv(format!("{name}.conv1.weight"), input, output, 3);
        let bn1 = self.norm(&format!("{name}.bn1"), output);
        let conv2 = self.conv(format!("{name}.conv2.weight"), output, output, 3);
        let bn2 = self.norm(&format!("{name}.bn2"), output);
        let downsample = (input != output).then(|| {
            let conv = self.conv(format!("{name}.downsample.0.weight"), input, output, 1);
            (conv, self.norm(&format!("{name}.downsample.1"), output))
        });
        Block {
            conv1,
            bn1,
            conv2,
            bn2,
            downsample,
            stride,
        }
    }
}

impl ResNet18 {
    /// Fresh weights as torchvision draws them, the same for the same `seed`.
    pub fn new(classes: i64, device: Device, seed: u64) -> Self {
        tch::manual_seed(seed as i64);
        let mut builder = Builder {
            parameters: Vec::new(),
            device,
        };
        let conv1 = builder.conv("conv1.weight".to_owned(), 3, FIRST_CHANNELS, 7);
        let bn1 = builder.norm("bn1", FIRST_CHANNELS);
        let mut blocks = Vec::new();
        let mut channels = FIRST_CHANNELS;
        for layer in 1..=4 {
            let output = FIRST_CHANNELS << (layer - 1);
            for place in 0..2 {
                let stride = if layer > 1 && place == 0 { 2 } else { 1 };
                blocks.push(builder.block(
                    &format!("layer{layer}.{place}"),
                    channels,
                    output,
                    stride,
                ));
                channels = output;
            }
        }
        let bound = 1.0 / (channels as f64).sqrt();
        let draw = |shape: &[i64]| {
            let mut tensor = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            tensor.uniform_(-bound, bound)
        };
        let weight = builder.parameter("fc.weight".to_owned(), draw(&[classes, channels]));
        let bias = builder.parameter("fc.bias".to_owned(), draw(&[classes]));
        Self {
            parameters: builder.parameters,
            conv1,
            bn1,
            blocks,
            fc: (weight, bias),
        }
    }

    /// Logits `[B, classes]` of images `[B, 3, H, W]`.
    pub fn forward(&self, images: &Tensor, mode: BatchNorm) -> Tensor {
        let x = self.conv(self.conv1, images, 2, 3);
        let x = self.norm(&self.bn1, &x, mode).relu_();
        let mut x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        for block in &self.blocks {
            let out = self.conv(block.conv1, &x, block.stride, 1);
            let out = self.norm(&block.bn1, &out, mode).relu_();
            let out = self.conv(block.conv2, &out, 1, 1);
            let out = self.norm(&block.bn2, &out, mode);
            let shortcut = match &block.downsample {
                None => x,
                Some((conv, norm)) => self.norm(norm, &self.conv(*conv, &x, block.stride, 0), mode),
            };
            x = (out + shortcut).relu_();
        }
        let x = x.adaptive_avg_pool2d([1, 1]).flatten(1, -1);
        x.linear(self.tensor(self.fc.0), Some(self.tensor(self.fc.1)))
    }

    /// Every trained tensor, in torchvision's order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Running means and variances, sharing memory with the model's.
    pub fn batch_norm_statistics(&self) -> Vec<Tensor> {
        self.norms()
            .flat_map(|norm| {
                [
                    norm.running_mean.shallow_clone(),
                    norm.running_var.shallow_clone(),
                ]
            })
            .collect()
    }

    /// The state dict under torchvision's names, sharing memory with the model's.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let parameters = self
            .parameters
            .iter()
            .map(|p| (p.name.clone(), p.tensor.shallow_clone()));
        let buffers = self.norms().flat_map(|norm| {
            [
                (
                    format!("{}.running_mean", norm.name),
                    norm.running_mean.shallow_clone(),
                ),
                (
                    format!("{}.running_var", norm.name),
                    norm.running_var.shallow_clone(),
                ),
                (
                    format!("{}.num_batches_tracked", norm.name),
                    norm.batches.shallow_clone(),
                ),
            ]
        });
        parameters.chain(buffers).collect()
    }

    /// Overwrites the state with `entries` of any float type. A head for another number of
    /// classes is left out and the fresh one stays: false says so.
    ///
    /// # Errors
    /// Names every missing, unexpected or misshapen entry; the model is unchanged then.
    pub fn load(&mut self, entries: Vec<(String, Tensor)>) -> Result<bool, LoadError> {
        let mut entries: BTreeMap<String, Tensor> = entries.into_iter().collect();
        let state = self.state();
        let classes = self.tensor(self.fc.1).size()[0];
        let head_fits = entries
            .get("fc.bias")
            .is_none_or(|bias| bias.size() == [classes]);
        if !head_fits {
            entries.remove("fc.weight");
            entries.remove("fc.bias");
        }
        let mut problems = Vec::new();
        let mut known = BTreeSet::new();
        for (name, tensor) in &state {
            known.insert(name.as_str());
            // Files of old torchvision versions lack the counter.
            let optional =
                name.ends_with("num_batches_tracked") || (!head_fits && name.starts_with("fc."));
            match entries.get(name) {
                None if optional => {}
                None => problems.push(format!("{name} is missing")),
                Some(entry) if entry.size() != tensor.size() => problems.push(format!(
                    "{name} is {:?} instead of {:?}",
                    entry.size(),
                    tensor.size()
                )),
                Some(_) => {}
            }
        }
        let unexpected = entries.keys().filter(|name| !known.contains(name.as_str()));
        let unexpected: Vec<_> = unexpected
            .map(|name| format!("{name} is unexpected"))
            .collect();
        problems.splice(0..0, unexpected);
        if !problems.is_empty() {
            let rest = problems.len().saturating_sub(LISTED);
            problems.truncate(LISTED);
            let more = if rest > 0 {
                format!("; and {rest} more")
            } else {
                String::new()
            };
            return Err(LoadError(problems.join("; ") + &more));
        }
        tch::no_grad(|| {
            for (name, mut tensor) in state {
                if let Some(entry) = entries.get(&name) {
                    tensor.copy_(entry);
                }
            }
        });
        Ok(head_fits)
    }

    fn tensor(&self, index: usize) -> &Tensor {
        &self.parameters[index].tensor
    }

    fn conv(&self, weight: usize, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let none: Option<Tensor> = None;
        x.conv2d(
            self.tensor(weight),
            none,
            [stride; 2],
            [padding; 2],
            [1, 1],
            1,
        )
    }

    fn norm(&self, norm: &Norm, x: &Tensor, mode: BatchNorm) -> Tensor {
        let batch = mode == BatchNorm::Batch;
        if batch {
            let _ = tch::no_grad(|| norm.batches.shallow_clone().f_add_scalar_(1));
        }
        x.batch_norm(
            Some(self.tensor(norm.weight)),
            Some(self.tensor(norm.bias)),
            Some(&norm.running_mean),
            Some(&norm.running_var),
            batch,
            MOMENTUM,
            EPSILON,
            true,
        )
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        let blocks = self.blocks.iter().flat_map(|block| {
            let downsample = block.downsample.as_ref().map(|(_, norm)| norm);
            [Some(&block.bn1), Some(&block.bn2), downsample]
                .into_iter()
                .flatten()
        });
        std::iter::once(&self.bn1).chain(blocks)
    }
}

/// The same values with the strides of NHWC.
fn channels_last(weight: &Tensor) -> Tensor {
    weight
        .permute([0, 2, 3, 1])
        .contiguous()
        .permute([0, 3, 1, 2])
}
