//! Copies of named tensors that outlive the next step, in the memory of the CPU. A GPU makes them
//! while training goes on.

use c10d::HostCopy;
use tch::{Device, Kind, Tensor};
use worker_control::TrainError;

use super::failure::{device, internal};

/// Named copies.
#[derive(Debug)]
pub(super) struct Snapshot {
    entries: Vec<(String, Part)>,
    /// float32 `[n]`: what lay on a GPU, joined, since each copy from there would take a call.
    joined: Option<HostCopy>,
}

#[derive(Debug)]
enum Part {
    Whole(HostCopy),
    /// Of `joined`.
    Range {
        offset: i64,
        size: Vec<i64>,
    },
}

impl Snapshot {
    /// Begins to copy `entries` as they are now.
    pub(super) fn take(entries: Vec<(String, Tensor)>) -> Result<Self, TrainError> {
        let joins =
            |tensor: &Tensor| tensor.device() != Device::Cpu && tensor.kind() == Kind::Float;
        Self::take_joining(entries, joins)
    }

    fn take_joining(
        entries: Vec<(String, Tensor)>,
        joins: impl Fn(&Tensor) -> bool,
    ) -> Result<Self, TrainError> {
        let (mut flat, mut offset) = (Vec::new(), 0);
        let mut copies = Vec::with_capacity(entries.len());
        for (name, tensor) in entries {
            let tensor = tensor.detach();
            let part = if joins(&tensor) {
                let size = tensor.size();
                let part = Part::Range { offset, size };
                offset += tensor.numel() as i64;
                flat.push(tensor.f_reshape([-1]).map_err(internal)?);
                part
            } else {
                Part::Whole(HostCopy::begin(&tensor).map_err(device)?)
            };
            copies.push((name, part));
        }
        let join = |flat| {
            let joined = Tensor::f_cat(flat, 0).map_err(internal)?;
            HostCopy::begin(&joined).map_err(device)
        };
        let joined = (!flat.is_empty()).then(|| join(&flat)).transpose()?;
        Ok(Self {
            entries: copies,
            joined,
        })
    }

    /// The copies, once all are complete.
    pub(super) fn tensors(&self) -> Result<Vec<(String, Tensor)>, TrainError> {
        let joined = self.joined.as_ref().map(HostCopy::wait).transpose();
        let joined = joined.map_err(device)?;
        let tensor = |part: &Part| match (part, joined) {
            (Part::Whole(copy), _) => Ok(copy.wait().map_err(device)?.shallow_clone()),
            (Part::Range { offset, size }, Some(joined)) => {
                let length = size.iter().product();
                let range = joined.f_narrow(0, *offset, length).map_err(internal)?;
                range.f_view(size.as_slice()).map_err(internal)
            }
            (Part::Range { .. }, None) => Err(internal("a range of nothing")),
        };
        let entries = self.entries.iter();
        entries
            .map(|(name, part)| Ok((name.clone(), tensor(part)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal_whole_or_joined_and_stay_as_they_were() {
        let values = || Tensor::arange(24, tch::kind::FLOAT_CPU).view([2, 3, 2, 2]);
        let shuffled = values().permute([0, 2, 3, 1]);
        for joined in [false, true] {
            let mut source = values();
            let entries = [
                ("a", source.permute([0, 2, 3, 1])),
                ("b", source.get(0)),
                ("c", Tensor::from(7i64)),
            ];
            let entries = entries.map(|(name, tensor)| (name.to_owned(), tensor));
            let joins = |tensor: &Tensor| joined && tensor.kind() == Kind::Float;
            let snapshot = Snapshot::take_joining(entries.into(), joins).unwrap();
            let _ = source.fill_(0.0);
            let copies = snapshot.tensors().unwrap();
            let names: Vec<_> = copies.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["a", "b", "c"]);
            assert_eq!(copies[0].1, shuffled);
            assert_eq!(copies[1].1, values().get(0));
            assert_eq!(copies[2].1.int64_value(&[]), 7);
        }
    }
}
