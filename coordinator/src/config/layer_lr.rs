//! The values of `--layer-lr`: the presets, and how a list is read and written. How the learning
//! rates change over the epochs is the schedule's business.

use coordinator_core::schedule::{GroupLrs, PARAMETER_GROUPS, by_group};

use super::ConfigError;

/// The recipe's ladder for pretrained weights: exponential from 1e-5 to 1e-3, since early layers
/// already hold general features that large steps would destroy.
pub const NOTEBOOK: GroupLrs = [1e-5, 1e-5, 4.64e-5, 2.15e-4, 1e-3, 1e-3];

/// The recipe's shorthand in words, 1e-6 to 1e-3 in decades. It names four values for six groups;
/// they take the four rungs of [`NOTEBOOK`], which shares one rung between stem and layer1 and
/// one between layer4 and fc.
pub const README: GroupLrs = [1e-6, 1e-6, 1e-5, 1e-4, 1e-3, 1e-3];

/// One learning rate for all, for training from random weights: every layer has all to learn.
pub const SCRATCH: GroupLrs = [1e-3; PARAMETER_GROUPS.len()];

/// Reads a preset (`notebook`, `readme`, `scratch`, `uniform=LR`) or a list (`stem=1e-5,fc=1e-3`);
/// groups that a list leaves out keep their learning rate in `base`.
///
/// # Errors
/// An unknown preset or group, a group named twice, or a learning rate that is not a number.
pub fn parse(text: &str, base: GroupLrs) -> Result<GroupLrs, ConfigError> {
    let refuse = |reason: String| ConfigError::LayerLr {
        value: text.to_owned(),
        reason,
    };
    match text.trim() {
        "auto" => return Ok(base),
        "notebook" => return Ok(NOTEBOOK),
        "readme" => return Ok(README),
        "scratch" => return Ok(SCRATCH),
        _ => {}
    }
    let mut lrs = base;
    let mut seen = [false; PARAMETER_GROUPS.len()];
    for item in text.split(',') {
        let (group, lr) = item.split_once('=').ok_or_else(|| {
            refuse(format!(
                "`{}` is neither a preset (auto, notebook, readme, scratch, uniform=LR) nor GROUP=LR",
                item.trim()
            ))
        })?;
        let (group, lr) = (group.trim(), lr.trim());
        let lr: f64 = lr
            .parse()
            .map_err(|_| refuse(format!("`{lr}` of {group} is not a number")))?;
        if group == "uniform" {
            if text.contains(',') {
                return Err(refuse("uniform=LR stands alone".to_owned()));
            }
            return Ok([lr; PARAMETER_GROUPS.len()]);
        }
        let known = PARAMETER_GROUPS.iter().zip(&mut lrs).zip(&mut seen);
        let mut named = known.filter(|((known, _), _)| **known == group);
        let Some(((_, place), seen)) = named.next() else {
            return Err(refuse(format!(
                "no group `{group}`; the groups are {}",
                PARAMETER_GROUPS.join(", ")
            )));
        };
        if std::mem::replace(seen, true) {
            return Err(refuse(format!("{group} is named twice")));
        }
        *place = lr;
    }
    Ok(lrs)
}

/// The full list, which [`parse`] reads back to equal values.
#[must_use]
pub fn format(lrs: GroupLrs) -> String {
    let items: Vec<_> = by_group(lrs)
        .map(|(group, lr)| format!("{group}={lr:e}"))
        .collect();
    items.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_lists_and_round_trip() {
        let parse = |text| super::parse(text, NOTEBOOK);
        assert_eq!(parse("readme").unwrap(), README);
        assert_eq!(parse("uniform=0.01").unwrap(), [0.01; 6]);
        assert_eq!(
            parse("stem=0, fc=2e-3").unwrap(),
            [0.0, 1e-5, 4.64e-5, 2.15e-4, 1e-3, 2e-3]
        );
        assert_eq!(super::parse(&format(NOTEBOOK), SCRATCH).unwrap(), NOTEBOOK);
        for (wrong, reason) in [
            ("notebok", "neither a preset"),
            ("conv1=1e-3", "no group `conv1`; the groups are stem"),
            ("fc=fast", "`fast` of fc is not a number"),
            ("fc=1,fc=2", "fc is named twice"),
            ("fc=1,uniform=2", "stands alone"),
        ] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(message.contains(reason), "{wrong}: {message}");
        }
    }
}
