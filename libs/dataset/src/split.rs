//! Which side a record is on: a function of its id alone, so that it stays there in every later version of a dataset.

use std::{fmt, str::FromStr};

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, RecordId};

/// A side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Trains.
    Train,
    /// Watched during training.
    Validation,
    /// Held out for evaluation.
    Test,
}

impl Split {
    /// All sides, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// Its name in paths and annotations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|split| split.as_str() == name)
            .ok_or_else(|| Error::Invalid(format!("{name:?} is not a split: use train, validation or test")))
    }
}

/// Shares of records beside training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios {
    validation: f64,
    test: f64,
}

impl Ratios {
    /// Checks that each share lies in 0 to 0.5.
    pub fn new(validation: f64, test: f64) -> Result<Self, Error> {
        for (name, ratio) in [("validation_ratio", validation), ("test_ratio", test)] {
            if !(0.0..=0.5).contains(&ratio) {
                return Err(Error::Invalid(format!("{name} is {ratio}: it must lie between 0 and 0.5")));
            }
        }
        if validation + test >= 1.0 {
            return Err(Error::Invalid("validation_ratio and test_ratio leave nothing to train on".into()));
        }
        Ok(Self { validation, test })
    }

    /// The side of a record. Test grows from one end and validation from the other, so that changing one leaves the other alone.
    #[must_use]
    pub fn side(&self, id: &RecordId) -> Split {
        // 53 bits: exactly what a double holds, so that the comparison is exact.
        let place = (xxh3_64(&id.0) >> 11) as f64 / (1u64 << 53) as f64;
        if place < self.test {
            Split::Test
        } else if place >= 1.0 - self.validation {
            Split::Validation
        } else {
            Split::Train
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_out_about_right_and_are_frozen() {
        let ratios = Ratios::new(0.05, 0.1).unwrap();
        let mut counts = [0; 3];
        for i in 0..10_000u32 {
            counts[ratios.side(&RecordId::of(&i.to_le_bytes())) as usize] += 1;
        }
        assert_eq!(counts.iter().sum::<i32>(), 10_000);
        // Exact figures: another hash would move records between sides and let held-out text into training.
        assert_eq!(counts, [8572, 476, 952]);
    }

    #[test]
    fn a_larger_share_keeps_what_was_held_out() {
        let (small, large) = (Ratios::new(0.05, 0.05).unwrap(), Ratios::new(0.2, 0.2).unwrap());
        for i in 0..2_000u32 {
            let id = RecordId::of(&i.to_le_bytes());
            if small.side(&id) != Split::Train {
                assert_eq!(small.side(&id), large.side(&id));
            }
        }
    }

    #[test]
    fn a_share_out_of_range_is_named() {
        assert!(Ratios::new(0.6, 0.0).unwrap_err().to_string().contains("validation_ratio"));
        assert!(Ratios::new(0.0, f64::NAN).unwrap_err().to_string().contains("test_ratio"));
        assert!(Ratios::new(0.5, 0.5).is_err());
        assert_eq!(Ratios::new(0.0, 0.0).unwrap().side(&RecordId::of(b"x")), Split::Train);
    }
}
