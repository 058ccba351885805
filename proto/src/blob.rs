//! Cuts a blob into the chunks of an `Upload`. The receiving end is the coordinator's.

use sha2::{Digest, Sha256};

use crate::{CHUNK_BYTES, v1};

/// The chunks of one upload: a header that carries length and sha256 of `bytes`, then the data.
pub fn chunks(
    worker_id: u64,
    generation: u64,
    epoch: u32,
    kind: v1::BlobKind,
    bytes: Vec<u8>,
) -> impl Iterator<Item = v1::Chunk> + Send + 'static {
    let header = v1::BlobHeader {
        worker_id,
        generation,
        epoch,
        kind: kind.into(),
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(&bytes).to_vec(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_carry_every_byte_in_order() {
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 2 + 7).map(|i| (i % 251) as u8).collect();
        let mut joined = Vec::new();
        let mut header = None;
        for chunk in chunks(3, 1, 2, v1::BlobKind::BestState, bytes.clone()) {
            match chunk.part {
                Some(v1::chunk::Part::Header(found)) => header = Some(found),
                Some(v1::chunk::Part::Data(data)) => joined.extend(data),
                None => panic!("an empty chunk"),
            }
        }
        assert_eq!(joined, bytes);
        let header = header.unwrap();
        assert_eq!(header.bytes, bytes.len() as u64);
        assert_eq!(header.sha256, Sha256::digest(&bytes).to_vec());
    }
}
