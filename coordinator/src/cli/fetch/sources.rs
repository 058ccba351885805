//! The one table of what can be fetched: address, checksum, file name, place.
//!
//! Owns the defaults and their overrides (flag, then environment, then table). Must not touch the
//! network or the disk.

use super::checksum::Checksum;
use super::error::FetchError;

/// The folder inside the archive, and the name under which the data set is read.
pub(super) const CALTECH101_FOLDER: &str = "101_ObjectCategories";
/// The archive inside CaltechDATA's zip that holds the images.
pub(super) const CALTECH101_INNER_ARCHIVE: &str = "101_ObjectCategories.tar.gz";

/// Something that `coordinator fetch` can bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// The images of Caltech101 (137 MB, CC BY 4.0)
    Caltech101,
    /// ResNet18 pretrained on ImageNet, as torchvision publishes it (47 MB)
    Weights,
}

/// One row of the table.
struct Row {
    url: &'static str,
    checksum: fn() -> Checksum,
    file_name: &'static str,
    url_variable: &'static str,
    sha256_variable: &'static str,
}

impl Target {
    fn row(self) -> Row {
        match self {
            // CaltechDATA record mzrjq-6wc02, doi 10.22002/D1.20086; the record states the MD5.
            Self::Caltech101 => Row {
                url: "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                checksum: || Checksum::Md5("3138e1922a9193bfa496528edbbc45d0".into()),
                file_name: "caltech-101.zip",
                url_variable: "FINETUNE_FETCH_CALTECH101_URL",
                sha256_variable: "FINETUNE_FETCH_CALTECH101_SHA256",
            },
            // torchvision's ResNet18_Weights.IMAGENET1K_V1. By PyTorch's convention
            // (torch.hub.load_state_dict_from_url, check_hash) the file name carries the first
            // eight digits of the SHA-256.
            Self::Weights => Row {
                url: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
                checksum: || {
                    Checksum::Sha256(
                        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec".into(),
                    )
                },
                file_name: "resnet18-f37072fd.pth",
                url_variable: "FINETUNE_FETCH_WEIGHTS_URL",
                sha256_variable: "FINETUNE_FETCH_WEIGHTS_SHA256",
            },
        }
    }

    /// The folder under the data directory where the result lies.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Caltech101 => "caltech101",
            Self::Weights => "weights",
        }
    }
}

/// A row of the table after its overrides.
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
    ) -> Result<Self, FetchError> {
        let row = target.row();
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let url = url
            .or_else(|| set(row.url_variable))
            .unwrap_or_else(|| row.url.to_owned());
        let checksum = match sha256.or_else(|| set(row.sha256_variable)) {
            Some(value) => Checksum::parse_sha256(&value)?,
            None => (row.checksum)(),
        };
        Ok(Self {
            target,
            url,
            checksum,
            file_name: row.file_name,
        })
    }
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
        let by_flag = Source::resolve(
            Target::Weights,
            Some("http://flag/w".into()),
            None,
            environment,
        )
        .unwrap();
        assert_eq!(by_flag.url, "http://flag/w");
        assert_eq!(by_flag.checksum, Checksum::Sha256("abcdef0123".into()));
        let by_environment = Source::resolve(Target::Weights, None, None, environment).unwrap();
        assert_eq!(by_environment.url, "http://environment/w.pth");
        let by_table = Source::resolve(Target::Caltech101, None, None, environment).unwrap();
        assert_eq!(by_table.url, Target::Caltech101.row().url);
    }

    #[test]
    fn the_weights_are_named_after_their_checksum() {
        let row = Target::Weights.row();
        let digits = row
            .file_name
            .strip_prefix("resnet18-")
            .unwrap()
            .strip_suffix(".pth")
            .unwrap();
        let Checksum::Sha256(sum) = (row.checksum)() else {
            panic!("weights carry a sha256")
        };
        assert!(sum.starts_with(digits) && row.url.ends_with(row.file_name));
    }

    #[test]
    fn a_checksum_that_is_none_is_refused_by_name() {
        for wrong in ["1234567", "f37072fx", &"0".repeat(65)] {
            let error =
                Source::resolve(Target::Weights, None, Some(wrong.into()), |_| None).unwrap_err();
            assert!(matches!(&error, FetchError::InvalidChecksum { value } if value == wrong));
        }
    }
}
