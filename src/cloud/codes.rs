//! The codes of answers as labels of a metric. Each new value is a new series, and a gateway may invent one
//! for each answer.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The documents of the platform name some dozens for these requests.
const MOST: usize = 64;
const LONGEST: usize = 80;
const OTHER: &str = "other";

/// The codes that have occurred.
#[derive(Debug, Default)]
pub(crate) struct Codes(Mutex<HashSet<String>>);

impl Codes {
    /// The code itself, or one name for all codes beyond the limit.
    pub(crate) fn label(&self, code: &str) -> String {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = met.contains(code);
        if !known && (met.len() >= MOST || code.len() > LONGEST) {
            return OTHER.to_owned();
        }
        if !known {
            met.insert(code.to_owned());
        }
        code.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_without_end_become_so_many_labels_and_no_more() {
        let codes = Codes::default();
        let labels: HashSet<String> = (0..10_000).map(|n| codes.label(&format!("Invented.{n}"))).collect();
        assert_eq!(labels.len(), MOST + 1);
        assert_eq!(codes.label("Invented.1"), "Invented.1", "what was met goes on");
        assert_eq!(codes.label(&"x".repeat(LONGEST + 1)), OTHER);
    }
}
