//! Bytes as hexadecimal text, as checksums are written.

/// Two lower-case digits for each byte.
pub(super) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 that [`encode`] wrote as `text`; nothing else is taken, so that a changed
/// character never reads as the same sum.
pub(super) fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    for (byte, at) in sum.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    (encode(&sum) == text).then_some(sum)
}
