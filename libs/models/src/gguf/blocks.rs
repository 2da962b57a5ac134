//! How tensors lie in a GGUF file, and back to float32: the blocks of llama.cpp's ggml-quants.c, bit for bit.
//!
//! A block of `values()` numbers takes `bytes()` bytes. Scales are float16; q are the small integers.

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 values of 8 bits: d q.
    Q8_0,
    /// 32 values of 4 bits: d (q - 8).
    Q4_0,
    /// 32 values of 4 bits: d q + m.
    Q4_1,
    /// 256 values of 4 bits in 8 groups: d s q - m t, with s and t of 6 bits a group.
    Q4K,
    /// 256 values of 6 bits in 16 groups: d s (q - 32), with s of 8 bits a group.
    Q6K,
}

impl Storage {
    /// By the number in the file; otherwise the type's name, or the number.
    pub(super) fn from_code(code: u32) -> Result<Self, String> {
        Ok(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            6 => return Err("Q5_0".to_owned()),
            7 => return Err("Q5_1".to_owned()),
            9 => return Err("Q8_1".to_owned()),
            10 => return Err("Q2_K".to_owned()),
            11 => return Err("Q3_K".to_owned()),
            13 => return Err("Q5_K".to_owned()),
            15 => return Err("Q8_K".to_owned()),
            other => return Err(format!("number {other}")),
        })
    }

    /// As llama.cpp writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values of a block.
    pub(super) fn values(self) -> u64 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 2 + 32,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// The values of whole blocks.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let blocks = bytes.chunks_exact(self.bytes() as usize);
        let mut out = Vec::with_capacity(blocks.len() * self.values() as usize);
        for block in blocks {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(half(block, 0)),
                Self::Bf16 => out.push(f32::from_bits(u32::from(u16::from_le_bytes([block[0], block[1]])) << 16)),
                Self::Q8_0 => {
                    let d = half(block, 0);
                    out.extend(block[2..].iter().map(|q| d * f32::from(*q as i8)));
                }
                Self::Q4_0 => {
                    let d = half(block, 0);
                    out.extend(nibbles(&block[2..]).map(|q| d * (q - 8.0)));
                }
                Self::Q4_1 => {
                    let (d, m) = (half(block, 0), half(block, 2));
                    out.extend(nibbles(&block[4..]).map(|q| d * q + m));
                }
                Self::Q4K => q4_k(block, &mut out),
                Self::Q6K => q6_k(block, &mut out),
            }
        }
        out
    }
}

/// The low halves of all bytes, then the high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let low = bytes.iter().map(|byte| f32::from(byte & 15));
    low.chain(bytes.iter().map(|byte| f32::from(byte >> 4)))
}

fn q4_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, m) = (half(block, 0), half(block, 2));
    let (scales, quants) = block[4..].split_at(12);
    for group in 0..8 {
        // The first four groups have their 6 bits in one byte; the others are spread over the rest.
        let (scale, minimum) = match group {
            0..4 => (scales[group] & 63, scales[group + 4] & 63),
            _ => {
                (scales[group + 4] & 15 | scales[group - 4] >> 6 << 4, scales[group + 4] >> 4 | scales[group] >> 6 << 4)
            }
        };
        let (scale, minimum) = (d * f32::from(scale), m * f32::from(minimum));
        let bytes = &quants[group / 2 * 32..][..32];
        let shift = group % 2 * 4;
        out.extend(bytes.iter().map(|byte| scale * f32::from(byte >> shift & 15) - minimum));
    }
}

fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = (&rest[..16], half(rest, 16));
    for index in 0..256 {
        // Each half of 128 values: four runs of 32 that share 64 bytes of low bits and 32 of high bits.
        let (part, run, column) = (index / 128, index % 128 / 32, index % 32);
        let four = low[part * 64 + run % 2 * 32 + column] >> (run / 2 * 4) & 15;
        let two = high[part * 32 + column] >> (run * 2) & 3;
        let q = (four | two << 4) as i8 - 32;
        out.push(d * f32::from(scales[index / 16] as i8) * f32::from(q));
    }
}

/// The float16 at an offset.
fn half(bytes: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let (sign, exponent, fraction) = ((bits >> 15) << 31, bits >> 10 & 31, bits & 1023);
    match exponent {
        // Zero and subnormal numbers: units of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}
