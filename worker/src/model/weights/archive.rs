//! The zip that torch.save writes: a pickle in `*/data.pkl` and each storage's numbers in
//! `*/data/<key>`, uncompressed (layout: PyTorch's `caffe2/serialize/inline_container.h`).

use std::collections::HashMap;
use std::io::{Cursor, Read};

use tch::Tensor;
use zip::{CompressionMethod, ZipArchive};

use super::error::Cause;
use super::pickle::{self, StateDict, TensorRef};

/// A state dict of ResNet18 takes some 20 KB of pickle, one of ResNet152 200 KB.
const MAX_PICKLE: usize = 4 << 20;

/// The entries under `key`, if there is one, otherwise those that can be meant.
pub(super) fn parse(bytes: &[u8], key: Option<&str>) -> Result<Vec<(String, Tensor)>, Cause> {
    let zip = ZipArchive::new(Cursor::new(bytes)).map_err(Cause::Zip)?;
    let is_pickle = |name: &&str| *name == "data.pkl" || name.ends_with("/data.pkl");
    let program = zip
        .file_names()
        .find(is_pickle)
        .ok_or(Cause::NotTorch)?
        .to_owned();
    let prefix = program.trim_end_matches("data.pkl").to_owned();
    let mut archive = Archive {
        zip,
        prefix,
        budget: bytes.len(),
        storages: HashMap::new(),
    };

    let byte_order = archive.name("byteorder");
    if archive.zip.index_for_name(&byte_order).is_some()
        && archive.member(&byte_order, bytes.len())? == b"big"
    {
        return Err(Cause::BigEndian);
    }
    let program = archive.member(&program, MAX_PICKLE)?;
    let dicts = pickle::state_dicts(&program).map_err(Cause::Pickle)?;
    choose(dicts, key)?
        .into_iter()
        .map(|(name, tensor)| Ok((name.to_owned(), archive.tensor(name, &tensor)?)))
        .collect()
}

/// The state dict under `key`; without one, the only one whose names are those of a ResNet, or else
/// the only one.
fn choose<'a>(
    mut dicts: Vec<(Option<&'a str>, StateDict<'a>)>,
    key: Option<&str>,
) -> Result<StateDict<'a>, Cause> {
    let keys = |dicts: &[(Option<&str>, StateDict<'_>)]| {
        let keys = dicts.iter().filter_map(|(key, _)| *key);
        keys.map(|key| format!("`{key}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(key) = key {
        let found = dicts.iter().position(|(under, _)| *under == Some(key));
        let found = found.ok_or_else(|| Cause::NoKey {
            key: key.to_owned(),
            keys: keys(&dicts),
        })?;
        return Ok(dicts.swap_remove(found).1);
    }
    let fits = |(_, dict): &(_, StateDict<'_>)| {
        dict.iter()
            .any(|(name, _)| name.ends_with("layer1.0.conv1.weight"))
    };
    if dicts.iter().any(fits) {
        dicts.retain(fits);
    }
    if dicts.len() > 1 {
        return Err(Cause::Several { keys: keys(&dicts) });
    }
    dicts.pop().map(|(_, dict)| dict).ok_or(Cause::NoTensors)
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    prefix: String,
    /// Bytes that members may still take. Nothing is compressed, so an honest archive's members
    /// together are smaller than the archive; one whose directory lists the same bytes again and
    /// again is not.
    budget: usize,
    storages: HashMap<String, Tensor>,
}

impl Archive<'_> {
    fn name(&self, tail: &str) -> String {
        format!("{}{tail}", self.prefix)
    }

    /// A member's bytes, their checksum verified.
    fn member(&mut self, name: &str, limit: usize) -> Result<Vec<u8>, Cause> {
        let refuse = |reason: String| Cause::Member {
            member: name.to_owned(),
            reason,
        };
        let file = self
            .zip
            .by_name(name)
            .map_err(|error| refuse(error.to_string()))?;
        if file.compression() != CompressionMethod::Stored {
            return Err(refuse(
                "it is compressed, which torch.save never does".to_owned(),
            ));
        }
        let limit = limit.min(self.budget) as u64;
        if file.size() > limit {
            return Err(refuse(format!(
                "{} bytes, where at most {limit} can be",
                file.size()
            )));
        }
        let mut bytes = Vec::with_capacity(file.size() as usize);
        // One byte more than there should be lets the reader see the end and check the sum.
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| refuse(error.to_string()))?;
        self.budget = self.budget.saturating_sub(bytes.len());
        Ok(bytes)
    }

    /// A view of the tensor's storage, which takes no memory of its own.
    fn tensor(&mut self, name: &str, tensor: &TensorRef<'_>) -> Result<Tensor, Cause> {
        let storage = self.storage(name, tensor)?;
        if !tensor.lies_within(storage.numel() as i64) {
            return Err(Cause::Outside {
                tensor: name.to_owned(),
            });
        }
        storage
            .f_as_strided(&tensor.size, &tensor.stride, tensor.offset)
            .map_err(|source| Cause::Tensor {
                tensor: name.to_owned(),
                source,
            })
    }

    fn storage(&mut self, name: &str, tensor: &TensorRef<'_>) -> Result<Tensor, Cause> {
        let (key, kind) = (tensor.storage.key, tensor.storage.kind);
        if let Some(storage) = self.storages.get(key) {
            // One storage is of one type; a second claim would reread its bytes as another.
            return match storage.kind() == kind {
                true => Ok(storage.shallow_clone()),
                false => Err(Cause::Outside {
                    tensor: name.to_owned(),
                }),
            };
        }
        let member = self.name(&format!("data/{key}"));
        let bytes = self.member(&member, usize::MAX)?;
        let width = kind.elt_size_in_bytes();
        // libtorch trusts the count, so a trailing part of a number is left out.
        let (whole, count) = (bytes.len() / width * width, bytes.len() / width);
        let storage =
            Tensor::f_from_data_size(&bytes[..whole], &[count as i64], kind).map_err(|source| {
                Cause::Tensor {
                    tensor: name.to_owned(),
                    source,
                }
            })?;
        self.storages
            .insert(key.to_owned(), storage.shallow_clone());
        Ok(storage)
    }
}
