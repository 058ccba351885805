//! Why a weights file cannot be used, in words that name the way out where there is one.

use std::path::PathBuf;

use tch::{Kind, TchError};

use super::pickle::PickleError;

/// A file that holds no usable weights.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct WeightsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub cause: Cause,
}

/// What is wrong with a weights file.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// Too large to be weights of a ResNet18.
    #[error("{bytes} bytes are too many for weights of a ResNet18 (limit {limit})")]
    TooLarge {
        /// The file's size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// Neither format.
    #[error("neither a .pth of torch.save nor a .safetensors file")]
    Unrecognised,
    /// What a download leaves in place of weights.
    #[error("{0} download it again")]
    NoWeights(&'static str),
    /// No state dict under the key that was given.
    #[error("there are no weights under `{key}`; there are some under {keys}")]
    NoKey {
        /// The key.
        key: String,
        /// Those that there are.
        keys: String,
    },
    /// Several state dicts that can be meant.
    #[error("there are weights under {keys}: choose with --pretrained FILE#KEY")]
    Several {
        /// Their keys.
        keys: String,
    },
    /// A number that no training can begin with.
    #[error("{tensor} holds values that are infinite or not a number")]
    NotFinite {
        /// The entry.
        tensor: String,
    },
    /// What torch.save wrote before PyTorch 1.6.
    #[error(
        "in the old format of torch.save; convert it with Python: \
         torch.save(torch.load(\"old.pth\", map_location=\"cpu\", weights_only=True), \"new.pth\")"
    )]
    Legacy,
    /// A `.safetensors` header that is malformed or does not fit the file.
    #[error("a damaged .safetensors file ({0})")]
    Safetensors(safetensors::SafeTensorError),
    /// A zip that is damaged.
    #[error("a damaged or incomplete zip archive ({0})")]
    Zip(zip::result::ZipError),
    /// A zip of something else.
    #[error("a zip archive without data.pkl, so not made by torch.save")]
    NotTorch,
    /// A member of the archive is missing, damaged, or larger than the archive.
    #[error("{member} in the archive cannot be read ({reason})")]
    Member {
        /// Its path in the archive.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a big-endian machine.
    #[error("its numbers are big-endian; save it again on a little-endian machine")]
    BigEndian,
    /// The pickle is damaged or asks for more than tensors.
    #[error("{0}")]
    Pickle(PickleError),
    /// No dict of tensors, plain or under `state_dict` or `model`.
    #[error("holds no dict of named tensors; save model.state_dict() rather than the model")]
    NoTensors,
    /// A tensor does not lie inside its storage.
    #[error("{tensor} reaches outside its storage")]
    Outside {
        /// The entry.
        tensor: String,
    },
    /// A type of number that weights do not come in.
    #[error("{tensor} is of type {dtype}, which is not supported")]
    Dtype {
        /// The entry.
        tensor: String,
        /// Its type, as the file names it.
        dtype: String,
    },
    /// libtorch could not make the tensor.
    #[error("{tensor}: {source}")]
    Tensor {
        /// The entry.
        tensor: String,
        /// What libtorch said.
        source: TchError,
    },
}

/// Why tensors could not be written as `.safetensors`.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The format has no such type, or nothing here makes it.
    #[error("{name} is of kind {kind:?}, which is not written")]
    Kind {
        /// The entry.
        name: String,
        /// Its type.
        kind: Kind,
    },
    /// Two entries of one name, or the name that the format keeps for metadata.
    #[error("the name {name} is taken")]
    Name {
        /// The entry.
        name: String,
    },
    /// libtorch could not copy the tensor out.
    #[error("{name}: {source}")]
    Tensor {
        /// The entry.
        name: String,
        /// What libtorch said.
        source: TchError,
    },
}
