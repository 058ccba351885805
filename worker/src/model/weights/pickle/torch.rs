//! The few Python names that may stand in a state dict, and what they make here.

use tch::Kind;

use super::error::Problem;
use super::machine::{Heap, Object, Value};

/// Convolutions have four dimensions, and files may be of other networks; more than this is
/// damage.
const MAX_DIMENSIONS: usize = 8;

/// A name on the list of what is understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Result<Self, Problem> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Kind::Float),
            ("torch", "HalfStorage") => Self::Storage(Kind::Half),
            ("torch", "BFloat16Storage") => Self::Storage(Kind::BFloat16),
            ("torch", "DoubleStorage") => Self::Storage(Kind::Double),
            ("torch", "LongStorage") => Self::Storage(Kind::Int64),
            ("torch", "IntStorage") => Self::Storage(Kind::Int),
            ("torch", "ShortStorage") => Self::Storage(Kind::Int16),
            ("torch", "CharStorage") => Self::Storage(Kind::Int8),
            ("torch", "ByteStorage") => Self::Storage(Kind::Uint8),
            _ => {
                // Names come from the file; a message stays a line.
                let name: String = format!("{module}.{name}").chars().take(80).collect();
                return Err(Problem::Global(name));
            }
        })
    }
}

/// Numbers in a member of the archive.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct StorageRef<'a> {
    pub(in super::super) key: &'a str,
    pub(in super::super) kind: Kind,
}

/// A view of a storage, counted in elements.
#[derive(Debug, Clone)]
pub(in super::super) struct TensorRef<'a> {
    pub(in super::super) storage: StorageRef<'a>,
    pub(in super::super) offset: i64,
    pub(in super::super) size: Vec<i64>,
    pub(in super::super) stride: Vec<i64>,
}

impl TensorRef<'_> {
    /// Whether the view is sound for a storage of `length` elements. A view that repeats elements
    /// may not have more of them than the storage, so that copies of it stay small.
    pub(in super::super) fn lies_within(&self, length: i64) -> bool {
        let natural = |numbers: &[i64]| numbers.iter().all(|&number| number >= 0);
        let count = self
            .size
            .iter()
            .try_fold(1i64, |count, &n| count.checked_mul(n));
        let last = self
            .size
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |last, (n, step)| {
                last.checked_add((n - 1).max(0).checked_mul(*step)?)
            });
        self.size.len() == self.stride.len()
            && natural(&self.size)
            && natural(&self.stride)
            && self.offset >= 0
            && match (count, last) {
                (Some(0), Some(_)) => self.offset <= length,
                (Some(count), Some(last)) => count <= length && last < length,
                _ => false,
            }
    }
}

/// torch's persistent ids: `('storage', <type>, key, location, number of elements)`.
pub(super) fn persistent<'a>(heap: &mut Heap<'a>, id: Value<'a>) -> Result<Value<'a>, Problem> {
    match heap.tuple(id) {
        Some(
            &[
                Value::Text("storage"),
                Value::Global(Global::Storage(kind)),
                Value::Text(key),
                ..,
            ],
        ) => Ok(heap.add(Object::Storage(StorageRef { key, kind }))),
        _ => Err(Problem::Malformed(
            "a storage that is not described as torch does",
        )),
    }
}

/// Calls: `OrderedDict()`, `_rebuild_tensor_v2(storage, offset, size, stride, …)` and
/// `_rebuild_parameter(tensor, …)`.
pub(super) fn reduce<'a>(
    heap: &mut Heap<'a>,
    function: Value<'a>,
    arguments: Value<'a>,
) -> Result<Value<'a>, Problem> {
    let unfit = Problem::Malformed("a call with unfit arguments");
    match (function, heap.tuple(arguments)) {
        (Value::Global(Global::OrderedDict), Some([])) => Ok(heap.add(Object::Dict(Vec::new()))),
        (
            Value::Global(Global::RebuildTensor),
            Some(&[storage, Value::Int(offset), size, stride, ..]),
        ) => {
            let Some(&Object::Storage(storage)) = heap.get(storage) else {
                return Err(unfit);
            };
            let size = integers(heap.tuple(size).ok_or(unfit.clone())?)?;
            let stride = integers(heap.tuple(stride).ok_or(unfit)?)?;
            Ok(heap.add(Object::Tensor(TensorRef {
                storage,
                offset,
                size,
                stride,
            })))
        }
        (Value::Global(Global::RebuildParameter), Some(&[tensor, ..]))
            if matches!(heap.get(tensor), Some(Object::Tensor(_))) =>
        {
            Ok(tensor)
        }
        _ => Err(unfit),
    }
}

fn integers(values: &[Value<'_>]) -> Result<Vec<i64>, Problem> {
    if values.len() > MAX_DIMENSIONS {
        return Err(Problem::Malformed("a tensor of too many dimensions"));
    }
    values
        .iter()
        .map(|value| match value {
            Value::Int(number) => Ok(*number),
            _ => Err(Problem::Malformed("a size that is no integer")),
        })
        .collect()
}
