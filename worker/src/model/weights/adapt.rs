//! Weights as people save them, under torchvision's names: without the prefix of a wrapper, and
//! without a head that is not `fc`.

use std::collections::BTreeSet;

use tch::Tensor;

use super::error::Cause;

/// Entries that each ResNet has. Their common prefix is that of all.
const FIRST: &str = "conv1.weight";
const BLOCK: &str = "layer1.0.conv1.weight";
/// Names under which people keep another head.
const HEADS: [&str; 5] = ["head.", "classifier.", "linear.", "fc.", "last_linear."];

/// What [`adapt`] makes.
#[derive(Debug)]
pub struct Adapted {
    /// The entries under torchvision's names.
    pub entries: Vec<(String, Tensor)>,
    /// What was done to them, a line each.
    pub notes: Vec<String>,
}

/// The entries under torchvision's names.
///
/// # Errors
/// [`Cause::NotFinite`].
pub fn adapt(mut entries: Vec<(String, Tensor)>) -> Result<Adapted, Cause> {
    for (name, tensor) in &entries {
        if tensor.is_floating_point() && !bool::try_from(tensor.isfinite().all()).unwrap_or(false) {
            return Err(Cause::NotFinite {
                tensor: name.clone(),
            });
        }
    }
    let mut notes = Vec::new();
    if let Some(prefix) = prefix(&entries) {
        for (name, _) in &mut entries {
            if let Some(rest) = name.strip_prefix(&prefix) {
                *name = rest.to_owned();
            }
        }
        notes.push(format!(
            "took the prefix `{prefix}` off the names of the weights"
        ));
    }
    let has = |name: &str| entries.iter().any(|(it, _)| it == name);
    if !(has("fc.weight") && has("fc.bias")) {
        let is_head = |name: &str| HEADS.iter().any(|head| name.starts_with(head));
        let heads: BTreeSet<&str> = entries
            .iter()
            .filter(|(name, _)| is_head(name))
            .filter_map(|(name, _)| name.rsplit_once('.').map(|(head, _)| head))
            .collect();
        notes.push(match heads.len() {
            0 => "the weights have no head: a new one is trained".to_owned(),
            _ => {
                let heads: Vec<&str> = heads.into_iter().collect();
                format!(
                    "passed over the head `{}`: a new one is trained",
                    heads.join("`, `")
                )
            }
        });
        entries.retain(|(name, _)| !is_head(name));
    }
    Ok(Adapted { entries, notes })
}

/// What all names begin with, if they are not torchvision's already.
fn prefix(entries: &[(String, Tensor)]) -> Option<String> {
    let names: BTreeSet<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let prefix = names.iter().find_map(|name| {
        let prefix = name.strip_suffix(BLOCK)?;
        names
            .contains(format!("{prefix}{FIRST}").as_str())
            .then_some(prefix)
    })?;
    (!prefix.is_empty()).then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(names: &[&str]) -> Vec<(String, Tensor)> {
        let one = |name: &&str| ((*name).to_owned(), Tensor::from_slice(&[1.0_f32]));
        names.iter().map(one).collect()
    }

    fn adapted(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let Adapted { entries, notes } = adapt(entries(names)).unwrap();
        (entries.into_iter().map(|(name, _)| name).collect(), notes)
    }

    #[test]
    fn a_prefix_is_taken_off_and_another_head_is_passed_over() {
        let plain = [FIRST, BLOCK, "fc.weight", "fc.bias"];
        assert_eq!(adapted(&plain), (plain.map(str::to_owned).to_vec(), vec![]));
        for prefix in ["module.", "model.backbone.", "_orig_mod.module."] {
            let names = plain.map(|name| format!("{prefix}{name}"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (adapted, notes) = adapted(&names);
            assert_eq!(adapted, plain);
            assert!(notes[0].contains(prefix), "{notes:?}");
        }
        let (names, notes) = adapted(&[
            "encoder.conv1.weight",
            "encoder.layer1.0.conv1.weight",
            "head.weight",
        ]);
        assert_eq!(names, [FIRST, BLOCK]);
        assert_eq!(notes.len(), 2);
        assert!(notes[1].contains("`head`"), "{notes:?}");
        let (names, _) = adapted(&[FIRST, BLOCK, "fc.1.weight", "fc.1.bias"]);
        assert_eq!(names, [FIRST, BLOCK]);
    }

    #[test]
    fn values_that_are_no_numbers_are_refused_by_name() {
        let mut broken = entries(&[FIRST, BLOCK]);
        broken[1].1 = Tensor::from_slice(&[f32::NAN]);
        let error = adapt(broken).unwrap_err().to_string();
        assert!(error.starts_with(BLOCK), "{error}");
    }
}
