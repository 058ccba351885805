//! Learning rates by parameter group: the presets and how a list is read.
//! How they change over the epochs is the schedule's business, not this file's.

use std::fmt;

use super::ConfigError;

use coordinator_core::schedule;
pub use coordinator_core::schedule::PARAMETER_GROUPS;

/// One learning rate per parameter group, in the order of [`PARAMETER_GROUPS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupLrs(pub schedule::GroupLrs);

impl GroupLrs {
    /// The recipe's ladder for pretrained weights: exponential from 1e-5 to 1e-3, since early
    /// layers already hold general features that large steps would destroy.
    pub const NOTEBOOK: Self = Self([1e-5, 1e-5, 4.64e-5, 2.15e-4, 1e-3, 1e-3]);

    /// The recipe's shorthand in words, 1e-6 to 1e-3 in decades. It names four values for six
    /// groups; they take the four rungs of [`Self::NOTEBOOK`], which shares one rung between
    /// stem and layer1 and one between layer4 and fc.
    pub const README: Self = Self([1e-6, 1e-6, 1e-5, 1e-4, 1e-3, 1e-3]);

    /// One rate for all, for training from random weights: every layer has all to learn.
    pub const SCRATCH: Self = Self([1e-3; 6]);

    /// Reads a preset (`notebook`, `readme`, `scratch`, `uniform=LR`) or a list
    /// (`stem=1e-5,fc=1e-3`); groups that a list leaves out keep their rate in `base`.
    ///
    /// # Errors
    /// An unknown preset or group, a group named twice, or a rate that is not a number.
    pub fn parse(text: &str, base: Self) -> Result<Self, ConfigError> {
        let refuse = |reason: String| ConfigError::GroupLrs {
            value: text.to_owned(),
            reason,
        };
        match text.trim() {
            "auto" => return Ok(base),
            "notebook" => return Ok(Self::NOTEBOOK),
            "readme" => return Ok(Self::README),
            "scratch" => return Ok(Self::SCRATCH),
            _ => {}
        }
        let mut lrs = base.0;
        let mut seen = [false; 6];
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
                return Ok(Self([lr; 6]));
            }
            let index = PARAMETER_GROUPS
                .iter()
                .position(|known| *known == group)
                .ok_or_else(|| {
                    refuse(format!(
                        "no group `{group}`; the groups are {}",
                        PARAMETER_GROUPS.join(", ")
                    ))
                })?;
            if std::mem::replace(&mut seen[index], true) {
                return Err(refuse(format!("{group} is named twice")));
            }
            lrs[index] = lr;
        }
        Ok(Self(lrs))
    }

    /// The groups with their rates, from the input to the output.
    pub fn by_group(&self) -> impl Iterator<Item = (&'static str, f64)> {
        schedule::by_group(self.0)
    }
}

impl fmt::Display for GroupLrs {
    /// The full list, which [`GroupLrs::parse`] reads back to equal values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (group, lr)) in self.by_group().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{group}={lr:e}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_lists_and_round_trip() {
        let parse = |text| GroupLrs::parse(text, GroupLrs::NOTEBOOK);
        assert_eq!(parse("readme").unwrap(), GroupLrs::README);
        assert_eq!(parse("uniform=0.01").unwrap(), GroupLrs([0.01; 6]));
        assert_eq!(
            parse("stem=0, fc=2e-3").unwrap(),
            GroupLrs([0.0, 1e-5, 4.64e-5, 2.15e-4, 1e-3, 2e-3])
        );
        let printed = GroupLrs::NOTEBOOK.to_string();
        assert_eq!(
            GroupLrs::parse(&printed, GroupLrs::SCRATCH).unwrap(),
            GroupLrs::NOTEBOOK
        );
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
