//! The part of Python's pickle format that torch.save uses for state dicts. Nothing named in the
//! file is ever looked up or run: a few names on a list stand for tensors, any other is an error.
//! Opcodes: CPython's `Lib/pickletools.py`; what torch writes: `torch/serialization.py`.

mod error;
mod machine;
mod torch;

#[cfg(test)]
mod tests;

pub use error::{PickleError, Problem};
pub(super) use torch::TensorRef;

use machine::{Machine, Object, Value};

/// Keys under which training scripts keep the state dict among other things.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// The tensors of the pickled dict by name, or of the dict that a training checkpoint keeps under
/// one of the usual keys. Other entries, such as an epoch's number, are passed over.
pub(super) fn state_dict(program: &[u8]) -> Result<Vec<(&str, TensorRef<'_>)>, PickleError> {
    let (mut heap, root) = Machine::run(program)?;
    let mut items = heap.take_dict(root).unwrap_or_default();
    let wrapped = items.iter().find_map(|(key, value)| match key {
        Value::Text(key) if WRAPPERS.contains(key) => heap.take_dict(*value),
        _ => None,
    });
    items = wrapped.unwrap_or(items);
    Ok(items
        .into_iter()
        .filter_map(|(key, value)| match (key, heap.get(value)) {
            (Value::Text(name), Some(Object::Tensor(tensor))) => Some((name, tensor.clone())),
            _ => None,
        })
        .collect())
}
