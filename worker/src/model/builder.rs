//! Creates the network's tensors, initialized, under torchvision's names and in its order.

use tch::{Device, Kind, Tensor};

use super::norm::Norm;
use super::parameter::{Parameter, ParameterGroup};
use super::random::Draws;
use super::resnet18::{Block, Conv};

/// Collects every named tensor while layers are made.
pub(super) struct Builder {
    pub(super) parameters: Vec<Parameter>,
    /// Parameters and buffers, in the order of torchvision's state dict, without gradients.
    pub(super) state: Vec<(String, Tensor)>,
    draws: Draws,
    device: Device,
}

impl Builder {
    pub(super) fn new(device: Device, seed: u64) -> Self {
        Self {
            parameters: Vec::new(),
            state: Vec::new(),
            draws: Draws::new(seed),
            device,
        }
    }

    /// A convolution without bias, its weights Kaiming-normal by fan-out (He et al.: "Delving
    /// deep into rectifiers", 2015), as torchvision's ResNet starts.
    pub(super) fn conv(&mut self, name: &str, [input, output, kernel, stride]: [i64; 4]) -> Conv {
        let deviation = (2.0 / (output * kernel * kernel) as f64).sqrt();
        let fresh = self
            .draws
            .normal(&[output, input, kernel, kernel], deviation);
        // channels_last strides, written out. A 1×1 kernel has the same memory either way, so
        // libtorch would leave its strides alone, but its gradient comes with these, and DDP's
        // bucket views want parameter and gradient alike.
        let strides = [kernel * kernel * input, 1, kernel * input, input];
        let mut weight = Tensor::empty_strided(
            [output, input, kernel, kernel],
            strides,
            (Kind::Float, self.device),
        );
        weight.copy_(&fresh);
        let weight = self.parameter(format!("{name}.weight"), weight);
        Conv {
            weight,
            stride,
            padding: kernel / 2,
        }
    }

    pub(super) fn norm(&mut self, name: &str, channels: i64) -> Norm {
        let options = (Kind::Float, self.device);
        let none: [i64; 0] = [];
        let norm = Norm {
            weight: self.parameter(format!("{name}.weight"), Tensor::ones([channels], options)),
            bias: self.parameter(format!("{name}.bias"), Tensor::zeros([channels], options)),
            running_mean: self.buffer(
                format!("{name}.running_mean"),
                Tensor::zeros([channels], options),
            ),
            running_var: self.buffer(
                format!("{name}.running_var"),
                Tensor::ones([channels], options),
            ),
        };
        // Nothing on a device reads it, and each addition there would be a launch.
        let _ = self.buffer(
            format!("{name}.num_batches_tracked"),
            Tensor::zeros(none, (Kind::Int64, Device::Cpu)),
        );
        norm
    }

    pub(super) fn block(&mut self, name: &str, input: i64, output: i64, stride: i64) -> Block {
        Block {
            conv1: self.conv(&format!("{name}.conv1"), [input, output, 3, stride]),
            bn1: self.norm(&format!("{name}.bn1"), output),
            conv2: self.conv(&format!("{name}.conv2"), [output, output, 3, 1]),
            bn2: self.norm(&format!("{name}.bn2"), output),
            downsample: (input != output).then(|| {
                let conv = self.conv(&format!("{name}.downsample.0"), [input, output, 1, stride]);
                (conv, self.norm(&format!("{name}.downsample.1"), output))
            }),
        }
    }

    /// A fully connected layer as `torch.nn.Linear` starts: both tensors uniform within
    /// 1/√inputs.
    pub(super) fn linear(&mut self, name: &str, input: i64, output: i64) -> (Tensor, Tensor) {
        let bound = 1.0 / (input as f64).sqrt();
        let weight = self
            .draws
            .uniform(&[output, input], bound)
            .to_device(self.device);
        let bias = self.draws.uniform(&[output], bound).to_device(self.device);
        (
            self.parameter(format!("{name}.weight"), weight),
            self.parameter(format!("{name}.bias"), bias),
        )
    }

    fn parameter(&mut self, name: String, tensor: Tensor) -> Tensor {
        let tensor = tensor.set_requires_grad(true);
        self.state.push((name.clone(), tensor.detach()));
        let group = ParameterGroup::of(&name);
        self.parameters.push(Parameter {
            name,
            tensor: tensor.shallow_clone(),
            group,
        });
        tensor
    }

    fn buffer(&mut self, name: String, tensor: Tensor) -> Tensor {
        self.state.push((name, tensor.shallow_clone()));
        tensor
    }
}
