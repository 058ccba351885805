//! Files that downloads leave in place of weights, told by their first bytes.

/// What a file that holds no weights is, where that is known.
pub(super) fn kind(bytes: &[u8]) -> Option<&'static str> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).to_lowercase();
    let start = start.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
    Some(match bytes {
        [] => "an empty file:",
        [0x1F, 0x8B, ..] => "compressed with gzip: unpack it, or",
        _ if start.starts_with("version https://git-lfs") => {
            "a pointer of git-lfs, not the file itself: run `git lfs pull`, or"
        }
        _ if start.starts_with("<!doctype")
            || start.starts_with("<html")
            || start.starts_with("<?xml") =>
        {
            "a web page, not the file behind it:"
        }
        _ => return None,
    })
}
