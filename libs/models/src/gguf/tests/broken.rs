//! Files that lie about themselves: errors that name the place, no panics, no memory for what the file cannot hold.

use super::*;
use crate::gguf::{header, tests::writer::texts};

fn problem(bytes: &[u8]) -> String {
    header::read(bytes, bytes.len() as u64).unwrap_err().join("; ")
}

/// Position of a text in the file.
fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let mut writer = tiny();
    writer.entry("tokenizer.ggml.tokens", texts(&["a", "b", "", "dd"]));
    let bytes = writer.bytes();
    for length in 0..bytes.len() - 32 {
        let error = problem(&bytes[..length]);
        assert!(!error.is_empty());
    }
    assert!(
        problem(&bytes[..bytes.len() - 64])
            .contains("2 tensor(s), tensor blk.0.ffn_down.weight first, reach beyond the file's end")
    );
}

#[test]
fn any_flipped_byte_of_the_header_is_an_error_or_another_header() {
    let mut writer = tiny();
    writer.entry("tokenizer.ggml.tokens", texts(&["a", "b", "", "dd"]));
    let bytes = writer.bytes();
    let end = find(&bytes, "output_norm.weight") + 64;
    for at in 0..end {
        for flip in [0x01, 0x80, 0xff] {
            let mut broken = bytes.clone();
            broken[at] ^= flip;
            // What is left of a header must still be safe to read from.
            let file = file(&broken);
            if let Ok(gguf) = open(file.path()) {
                let _ = gguf.config();
                let _ = gguf.tensors();
            }
        }
    }
}

#[test]
fn declared_sizes_are_compared_with_the_file() {
    let bytes = tiny().bytes();
    let put = |at: usize, value: u64| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        problem(&bytes)
    };
    assert!(put(8, u64::MAX).contains("the number of tensors: 18446744073709551615 declared"));
    assert!(put(16, 1 << 40).contains("the number of metadata keys"));
    assert!(put(24, 1 << 62).contains("metadata key 0"));
    let embedding = find(&bytes, "token_embd.weight") + "token_embd.weight".len() + 4;
    assert!(put(embedding, 1 << 61).contains("tensor token_embd.weight: "));
    assert!(put(embedding, 0).contains("tensor token_embd.weight: the shape [0, 6] is empty or too large"));
    assert!(put(embedding + 20, u64::MAX - 31).contains("tensor token_embd.weight: "));
    assert!(put(embedding + 20, 1).contains("the offset 1 is not a multiple of the alignment 32"));
}

#[test]
fn what_is_no_gguf_is_said() {
    assert!(problem(b"PK\x03\x04 and so on").contains("does not begin with the letters GGUF"));
    let mut writer = tiny();
    writer.version = 1;
    assert!(problem(&writer.bytes()).contains("version 1 of GGUF; versions 2 and 3 are read"));
    writer.version = 3u32.swap_bytes();
    assert!(problem(&writer.bytes()).contains("big-endian"));
    writer.version = 2;
    assert!(open(file(&writer.bytes()).path()).is_ok());
}

#[test]
fn all_wrong_tensors_are_listed() {
    let mut writer = tiny();
    writer.tensors[0].code = 13;
    writer.tensors[2].code = 8;
    writer.tensors[3].code = 99;
    writer.counting("blk.0.attn_v.weight", &[4, 8]);
    let error = problem(&writer.bytes());
    assert!(error.contains("tensor token_embd.weight: type Q5_K is not supported"), "{error}");
    assert!(error.contains("tensor blk.0.attn_q.weight: rows of 8 values are not whole Q8_0 blocks of 32"), "{error}");
    assert!(error.contains("tensor blk.0.attn_k.weight: type number 99 is not supported"), "{error}");
    assert!(error.contains("tensor blk.0.attn_v.weight appears twice"), "{error}");
}

#[test]
fn odd_metadata_is_an_error() {
    for (key, value, expected) in [
        ("general.alignment", integer(24), "general.alignment: Integer(24) is not a power of two"),
        ("a", (13, vec![]), "a: value type 13 is unknown"),
        ("a", (7, vec![2]), "a: 2 is neither 0 nor 1"),
        ("a", (9, [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat()), "a: arrays of arrays"),
        (
            "a",
            (9, [0u32.to_le_bytes().as_slice(), &u64::MAX.to_le_bytes()].concat()),
            "a: 18446744073709551615 declared",
        ),
        ("a", (10, u64::MAX.to_le_bytes().to_vec()), "a: 18446744073709551615 is too large"),
        ("a", (8, [2u64.to_le_bytes().as_slice(), b"\xff\xfe"].concat()), "a: not UTF-8"),
    ] {
        let mut writer = tiny();
        writer.entry(key, value);
        let error = problem(&writer.bytes());
        assert!(error.contains(expected), "{error}");
    }
    let mut writer = tiny();
    writer.entries.push(("general.architecture".to_owned(), text("llama")));
    assert!(problem(&writer.bytes()).contains("metadata key \"general.architecture\" appears twice"));
}
