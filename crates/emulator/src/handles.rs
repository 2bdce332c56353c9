//! The form of handles. Both forms were seen in public. No client may rely on either.

use std::sync::Arc;

/// The form of new handles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleForm {
    /// Eighteen or nineteen digits, like `8078360634045903972` in the vendor's tutorial.
    #[default]
    Numeric,
    /// Words, three underscores, an epoch in milliseconds, more words: the form seen in 2026.
    Underscored,
}

/// Makes handles that are never equal within one queue.
#[derive(Debug)]
pub(super) struct HandleMint {
    rng: fastrand::Rng,
    made: u64,
}

impl HandleMint {
    pub(super) fn new(seed: u64, sub_app_id: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed ^ sub_app_id.wrapping_mul(0x9E37_79B9_7F4A_7C15)), made: 0 }
    }

    pub(super) fn next(&mut self, now_ms: u64, form: HandleForm) -> Arc<str> {
        self.made += 1;
        match form {
            // The count in the last digits keeps handles distinct, whatever the random part is.
            HandleForm::Numeric => {
                let random = self.rng.u64(8_000_000_000..92_233_720_360);
                format!("{}{:09}", random / 10, (self.made * 618_033_989) % 1_000_000_000)
            }
            HandleForm::Underscored => {
                let (head, middle, tail) = (self.rng.u32(..), self.rng.u16(..), self.rng.u64(..));
                format!("{head:08x}_{}___{middle:04x}_{}_{tail:016x}", self.made, 1_772_263_116_607 + now_ms)
            }
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_handles_are_decimal_fit_in_64_bits_and_differ() {
        let mut mint = HandleMint::new(1, 0);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let handle = mint.next(0, HandleForm::Numeric);
            let value: i64 = handle.parse().unwrap();
            assert!(value > 99_999_999_999_999_999, "{handle}");
            assert!(seen.insert(handle));
        }
    }

    #[test]
    fn underscored_handles_differ() {
        let mut mint = HandleMint::new(1, 0);
        assert_ne!(mint.next(5, HandleForm::Underscored), mint.next(5, HandleForm::Underscored));
    }
}
