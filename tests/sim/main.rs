//! Nothing lost, nothing late, nothing merged: the core under simulation, by the ten thousand seeds.

mod simulation;

use simulation::campaign;

/// Run by every `cargo test`; the example `simulate` runs as many as one likes.
const SEEDS: u64 = 20_000;

#[test]
fn no_seed_breaks_a_promise() {
    let (figures, failed) = campaign::seeds(0..SEEDS, None, 1, |_| {});
    println!("{}", figures.table());
    if let Some((seed, violation)) = failed.first() {
        panic!("seed {seed}: {violation}\nreplay: {}", campaign::replay(*seed));
    }
}
