//! Values of a GGUF file's metadata.

use std::io::Read;

use super::cursor::{Broken, Cursor};

/// A value; integers and floats of every width are one kind each.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of the eight integer types.
    Integer(i64),
    /// float32 as its shortest decimal (1e-5, not 9.9999997e-6), or float64.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Integers.
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Truths.
    Bools(Vec<bool>),
    /// Texts.
    Texts(Vec<String>),
}

const ARRAY: u32 = 9;

impl Value {
    /// Reads a value whose type is the next number.
    pub(super) fn read<R: Read>(cursor: &mut Cursor<R>, key: &str) -> Broken<Self> {
        let code = cursor.u32(key)?;
        if code != ARRAY {
            return Self::scalar(cursor, code, key);
        }
        let code = cursor.u32(key)?;
        let width = match code {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            ARRAY => return Err(format!("{key}: arrays of arrays are not supported")),
            other => return Err(format!("{key}: value type {other} is unknown")),
        };
        let count = cursor.count(width, key)?;
        // The capacity is bounded by the file: `count` has compared it with the bytes that are left.
        Ok(match code {
            6 | 12 => Self::Floats(collect(count, || match Self::scalar(cursor, code, key)? {
                Self::Float(value) => Ok(value),
                _ => Err(format!("{key}: not a float")),
            })?),
            7 => Self::Bools(collect(count, || boolean(cursor, key))?),
            8 => Self::Texts(collect(count, || cursor.text(key))?),
            _ => Self::Integers(collect(count, || integer(cursor, code, key))?),
        })
    }

    fn scalar<R: Read>(cursor: &mut Cursor<R>, code: u32, key: &str) -> Broken<Self> {
        Ok(match code {
            6 => Self::Float(shortest(f32::from_le_bytes(cursor.bytes(key)?))),
            7 => Self::Bool(boolean(cursor, key)?),
            8 => Self::Text(cursor.text(key)?),
            12 => Self::Float(f64::from_le_bytes(cursor.bytes(key)?)),
            0..=5 | 10 | 11 => Self::Integer(integer(cursor, code, key)?),
            other => return Err(format!("{key}: value type {other} is unknown")),
        })
    }
}

fn collect<T>(count: usize, mut next: impl FnMut() -> Broken<T>) -> Broken<Vec<T>> {
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(next()?);
    }
    Ok(values)
}

fn boolean<R: Read>(cursor: &mut Cursor<R>, key: &str) -> Broken<bool> {
    match cursor.bytes::<1>(key)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(format!("{key}: {other} is neither 0 nor 1")),
    }
}

fn integer<R: Read>(cursor: &mut Cursor<R>, code: u32, key: &str) -> Broken<i64> {
    Ok(match code {
        0 => i64::from(u8::from_le_bytes(cursor.bytes(key)?)),
        1 => i64::from(i8::from_le_bytes(cursor.bytes(key)?)),
        2 => i64::from(u16::from_le_bytes(cursor.bytes(key)?)),
        3 => i64::from(i16::from_le_bytes(cursor.bytes(key)?)),
        4 => i64::from(cursor.u32(key)?),
        5 => i64::from(i32::from_le_bytes(cursor.bytes(key)?)),
        10 => {
            let value = cursor.u64(key)?;
            i64::try_from(value).map_err(|_| format!("{key}: {value} is too large"))?
        }
        _ => i64::from_le_bytes(cursor.bytes(key)?),
    })
}

/// The decimal that a person wrote before it was rounded to float32; it rounds to the same float32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
