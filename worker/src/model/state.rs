//! Overwrites named tensors with others of the same names and shapes, all or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tch::{TchError, Tensor};

/// Entries named per kind of mismatch before the rest is only counted.
const LISTED: usize = 3;

/// One entry that does not fit. Shapes are sizes, outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// Needed and not there.
    Missing {
        /// The entry.
        name: String,
        /// The shape it should have.
        expected: Vec<i64>,
    },
    /// There and not needed.
    Unexpected {
        /// The entry.
        name: String,
        /// The shape it has.
        found: Vec<i64>,
    },
    /// Of another shape.
    Misshapen {
        /// The entry.
        name: String,
        /// The shape it should have.
        expected: Vec<i64>,
        /// The shape it has.
        found: Vec<i64>,
    },
}

/// Why named tensors could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Names or shapes differ. Holds every difference; the message abbreviates.
    #[error("{}", Listing(.0))]
    Mismatch(Vec<Mismatch>),
    /// libtorch could not copy.
    #[error("cannot copy {name}: {source}")]
    Copy {
        /// The entry.
        name: String,
        /// What libtorch said.
        source: TchError,
    },
}

/// Copies every entry into the target of its name, keeping the target's type, device and strides.
/// `optional` says which targets may stay as they are.
pub(crate) fn overwrite(
    targets: &[(String, Tensor)],
    entries: &BTreeMap<String, Tensor>,
    optional: impl Fn(&str) -> bool,
) -> Result<(), LoadError> {
    let mut mismatches = Vec::new();
    for (name, target) in targets {
        let (name, expected) = (name.clone(), target.size());
        match entries.get(&name).map(Tensor::size) {
            None if optional(&name) => {}
            None => mismatches.push(Mismatch::Missing { name, expected }),
            Some(found) if found != expected => {
                mismatches.push(Mismatch::Misshapen {
                    name,
                    expected,
                    found,
                });
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
    let unexpected = entries
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()));
    mismatches.extend(unexpected.map(|(name, t)| Mismatch::Unexpected {
        name: name.clone(),
        found: t.size(),
    }));
    if !mismatches.is_empty() {
        return Err(LoadError::Mismatch(mismatches));
    }
    tch::no_grad(|| {
        for (name, target) in targets {
            if let Some(entry) = entries.get(name) {
                target
                    .shallow_clone()
                    .f_copy_(entry)
                    .map_err(|source| LoadError::Copy {
                        name: name.clone(),
                        source,
                    })?;
            }
        }
        Ok(())
    })
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, expected } => write!(f, "{name} {expected:?}"),
            Self::Unexpected { name, found } => write!(f, "{name} {found:?}"),
            Self::Misshapen {
                name,
                expected,
                found,
            } => {
                write!(f, "{name} {found:?} instead of {expected:?}")
            }
        }
    }
}

/// The network that the entries which are too many are of, by what torchvision's ResNets have.
fn network(mismatches: &[Mismatch]) -> Option<&'static str> {
    let has = |part: &str| {
        mismatches.iter().any(|mismatch| match mismatch {
            Mismatch::Unexpected { name, .. } => name.starts_with(part),
            _ => false,
        })
    };
    // Of layer3, ResNet50 has 6 blocks of three convolutions, ResNet101 23, and ResNet152 36.
    Some(match has("layer1.0.conv3.") {
        true if has("layer3.35.") => "ResNet152",
        true if has("layer3.22.") => "ResNet101",
        true => "ResNet50",
        false if has("layer1.2.conv1.") => "ResNet34",
        false => return None,
    })
}

type Belongs = fn(&Mismatch) -> bool;

struct Listing<'a>(&'a [Mismatch]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries of another network")?;
        if let Some(network) = network(self.0) {
            write!(f, " (this looks like {network}; ResNet18 is needed)")?;
        }
        let kinds: [(&str, Belongs); 3] = [
            ("missing", |m| matches!(m, Mismatch::Missing { .. })),
            ("unexpected", |m| matches!(m, Mismatch::Unexpected { .. })),
            ("of another shape", |m| {
                matches!(m, Mismatch::Misshapen { .. })
            }),
        ];
        for (kind, belongs) in kinds {
            let of_kind: Vec<_> = self.0.iter().filter(|m| belongs(m)).collect();
            for (place, mismatch) in of_kind.iter().take(LISTED).enumerate() {
                match place {
                    0 => write!(f, "; {kind}: {mismatch}")?,
                    _ => write!(f, ", {mismatch}")?,
                }
            }
            if of_kind.len() > LISTED {
                write!(f, " and {} more", of_kind.len() - LISTED)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(name: &str, size: &[i64]) -> (String, Tensor) {
        (name.to_owned(), Tensor::zeros(size, tch::kind::FLOAT_CPU))
    }

    #[test]
    fn every_difference_stands_in_one_error_and_nothing_changes() {
        let targets = [zeros("a", &[2]), zeros("b", &[3]), zeros("c", &[1])];
        let ones = |(name, tensor): (String, Tensor)| (name, tensor + 1.0);
        let entries = [zeros("a", &[2]), zeros("b", &[3, 1]), zeros("z", &[9])]
            .map(ones)
            .into();
        let error = overwrite(&targets, &entries, |_| false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entries of another network; missing: c [1]; unexpected: z [9]; \
             of another shape: b [3, 1] instead of [3]"
        );
        assert_eq!(targets[0].1.sum(None).double_value(&[]), 0.0);
    }

    #[test]
    fn the_likeliest_network_is_named() {
        let entries = [zeros("layer1.0.conv3.weight", &[1])].into();
        let message = overwrite(&[], &entries, |_| false).unwrap_err().to_string();
        assert!(message.contains("this looks like ResNet50;"), "{message}");
    }

    #[test]
    fn long_lists_are_counted() {
        let entries = (0..20).map(|n| zeros(&format!("x{n:02}"), &[1])).collect();
        let message = overwrite(&[], &entries, |_| false).unwrap_err().to_string();
        assert!(message.ends_with("x02 [1] and 17 more"), "{message}");
    }
}
