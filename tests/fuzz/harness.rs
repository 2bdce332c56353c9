//! Seeds, iterations, the corpus and its mutations.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::test_runner::{Config, RngSeed};

/// No mutated input is longer: what size does is measured apart.
const LONGEST: usize = 64 * 1024;

/// What readers of numbers and of text stumble over.
const ODD_BYTES: &[u8] =
    b"\0\x01\t\n\r \"'#%&+,-./0189:;<=>?@AEeU[\\]_afnu{}\x7f\x80\xbf\xc0\xc3\xed\xef\xf4\xff";

/// What is written in place of a number.
const ODD_NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1.0",
    "1e5",
    "1e999999",
    "00",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "null",
    "\"1\"",
];

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, and must be a whole number")))
}

/// How many inputs a test draws.
pub(crate) fn iterations(usual: u64) -> u64 {
    number_from("FUZZ_ITERATIONS").unwrap_or(usual)
}

pub(crate) fn seed() -> u64 {
    number_from("FUZZ_SEED").unwrap_or(1)
}

/// The generator of one iteration, so that it can be had again without those before it.
pub(crate) fn rng(iteration: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ iteration)
}

/// Structured inputs: as many as asked for, from the seed.
pub(crate) fn cases(usual: u32) -> Config {
    let cases = u32::try_from(iterations(usual.into())).unwrap_or(u32::MAX);
    Config { cases, rng_seed: RngSeed::Fixed(seed()), failure_persistence: None, ..Config::default() }
}

/// The files of a folder of the corpus.
pub(crate) fn corpus(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(folder);
    let mut files: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Tries every file of a folder as it is, and then `usual` mutations of them, or as many as asked for.
pub(crate) fn fuzz(folder: &str, tokens: &[&str], usual: u64, mut check: impl FnMut(&[u8])) {
    let files = corpus(folder);
    for (path, input) in &files {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            eprintln!("the input is {}", path.display());
            resume_unwind(panic);
        }
    }
    let (began, iterations) = (Instant::now(), iterations(usual));
    for iteration in 0..iterations {
        let mut rng = rng(iteration);
        let input = mutated(&files, tokens, &mut rng);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            keep(folder, iteration, &input, panic);
        }
    }
    figures(folder, iterations, began);
}

fn keep(folder: &str, iteration: u64, input: &[u8], panic: Box<dyn Any + Send>) -> ! {
    let path = std::env::temp_dir().join(format!("vodrelay-fuzz-{folder}-{}-{iteration}", seed()));
    fs::write(&path, input).unwrap();
    let shown = input[..input.len().min(2_000)].escape_ascii();
    eprintln!("FUZZ_SEED={}, iteration {iteration}, kept as {}:\n{shown}", seed(), path.display());
    resume_unwind(panic);
}

pub(crate) fn figures(what: &str, iterations: u64, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{what}: {iterations} inputs in {seconds:.1} s, {:.0} a second", iterations as f64 / seconds);
}

fn mutated(files: &[(PathBuf, Vec<u8>)], tokens: &[&str], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = files[rng.usize(..files.len())].1.clone();
    // Mostly one change: what is left of the sense leads deeper in.
    for _ in 0..[1, 1, 1, 2, 5][rng.usize(..5)] {
        mutate(&mut input, files, tokens, rng);
        input.truncate(LONGEST);
    }
    input
}

fn mutate(input: &mut Vec<u8>, files: &[(PathBuf, Vec<u8>)], tokens: &[&str], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=input.len());
    let part = at..(at + rng.usize(..=32)).min(input.len());
    match rng.u8(..14) {
        // A bit, a byte.
        0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        1 if at < input.len() => input[at] = ODD_BYTES[rng.usize(..ODD_BYTES.len())],
        2 => input.insert(at, ODD_BYTES[rng.usize(..ODD_BYTES.len())]),
        3 => input.truncate(at),
        4 => drop(input.drain(part)),
        // A part twice, or many times.
        5 | 6 => {
            let copied = input[part].repeat(if rng.bool() { 1 } else { 1 << rng.u8(..10) });
            input.splice(at..at, copied);
        }
        // A part of another file, and all that follows it there.
        7 => {
            let other = &files[rng.usize(..files.len())].1;
            let from = rng.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        8 => {
            let other = &files[rng.usize(..files.len())].1;
            let from = rng.usize(..=other.len());
            let to = (from + rng.usize(..=64)).min(other.len());
            input.splice(part, other[from..to].iter().copied());
        }
        // Another number, which breaks no syntax.
        9..12 => {
            let from = (0..input.len()).cycle().skip(at).take(input.len());
            let Some(from) = from.into_iter().find(|from| input[*from].is_ascii_digit()) else { return };
            let digits = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            input.splice(from..from + digits, ODD_NUMBERS[rng.usize(..ODD_NUMBERS.len())].bytes());
        }
        _ if tokens.is_empty() => input.push(rng.u8(..)),
        12 => drop(input.splice(at..at, tokens[rng.usize(..tokens.len())].bytes())),
        _ => drop(input.splice(part, tokens[rng.usize(..tokens.len())].bytes())),
    }
}
