//! Weight files: torchvision's `.pth` and `.safetensors`, told apart by content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

use super::pickle;

/// Larger files are not weights of a ResNet18.
const MAX_BYTES: u64 = 1 << 30;
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// A file that holds no usable weights.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct WeightsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Named tensors of a weights file, on the CPU.
///
/// # Errors
/// When the file cannot be read or is neither format.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let refuse = |reason: String| WeightsError {
        path: path.to_owned(),
        reason,
    };
    let bytes = read_bounded(path).map_err(|error| refuse(error.to_string()))?;
    if bytes.starts_with(ZIP_MAGIC) {
        return pickle::read_archive(&bytes).map_err(refuse);
    }
    if bytes.starts_with(&[0x80, 0x02]) {
        return Err(refuse(
            "the old, non-zip format of torch.save; load and save it again with PyTorch 1.6 or \
             later"
                .to_owned(),
        ));
    }
    read_safetensors(&bytes).map_err(|reason| {
        refuse(format!(
            "neither a .pth of torch.save nor a .safetensors file ({reason})"
        ))
    })
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "{length} bytes are too many for a ResNet18"
        )));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_safetensors(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                Dtype::F64 => Kind::Double,
                Dtype::I64 => Kind::Int64,
                other => return Err(format!("{name} is of type {other:?}")),
            };
            let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
            Ok((
                name,
                Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| e.to_string())?,
            ))
        })
        .collect()
}

/// A `.safetensors` file of `state`, which is on the CPU, with `metadata`.
///
/// # Errors
/// When a tensor is of a type that the format lacks.
pub fn to_safetensors(
    state: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let mut data = Vec::with_capacity(state.len());
    for (name, tensor) in state {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Int64 => Dtype::I64,
            other => return Err(format!("{name} is of kind {other:?}")),
        };
        let tensor = tensor.contiguous();
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor
            .f_copy_data_u8(&mut bytes, tensor.numel())
            .map_err(|error| error.to_string())?;
        let shape = tensor
            .size()
            .iter()
            .map(|&side| side as usize)
            .collect::<Vec<_>>();
        data.push((name.as_str(), dtype, shape, bytes));
    }
    let views = data
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes)
                .map(|view| (*name, view))
                .map_err(|error| format!("{name}: {error}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let metadata = metadata.clone().into_iter().collect();
    safetensors::serialize(views, Some(metadata)).map_err(|error| error.to_string())
}
