//! Splits a blob into the chunks of an `Upload` or a `Download`, and reassembles it.

use sha2::{Digest, Sha256};

use proto::{CHUNK_BYTES, v1};

/// The chunks of one blob: a header, which is `label` with the length and the sha256 of `bytes`,
/// then the data.
pub fn chunks(
    label: v1::BlobHeader,
    bytes: Vec<u8>,
) -> impl Iterator<Item = v1::Chunk> + Send + 'static {
    let header = v1::BlobHeader {
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(&bytes).to_vec(),
        ..label
    };
    let mut offset = 0;
    let data = std::iter::from_fn(move || {
        let end = bytes.len().min(offset + CHUNK_BYTES);
        let piece = bytes.get(offset..end)?;
        offset = end;
        (!piece.is_empty()).then(|| v1::chunk::Part::Data(piece.to_vec()))
    });
    std::iter::once(v1::chunk::Part::Header(header))
        .chain(data)
        .map(|part| v1::Chunk { part: Some(part) })
}

/// Why a received blob is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The first chunk is not a header.
    #[error("the first chunk is not a header")]
    NoHeader,
    /// It is larger than is accepted.
    #[error("a blob of {bytes} bytes; at most {limit} are accepted")]
    TooLarge {
        /// What the header announces.
        bytes: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// A later chunk has no data, or is a second header.
    #[error("a chunk after the header has no data")]
    NoData,
    /// Too few or too many bytes.
    #[error("{actual} bytes arrived; the header announced {expected}")]
    Length {
        /// Bytes that arrived.
        actual: u64,
        /// Bytes that the header announced.
        expected: u64,
    },
    /// The bytes have another checksum.
    #[error("the sha256 of the bytes differs from the one in the header")]
    Checksum,
}

/// The largest blob that is accepted, in bytes.
const MAX_BLOB_BYTES: u64 = 1 << 30;

/// A blob that is being received.
#[derive(Debug)]
pub struct Assembly {
    header: v1::BlobHeader,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Begins with the first chunk.
    ///
    /// # Errors
    /// It is not a header, or announces more than is accepted.
    pub fn begin(first: Option<v1::Chunk>) -> Result<Self, BlobError> {
        let Some(v1::chunk::Part::Header(header)) = first.and_then(|chunk| chunk.part) else {
            return Err(BlobError::NoHeader);
        };
        if header.bytes > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge {
                bytes: header.bytes,
                limit: MAX_BLOB_BYTES,
            });
        }
        Ok(Self {
            header,
            bytes: Vec::new(),
        })
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &v1::BlobHeader {
        &self.header
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// It holds no data, or more than was announced.
    pub fn add(&mut self, chunk: v1::Chunk) -> Result<(), BlobError> {
        let Some(v1::chunk::Part::Data(data)) = chunk.part else {
            return Err(BlobError::NoData);
        };
        self.bytes.extend_from_slice(&data);
        if self.bytes.len() as u64 > self.header.bytes {
            return Err(self.wrong_length());
        }
        Ok(())
    }

    /// Whether all bytes have arrived.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.header.bytes
    }

    /// The complete blob.
    ///
    /// # Errors
    /// The length or the checksum differs from the header's.
    pub fn finish(self) -> Result<(v1::BlobHeader, Vec<u8>), BlobError> {
        if self.bytes.len() as u64 != self.header.bytes {
            return Err(self.wrong_length());
        }
        if Sha256::digest(&self.bytes).as_slice() != self.header.sha256 {
            return Err(BlobError::Checksum);
        }
        Ok((self.header, self.bytes))
    }

    fn wrong_length(&self) -> BlobError {
        BlobError::Length {
            actual: self.bytes.len() as u64,
            expected: self.header.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(chunks: impl IntoIterator<Item = v1::Chunk>) -> Result<Vec<u8>, BlobError> {
        let mut chunks = chunks.into_iter();
        let mut assembly = Assembly::begin(chunks.next())?;
        for chunk in chunks {
            assembly.add(chunk)?;
        }
        assembly.finish().map(|(_, bytes)| bytes)
    }

    #[test]
    fn a_blob_arrives_complete_or_not_at_all() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 2 + 7).map(|i| (i % 251) as u8).collect();
        let sent: Vec<_> = chunks(v1::BlobHeader::default(), bytes.clone()).collect();
        assert_eq!(sent.len(), 4);
        assert_eq!(receive(sent.clone()), Ok(bytes));
        assert_eq!(receive(sent[1..].to_vec()), Err(BlobError::NoHeader));
        let short = receive(sent[..3].to_vec());
        assert!(matches!(short, Err(BlobError::Length { .. })));
        let swapped = [&sent[..1], &sent[2..3], &sent[1..2], &sent[3..]].concat();
        assert_eq!(receive(swapped), Err(BlobError::Checksum));
        let twice = [&sent[..], &sent[1..2]].concat();
        assert!(matches!(receive(twice), Err(BlobError::Length { .. })));
        let second_header = [&sent[..1], &sent[..1]].concat();
        assert_eq!(receive(second_header), Err(BlobError::NoData));
    }
}
