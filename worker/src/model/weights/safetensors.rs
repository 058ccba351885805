//! The `.safetensors` format: eight bytes of header length, a header of JSON, the data
//! (<https://github.com/huggingface/safetensors#format>).
//!
//! Reading goes through the `safetensors` crate. Writing does not: the crate keeps metadata in a
//! hash map, so that one state would give different bytes from run to run.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use super::error::{Cause, EncodeError};

const METADATA: &str = "__metadata__";
const ALIGNMENT: usize = 8;

/// The types that both sides know. Bool stays out: its bytes must be 0 or 1.
const KINDS: [(Kind, Dtype, &str); 9] = [
    (Kind::Float, Dtype::F32, "F32"),
    (Kind::Int64, Dtype::I64, "I64"),
    (Kind::Half, Dtype::F16, "F16"),
    (Kind::BFloat16, Dtype::BF16, "BF16"),
    (Kind::Double, Dtype::F64, "F64"),
    (Kind::Int, Dtype::I32, "I32"),
    (Kind::Int16, Dtype::I16, "I16"),
    (Kind::Int8, Dtype::I8, "I8"),
    (Kind::Uint8, Dtype::U8, "U8"),
];

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, Cause> {
    let file = SafeTensors::deserialize(bytes).map_err(Cause::Safetensors)?;
    file.iter()
        .map(|(name, view)| {
            let tensor = name.to_owned();
            let Some((kind, ..)) = KINDS.iter().find(|(_, dtype, _)| *dtype == view.dtype()) else {
                return Err(Cause::Dtype {
                    tensor,
                    dtype: format!("{:?}", view.dtype()),
                });
            };
            let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            // The crate has checked that the data fill the shape, which libtorch trusts.
            match Tensor::f_from_data_size(view.data(), &shape, *kind) {
                Ok(values) => Ok((tensor, values)),
                Err(source) => Err(Cause::Tensor { tensor, source }),
            }
        })
        .collect()
}

/// A `.safetensors` file of `state`, with `metadata` as text. Equal input gives equal bytes.
/// Tensors may lie on any device with any strides; they are written dense, row by row.
///
/// # Errors
/// When a tensor's type has no place in the format, a name comes twice, or libtorch cannot copy.
pub fn to_safetensors(
    state: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, EncodeError> {
    let mut order: Vec<&(String, Tensor)> = state.iter().collect();
    // Wide types first, so that every tensor is aligned to its own type, as readers that map the
    // file expect.
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));

    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut length = 0;
    for (name, tensor) in &order {
        let kind = tensor.kind();
        let Some((.., dtype)) = KINDS.iter().find(|(known, ..)| *known == kind) else {
            return Err(EncodeError::Kind {
                name: name.clone(),
                kind,
            });
        };
        let end = length + bytes_of(tensor);
        let entry = json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [length, end]});
        if name == METADATA || header.insert(name.clone(), entry).is_some() {
            return Err(EncodeError::Name { name: name.clone() });
        }
        length = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');

    let start = ALIGNMENT + header.len();
    let mut file = vec![0; start + length];
    file[..ALIGNMENT].copy_from_slice(&(header.len() as u64).to_le_bytes());
    file[ALIGNMENT..start].copy_from_slice(&header);
    let mut rest = &mut file[start..];
    for (name, tensor) in order {
        let (place, later) = rest.split_at_mut(bytes_of(tensor));
        tensor
            .f_to_device(Device::Cpu)
            .and_then(|tensor| tensor.f_contiguous())
            .and_then(|tensor| tensor.f_copy_data_u8(place, tensor.numel()))
            .map_err(|source| EncodeError::Tensor {
                name: name.clone(),
                source,
            })?;
        rest = later;
    }
    Ok(file)
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_aligned_and_always_the_same() {
        let state = [
            (
                "half".to_owned(),
                Tensor::from_slice(&[0.5f32, -2.0, 7.0]).to_kind(Kind::Half),
            ),
            (
                "view".to_owned(),
                Tensor::arange(6, tch::kind::FLOAT_CPU).view([2, 3]).tr(),
            ),
            ("count".to_owned(), Tensor::from(7i64)),
        ];
        let metadata: BTreeMap<_, _> = (0..20)
            .map(|n| (format!("key{n}"), format!("\"{n}\"\n")))
            .collect();
        let bytes = to_safetensors(&state, &metadata).unwrap();
        assert_eq!(bytes, to_safetensors(&state, &metadata).unwrap());
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(
            header
                .metadata()
                .clone()
                .unwrap()
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            metadata
        );
        for (name, info) in header.tensors() {
            assert_eq!(info.data_offsets.0 * 8 % info.dtype.bitsize(), 0, "{name}");
        }
        let read: BTreeMap<_, _> = parse(&bytes).unwrap().into_iter().collect();
        for (name, tensor) in &state {
            assert_eq!(read[name].kind(), tensor.kind());
            assert_eq!(&read[name], tensor);
        }
    }

    #[test]
    fn names_are_unique() {
        let twice = ["a", "a"].map(|name| (name.to_owned(), Tensor::from(1f32)));
        let error = to_safetensors(&twice, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "the name a is taken");
    }
}
