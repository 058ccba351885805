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

use machine::{Heap, Machine, Object, Value};

/// Tensors by name.
pub(super) type StateDict<'a> = Vec<(&'a str, TensorRef<'a>)>;

/// The tensors of the pickled dict, without a key, and those of each dict in it, with its key: a
/// training checkpoint keeps its state dicts so. Other entries, such as an epoch's number, are
/// passed over, and so are dicts without tensors.
pub(super) fn state_dicts(
    program: &[u8],
) -> Result<Vec<(Option<&str>, StateDict<'_>)>, PickleError> {
    let (mut heap, root) = Machine::run(program)?;
    let items = heap.take_dict(root).unwrap_or_default();
    let mut dicts = vec![(None, tensors(&heap, &items))];
    for (key, value) in &items {
        if let (Value::Text(key), Some(Object::Dict(items))) = (key, heap.get(*value)) {
            dicts.push((Some(*key), tensors(&heap, items)));
        }
    }
    dicts.retain(|(_, tensors)| !tensors.is_empty());
    Ok(dicts)
}

fn tensors<'a>(heap: &Heap<'a>, items: &[(Value<'a>, Value<'a>)]) -> StateDict<'a> {
    let tensor = |(key, value): &(Value<'a>, Value<'a>)| match (key, heap.get(*value)) {
        (Value::Text(name), Some(Object::Tensor(tensor))) => Some((*name, tensor.clone())),
        _ => None,
    };
    items.iter().filter_map(tensor).collect()
}
