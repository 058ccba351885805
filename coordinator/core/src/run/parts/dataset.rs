//! The data of the run: its files, which of them decode, and the training and validation sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Recipe;
use crate::event::{BadFile, DataError, Fact, Scan};
use crate::split::Split;

/// What is known of the data.
#[derive(Debug, Default)]
pub(in crate::run) struct Dataset {
    /// SHA-256 over paths and sizes, once it is known.
    fingerprint: Option<String>,
    classes: Vec<String>,
    /// Path and size of each sample.
    files: Vec<(String, u64)>,
    /// Samples that do not decode, with the decoder's error.
    bad: BTreeMap<u32, String>,
    /// Samples that are decoded in the cache which the launcher's workers share.
    cached: BTreeSet<u32>,
    split: Option<Split>,
    /// The sets of a resumed run, until the files are known.
    remembered: Option<SplitPaths>,
}

/// Paths of the training and the validation set, relative to the folder of classes.
#[derive(Debug)]
struct SplitPaths {
    train: Vec<String>,
    validation: Vec<String>,
}

impl Dataset {
    /// The data of a resumed run.
    pub(in crate::run) fn remembered(
        fingerprint: String,
        train: Vec<String>,
        validation: Vec<String>,
    ) -> Self {
        Self {
            fingerprint: Some(fingerprint),
            remembered: Some(SplitPaths { train, validation }),
            ..Self::default()
        }
    }

    /// The fingerprint, if it is known and `other` is another one.
    pub(in crate::run) fn differs(&self, other: &str) -> Option<&str> {
        let known = self.fingerprint.as_deref()?;
        (known != other).then_some(known)
    }

    /// The first path that only one of the run and a worker has, or has with another size. Before
    /// the first scan of a resumed run, the first of its split that the worker lacks.
    pub(in crate::run) fn first_difference(&self, files: &[(String, u64)]) -> Option<String> {
        if let (true, Some(split)) = (self.files.is_empty(), &self.remembered) {
            let has: BTreeSet<&String> = files.iter().map(|(path, _)| path).collect();
            let all = split.train.iter().chain(&split.validation);
            return all.filter(|path| !has.contains(path)).min().cloned();
        }
        let known: BTreeSet<_> = self.files.iter().collect();
        let other: BTreeSet<_> = files.iter().collect();
        let differs = known.symmetric_difference(&other).min();
        differs.map(|(path, _)| path.clone())
    }

    /// Learns classes and files from the first worker that knows them, and keeps no second
    /// copy of the list. Whether this was the first.
    pub(in crate::run) fn adopt(&mut self, scan: &mut Scan) -> Result<bool, DataError> {
        let files = std::mem::take(&mut scan.files);
        if !self.files.is_empty() {
            return Ok(false);
        }
        self.split = self.restored_split(&files)?;
        self.files = files;
        self.classes.clone_from(&scan.classes);
        self.fingerprint = Some(scan.fingerprint.clone());
        Ok(true)
    }

    /// The split of a resumed run, as places in the list of files.
    fn restored_split(&self, files: &[(String, u64)]) -> Result<Option<Split>, DataError> {
        let Some(remembered) = &self.remembered else {
            return Ok(None);
        };
        let index: HashMap<&str, u32> = (files.iter().zip(0..))
            .map(|((path, _), at)| (path.as_str(), at))
            .collect();
        let find = |paths: &[String]| -> Result<Vec<u32>, DataError> {
            let find = |path: &String| {
                let missing = || DataError::Missing { path: path.clone() };
                index.get(path.as_str()).copied().ok_or_else(missing)
            };
            paths.iter().map(find).collect()
        };
        Ok(Some(Split {
            train: find(&remembered.train)?,
            validation: find(&remembered.validation)?,
        }))
    }

    /// All samples.
    pub(in crate::run) fn samples(&self) -> Vec<u32> {
        (0..self.files.len() as u32).collect()
    }

    /// Samples that the shared cache lacks.
    pub(in crate::run) fn not_cached(&self) -> Vec<u32> {
        let mut samples = self.samples();
        samples.retain(|sample| !self.cached.contains(sample));
        samples
    }

    /// These samples are in the shared cache.
    pub(in crate::run) fn cache(&mut self, samples: &[u32]) {
        self.cached.extend(samples);
    }

    /// Images of the data folder.
    pub(in crate::run) fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether a worker that cannot decode `bad` can train on all that the run trains on.
    pub(in crate::run) fn check_usable(&self, bad: &[(u32, String)]) -> Result<(), DataError> {
        let Some(split) = &self.split else {
            return Ok(());
        };
        let used = split.train.iter().chain(&split.validation);
        let used: BTreeSet<u32> = used.copied().collect();
        match bad.iter().find(|(sample, _)| used.contains(sample)) {
            None => Ok(()),
            Some((sample, error)) => Err(DataError::Undecodable {
                path: self.path_of(*sample),
                error: error.clone(),
            }),
        }
    }

    /// These samples do not decode.
    pub(in crate::run) fn leave_out(&mut self, bad: Vec<(u32, String)>) {
        self.bad.extend(bad);
    }

    /// Divides the samples that decode into a training and a validation set; reports the files
    /// that are left out.
    pub(in crate::run) fn make_split(
        &mut self,
        recipe: &Recipe,
        mut report: impl FnMut(Fact),
    ) -> Result<(), DataError> {
        let bad = self.bad.iter().map(|(sample, error)| BadFile {
            path: self.path_of(*sample),
            error: error.clone(),
        });
        let bad: Vec<BadFile> = bad.collect();
        if let Some(BadFile { path, error }) = bad.first() {
            if recipe.strict_data {
                let (path, error, files) = (path.clone(), error.clone(), bad.len());
                return Err(DataError::Strict { path, error, files });
            }
            report(Fact::BadFiles(bad));
        }
        let mut good = self.samples();
        good.retain(|sample| !self.bad.contains_key(sample));
        let split = Split::new(&good, recipe.validation_fraction, recipe.seed);
        self.split = Some(split.ok_or(DataError::TooFewImages { usable: good.len() })?);
        Ok(())
    }

    /// The training and validation set, once they are known.
    pub(in crate::run) fn split(&self) -> Option<&Split> {
        self.split.as_ref()
    }

    /// What observers should know of the split, once it is known.
    pub(in crate::run) fn split_fact(&self) -> Option<Fact> {
        Some(Fact::SplitReady {
            fingerprint: self.fingerprint.clone().unwrap_or_default(),
            classes: self.classes.clone(),
            files: self.files.iter().map(|(path, _)| path.clone()).collect(),
            split: self.split.clone()?,
        })
    }

    /// Steps of an epoch with batches of this size; 0 before the split is known.
    pub(in crate::run) fn steps_of_an_epoch(&self, global_batch: usize) -> u32 {
        let samples = self.split.as_ref().map_or(0, |split| split.train.len());
        samples.div_ceil(global_batch) as u32
    }

    fn path_of(&self, sample: u32) -> String {
        let file = self.files.get(sample as usize);
        file.map_or_else(String::new, |file| file.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(fingerprint: &str, paths: &[&str]) -> Scan {
        Scan {
            fingerprint: fingerprint.to_owned(),
            files: paths.iter().map(|path| ((*path).to_owned(), 1)).collect(),
            ..Scan::default()
        }
    }

    #[test]
    fn data_that_changed_since_the_run_is_not_taken_for_the_runs() {
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let fingerprint = "same".to_owned();
        let mut dataset = Dataset::remembered(fingerprint, paths(&["a/1", "a/3"]), paths(&["a/2"]));
        let mut changed = scan("other", &["a/0", "a/1", "a/2"]);
        let lacks = dataset.first_difference(&changed.files);
        assert_eq!(lacks.as_deref(), Some("a/3"));
        let more = scan("other", &["a/0", "a/1", "a/2", "a/3"]);
        assert_eq!(dataset.first_difference(&more.files), None);
        dataset.adopt(&mut changed).unwrap_err();
        assert_eq!(dataset.differs("same"), None);
        assert_eq!(
            dataset.adopt(&mut scan("same", &["a/1", "a/2", "a/3"])),
            Ok(true)
        );
    }
}
