//! Every storage against the digests that the Python package `gguf` 0.19 (llama.cpp's own) gives for the same bytes.

use super::super::Storage;

/// Storage, number of blocks, where the high byte of each float16 (or float) lies in a block, and the digest.
const CASES: &[(Storage, usize, &[usize], u64)] = &[
    (Storage::F32, 4096, &[3], 0x395c_5658_9f62_6bb4),
    (Storage::F16, 4096, &[1], 0x1bee_a923_0f56_8190),
    (Storage::Bf16, 4096, &[1], 0x6fc1_66c2_0104_440d),
    (Storage::Q8_0, 512, &[1], 0x1040_a4cf_8013_5d79),
    (Storage::Q4_0, 512, &[1], 0x4abd_510d_596b_25b0),
    (Storage::Q4_1, 512, &[1, 3], 0x8118_9bb8_48ac_c7b6),
    (Storage::Q4K, 512, &[1, 3], 0xc45c_2f47_0dbd_9673),
    (Storage::Q6K, 512, &[209], 0x31d3_676e_fdb1_7056),
];

#[test]
fn values_equal_llama_cpps_bit_for_bit() {
    for (storage, blocks, highs, expected) in CASES {
        let width = storage.bytes() as usize;
        let mut state = 1u64;
        let mut bytes: Vec<u8> = (0..blocks * width)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        // Without this exponent bit no scale is infinite.
        for block in bytes.chunks_exact_mut(width) {
            highs.iter().for_each(|high| block[*high] &= 0xbf);
        }
        let values = storage.decode(&bytes);
        assert_eq!(values.len(), blocks * storage.values() as usize);
        let digest = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(digest, *expected, "{}", storage.name());
    }
}

#[test]
fn halves_keep_their_extremes() {
    let cases = [
        (0x0001u16, 2f32.powi(-24)),
        (0x03ff, 1023.0 * 2f32.powi(-24)),
        (0x8000, -0.0),
        (0x7bff, 65504.0),
        (0xfc00, f32::NEG_INFINITY),
    ];
    for (bits, expected) in cases {
        assert_eq!(Storage::F16.decode(&bits.to_le_bytes())[0].to_bits(), expected.to_bits());
    }
    assert!(Storage::F16.decode(&0x7e00u16.to_le_bytes())[0].is_nan());
}
