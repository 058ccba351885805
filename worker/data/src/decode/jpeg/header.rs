//! What the marker segments of a JPEG say before its first scan ends: ITU-T T.81, annex B.

pub(super) const END_OF_IMAGE: u8 = 0xD9;
const HUFFMAN_TABLES: u8 = 0xC4;
const START_OF_SCAN: u8 = 0xDA;
const ADOBE: u8 = 0xEE;

/// The segments in turn: the code of a marker, and the parameters behind its length.
pub(super) struct Markers<'a> {
    rest: &'a [u8],
}

impl<'a> Markers<'a> {
    pub(super) fn of(jpeg: &'a [u8]) -> Self {
        Self {
            rest: jpeg.get(2..).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Markers<'a> {
    type Item = (u8, &'a [u8]);

    /// B.1.1: a marker is 0xFF and a code that is neither 0 (a stuffed byte of coded data) nor 0xFF
    /// (fill); all but the restart markers, TEM and SOI/EOI are followed by a length that counts
    /// itself.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.rest.iter().position(|&byte| byte == 0xFF)?;
            self.rest = &self.rest[start..];
            let code = self.rest.iter().position(|&byte| byte != 0xFF)?;
            let marker = self.rest[code];
            self.rest = &self.rest[code + 1..];
            match marker {
                END_OF_IMAGE => return Some((marker, &[])),
                0x00 | 0x01 | 0xD0..=0xD8 => {}
                _ => {
                    let (&length, _) = self.rest.split_first_chunk::<2>()?;
                    let length = usize::from(u16::from_be_bytes(length));
                    let segment = self.rest.get(..length)?;
                    self.rest = &self.rest[length..];
                    return Some((marker, segment.get(2..).unwrap_or_default()));
                }
            }
        }
    }
}

/// B.2.2.
pub(super) struct Frame {
    /// The last digit of its marker SOF0 to SOF15: the process.
    process: u8,
    bits: u8,
    pub(super) width: usize,
    pub(super) height: usize,
    /// The sampling factors of each component: horizontal, then vertical.
    sampling: Vec<(u8, u8)>,
}

/// The marker segments up to the first scan.
#[derive(Default)]
pub(super) struct Header {
    pub(super) frame: Option<Frame>,
    has_huffman_tables: bool,
    /// Whether Adobe's marker is there.
    pub(super) adobe: bool,
    /// Components in the first scan.
    in_first_scan: usize,
}

impl Header {
    pub(super) fn read(jpeg: &[u8]) -> Self {
        let mut header = Self::default();
        for (marker, parameters) in Markers::of(jpeg) {
            match marker {
                HUFFMAN_TABLES => header.has_huffman_tables = true,
                // The others of this range are no frames: DHT, JPG, DAC.
                0xC0..=0xCF if !matches!(marker, 0xC8 | 0xCC) => {
                    header.frame = header.frame.or_else(|| Frame::read(marker, parameters));
                }
                ADOBE if parameters.starts_with(b"Adobe") => header.adobe = true,
                START_OF_SCAN => {
                    header.in_first_scan = parameters.first().copied().unwrap_or(0).into();
                    break;
                }
                _ => {}
            }
        }
        header
    }

    /// Whether zune-jpeg is proven right on files of this kind.
    pub(super) fn is_plain(&self) -> bool {
        let Some(frame) = &self.frame else {
            return false;
        };
        // Baseline and extended sequential, and progressive, with Huffman codes.
        let interleaved = self.in_first_scan == frame.sampling.len();
        let sound = match frame.process {
            0 | 1 => interleaved,
            2 => true,
            _ => false,
        };
        let sampled = match &frame.sampling[..] {
            [_] => true,
            [first, others @ ..] if others.len() == 2 => {
                matches!(first, (1 | 2, 1 | 2)) && others.iter().all(|it| *it == (1, 1))
            }
            _ => false,
        };
        // It interpolates the chroma of narrow images otherwise than libjpeg does.
        let wide = frame.width.min(frame.height) >= 16;
        sound && sampled && wide && frame.bits == 8 && self.has_huffman_tables
    }
}

impl Frame {
    fn read(marker: u8, parameters: &[u8]) -> Option<Self> {
        let (&[bits, y1, y2, x1, x2, components], rest) = parameters.split_first_chunk::<6>()?;
        let component = |of: &[u8; 3]| (of[1] >> 4, of[1] & 15);
        let (listed, _) = rest.as_chunks::<3>();
        let sampling: Vec<(u8, u8)> = listed.iter().map(component).collect();
        (sampling.len() == usize::from(components)).then(|| Self {
            process: marker & 15,
            bits,
            width: u16::from_be_bytes([x1, x2]).into(),
            height: u16::from_be_bytes([y1, y2]).into(),
            sampling,
        })
    }
}
