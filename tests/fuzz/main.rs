//! Bad input from outside: the readers of what others write, under any bytes.
//!
//! Each target has structured inputs (proptest) and mutated ones: files of `corpus/` with bits flipped, parts cut, doubled,
//! repeated, exchanged, and tokens put in. Everything is drawn from one seed, so that a run can be repeated.
//!
//! ```text
//! cargo test --test fuzz                                          # a few thousand inputs for each target
//! FUZZ_ITERATIONS=1000000 cargo test --release --test fuzz        # as many as asked for
//! FUZZ_SEED=$RANDOM FUZZ_ITERATIONS=100000 cargo test --release --test fuzz -- --nocapture
//! ```
//!
//! A release build does not look for overflows of numbers unless `CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true` says so. The
//! emulator answers some hundred inputs a second, the readers some ten thousand: name a test to have it alone.
//!
//! `FUZZ_ITERATIONS` is the number of inputs of every test that draws them; `FUZZ_SEED` is 1 unless it is given. A test that
//! fails prints its seed, and leaves a mutated input in a file whose name it prints: such a file belongs into `corpus/`
//! once the mistake is mended, because every file there is tried as it is before anything is mutated.
//!
//! - [`answers`]: the client's reader of the cloud's answers.
//! - [`canonical`]: what makes two events one fingerprint, and what does not.
//! - [`configuration`]: the file and the environment.
//! - [`keeping`]: the journal, and what it shows.
//! - [`requests`]: the emulator, over real sockets.
//! - [`documents`]: the client's reader of the object storage's documents.
//! - [`rendering`]: what consumers get, routing keys included.
//! - [`uploads`]: the emulator's object storage and calls about media, and signatures.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod answers;
mod canonical;
mod configuration;
mod documents;
mod harness;
mod json;
mod keeping;
mod rendering;
mod requests;
mod uploads;
