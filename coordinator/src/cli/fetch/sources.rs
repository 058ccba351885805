//! The table of what can be fetched, and the checksums that the results must have.
//!
//! Owns the defaults and their overrides (flag, then environment, then table).

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Error, bail};
use data_encoding::HEXLOWER;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::unwritable;

/// The folder inside the archive, and the name under which the data set is read.
pub(super) const CALTECH101_FOLDER: &str = "101_ObjectCategories";

/// Something that `coordinator fetch` can bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// The images of Caltech101 (137 MB, CC BY 4.0)
    Caltech101,
    /// ResNet18 pretrained on ImageNet, as torchvision publishes it (47 MB)
    Weights,
}

impl Target {
    /// The folder under the data directory where the result lies.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Caltech101 => "caltech101",
            Self::Weights => "weights",
        }
    }

    fn default_source(self) -> Source {
        let (url, checksum, file_name) = match self {
            // CaltechDATA record mzrjq-6wc02, doi 10.22002/D1.20086; the record states the MD5.
            Self::Caltech101 => (
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                Checksum::Md5("3138e1922a9193bfa496528edbbc45d0".to_owned()),
                "caltech-101.zip",
            ),
            // torchvision's ResNet18_Weights.IMAGENET1K_V1. By PyTorch's convention
            // (torch.hub.load_state_dict_from_url, check_hash) the file name carries the first
            // eight digits of the SHA-256.
            Self::Weights => (
                "https://download.pytorch.org/models/resnet18-f37072fd.pth",
                Checksum::Sha256(
                    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec".to_owned(),
                ),
                "resnet18-f37072fd.pth",
            ),
        };
        Source {
            target: self,
            url: url.to_owned(),
            checksum,
            file_name,
        }
    }
}

/// Where a target comes from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) target: Target,
    pub(super) url: String,
    pub(super) checksum: Checksum,
    pub(super) file_name: &'static str,
}

impl Source {
    /// The source of `target`: a flag wins over `variable` (a look-up in the environment), that
    /// over the table. Another address alone keeps the checksum, so a mirror is held to it.
    pub(super) fn resolve(
        target: Target,
        url: Option<String>,
        sha256: Option<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let set = |what: &str| {
            let target = target.folder().to_uppercase();
            variable(&format!("FINETUNE_FETCH_{target}_{what}")).filter(|value| !value.is_empty())
        };
        let mut source = target.default_source();
        if let Some(url) = url.or_else(|| set("URL")) {
            source.url = url;
        }
        if let Some(digits) = sha256.or_else(|| set("SHA256")) {
            source.checksum = Checksum::parse_sha256(&digits)?;
        }
        Ok(source)
    }

    /// What is wrong with the checksum of `path`, if it is.
    pub(super) fn mismatch(&self, path: &Path) -> Result<Option<String>, Error> {
        let actual = match &self.checksum {
            Checksum::Md5(_) => digest::<Md5>(path),
            Checksum::Sha256(_) => digest::<Sha256>(path),
        }
        .map_err(unwritable(path))?;
        let (Checksum::Md5(expected) | Checksum::Sha256(expected)) = &self.checksum;
        let wrong = || {
            let expected = &self.checksum;
            format!("has the wrong checksum: expected {expected}, got {actual}")
        };
        Ok((!actual.starts_with(expected.as_str())).then(wrong))
    }
}

/// What a file's content must hash to, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// All 32 digits. Guards against damage only, not against malice.
    Md5(String),
    /// The first 8 to 64 digits: PyTorch puts 8 into its file names.
    Sha256(String),
}

impl Checksum {
    fn parse_sha256(value: &str) -> Result<Self, Error> {
        if (8..=64).contains(&value.len()) && value.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Ok(Self::Sha256(value.to_ascii_lowercase()));
        }
        bail!("'{value}' is not a sha256: give all 64 hexadecimal digits, or the first 8 or more");
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(digits) => write!(f, "md5 {digits}"),
            Self::Sha256(digits) if digits.len() < 64 => write!(f, "sha256 {digits}…"),
            Self::Sha256(digits) => write!(f, "sha256 {digits}"),
        }
    }
}

fn digest<D: Digest + io::Write>(path: &Path) -> io::Result<String> {
    let mut sum = D::new();
    io::copy(&mut File::open(path)?, &mut sum)?;
    Ok(HEXLOWER.encode(&sum.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_table() {
        let environment = |name: &str| match name {
            "FINETUNE_FETCH_WEIGHTS_URL" => Some("http://environment/w.pth".to_owned()),
            "FINETUNE_FETCH_WEIGHTS_SHA256" => Some("ABCDEF0123".to_owned()),
            _ => None,
        };
        let resolve = |target, url| Source::resolve(target, url, None, environment).unwrap();
        let by_flag = resolve(Target::Weights, Some("http://flag/w".into()));
        assert_eq!(by_flag.url, "http://flag/w");
        assert_eq!(by_flag.checksum, Checksum::Sha256("abcdef0123".into()));
        let by_environment = resolve(Target::Weights, None);
        assert_eq!(by_environment.url, "http://environment/w.pth");
        let by_table = resolve(Target::Caltech101, None);
        assert_eq!(by_table.url, Target::Caltech101.default_source().url);
    }

    #[test]
    fn the_weights_are_named_after_their_checksum() {
        let Source {
            url,
            checksum: Checksum::Sha256(sum),
            file_name,
            ..
        } = Target::Weights.default_source()
        else {
            panic!("the weights have a sha256")
        };
        assert_eq!(file_name, format!("resnet18-{}.pth", &sum[..8]));
        assert!(url.ends_with(file_name));
    }

    #[test]
    fn a_checksum_that_is_none_is_refused_by_name() {
        for wrong in ["1234567", "f37072fx", &"0".repeat(65)] {
            let error =
                Source::resolve(Target::Weights, None, Some(wrong.into()), |_| None).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
