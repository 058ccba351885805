//! Weight files: torchvision's `.pth` and `.safetensors`, told apart by content, not by name.
//! Knows nothing of the network; the code that loads the entries checks their names and shapes.

mod adapt;
mod archive;
mod error;
mod other;
mod pickle;
mod safetensors;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tch::Tensor;

pub use self::adapt::{Adapted, adapt};
pub use self::error::{Cause, EncodeError, WeightsError};
pub use self::pickle::{PickleError, Problem};
pub use self::safetensors::to_safetensors;

/// Larger files are not weights of a ResNet18, whose own take 45 MB in float32.
const MAX_BYTES: u64 = 1 << 30;

/// The named tensors of a file, on the CPU, of the types they were stored in. Tensors may be
/// views of one another's memory: copy before changing one. Of several state dicts in a `.pth`,
/// `key` names the one that is meant.
///
/// # Errors
/// When the file cannot be read, is neither format, is damaged, or holds more than tensors.
/// The error names the file and the cause.
pub fn read(path: &Path, key: Option<&str>) -> Result<Vec<(String, Tensor)>, WeightsError> {
    bounded(path)
        .and_then(|bytes| parse_key(&bytes, key))
        .map_err(|cause| WeightsError {
            path: path.to_owned(),
            cause,
        })
}

/// [`read`] on a file's content, without a key. Memory stays within a small multiple of `bytes`, whatever they
/// say.
///
/// # Errors
/// As [`read`], but for the file's name.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, Cause> {
    parse_key(bytes, None)
}

fn parse_key(bytes: &[u8], key: Option<&str>) -> Result<Vec<(String, Tensor)>, Cause> {
    match bytes {
        [b'P', b'K', 3, 4, ..] => archive::parse(bytes, key),
        // A bare pickle, protocol 2 or later: how torch.save wrote before version 1.6.
        [0x80, 2..=5, ..] => Err(Cause::Legacy),
        // A header of JSON behind its length of eight bytes.
        [_, _, _, _, _, _, _, _, b'{', ..] => safetensors::parse(bytes),
        _ => Err(other::kind(bytes).map_or(Cause::Unrecognised, Cause::NoWeights)),
    }
}

fn bounded(path: &Path) -> Result<Vec<u8>, Cause> {
    let file = File::open(path).map_err(Cause::Read)?;
    let length = file.metadata().map_err(Cause::Read)?.len();
    if length > MAX_BYTES {
        return Err(Cause::TooLarge {
            bytes: length,
            limit: MAX_BYTES,
        });
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(Cause::Read)?;
    Ok(bytes)
}
