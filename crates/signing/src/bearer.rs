//! Bearer tokens: whose token is this?
//!
//! The table holds digests under a key that the process draws for itself, and compares in constant time. So neither the time of an
//! answer nor a look at the table tells anything of a token.

use crate::digests::{hmac_sha256, hmac_sha256_is};
use crate::upload::NoRandom;

const KEY_BYTES: usize = 32;

/// Tokens, by their digests. Each has the number of its entry, from 0.
#[derive(Clone)]
pub struct TokenTable {
    key: [u8; KEY_BYTES],
    digests: Vec<[u8; 32]>,
}

impl std::fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenTable({} tokens)", self.digests.len())
    }
}

impl TokenTable {
    /// An empty table with a key of its own.
    ///
    /// # Errors
    ///
    /// When the operating system has no random numbers.
    pub fn new() -> Result<Self, NoRandom> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(NoRandom::from_source)?;
        Ok(Self { key, digests: Vec::new() })
    }

    /// Adds a token, and returns its number.
    pub fn add(&mut self, token: &str) -> usize {
        self.digests.push(hmac_sha256(&self.key, token.as_bytes()));
        self.digests.len() - 1
    }

    /// The number of a token. It takes the same time for each token of a length, whether it is in the table or not.
    pub fn find(&self, token: &str) -> Option<usize> {
        let mut found = None;
        for (number, digest) in self.digests.iter().enumerate() {
            if hmac_sha256_is(&self.key, token.as_bytes(), digest) {
                found = Some(number);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_whole_or_not_at_all() {
        let mut table = TokenTable::new().unwrap();
        assert_eq!(table.find(""), None);
        assert_eq!((table.add("first-token"), table.add("second-token")), (0, 1));
        assert_eq!((table.find("first-token"), table.find("second-token")), (Some(0), Some(1)));
        for wrong in ["", "first-toke", "first-token ", "First-token", "first-tokenn"] {
            assert_eq!(table.find(wrong), None, "{wrong:?}");
        }
        assert_eq!(format!("{table:?}"), "TokenTable(2 tokens)");
    }
}
