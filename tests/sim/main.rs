//! Nothing lost, nothing late, nothing merged: the core under simulation, by the ten thousand seeds.

mod differential;

use vodrelay_testkit::simulation::campaign;
use vodrelay_testkit::simulation::plan::{Fault, Plan, Theme};
use vodrelay_testkit::simulation::sabotage::Sabotage;

/// Run by every `cargo test` unless `SIM_SEEDS` says another number; the program `simulate` runs as many as one likes.
const SEEDS: u64 = 20_000;

/// With fewer seeds than this, some kind of fault may never have struck.
const SEEDS_FOR_EVERY_FAULT: u64 = 5_000;

/// Every deliberate bug must be seen within so many seeds.
const SEEDS_FOR_A_BUG: u64 = 2_000;

#[test]
fn no_seed_breaks_a_promise() {
    let seeds = std::env::var("SIM_SEEDS").map_or(SEEDS, |text| text.parse().expect("SIM_SEEDS is a number"));
    let (figures, failed) = campaign::seeds(0..seeds, None, 1, |_| {});
    println!("{}", figures.table());
    if let Some((seed, violation)) = failed.first() {
        panic!("seed {seed}: {violation}\nreplay: {}", campaign::replay(*seed));
    }
    let never: Vec<_> = Fault::ALL.iter().zip(&figures.faults).filter(|(_, struck)| **struck == 0).collect();
    assert!(never.is_empty() || seeds < SEEDS_FOR_EVERY_FAULT, "faults that never struck: {never:?}");
    assert!(figures.repeats > 0 && figures.crashes > 0);
}

#[test]
fn every_deliberate_bug_is_seen_by_the_checker_that_it_is_meant_for() {
    let mut unseen = Vec::new();
    for (bug, expected) in Sabotage::ALL {
        let seen = campaign::seen(bug, expected, SEEDS_FOR_A_BUG);
        println!("{}", campaign::row(bug, &seen));
        if seen.expected.is_none() {
            unseen.push(bug);
        }
    }
    assert!(unseen.is_empty(), "not seen: {unseen:?}");
}

#[test]
fn what_seeds_once_found_stays_mended() {
    for (seed, mistake, guarantee) in Sabotage::FOUND {
        let mended = campaign::seed(seed, None, false);
        assert!(mended.violation.is_none(), "seed {seed}: {:?}", mended.violation);
        let broken = campaign::seed(seed, Some(mistake), false).violation;
        assert_eq!(broken.map(|violation| violation.guarantee), Some(guarantee), "seed {seed}, {mistake:?}");
    }
}

/// A handle must leave its queue at once when a new event under it is not safe. When it left only when it was its turn, it
/// could be queued twice in one step, and was merged with itself when its request was refused.
#[test]
fn seed_11661_a_handle_that_is_taken_back_is_not_queued_twice() {
    let outcome = campaign::seed(11_661, None, false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..50 {
        let digests = [campaign::seed(seed, None, false).digest, campaign::seed(seed, None, false).digest];
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

#[test]
fn who_sets_the_wall_clock_changes_nothing() {
    for seed in 0..500 {
        let mut plan = Plan::new(seed);
        plan.set(Fault::WallJump, 0);
        let calm = campaign::run(&plan, None, false);
        plan.wall_offset_ms = 600_000 * if seed % 2 == 0 { 1 } else { -1 };
        let set = campaign::run(&plan, None, false);
        assert_eq!(calm.digest, set.digest, "seed {seed}");
    }
}

#[test]
fn every_theme_has_its_share_of_the_seeds() {
    let themes: Vec<Theme> = (0..1_000).map(|seed| Plan::new(seed).theme).collect();
    for theme in [Theme::Swarm, Theme::BadNeighbours, Theme::BrokerAway, Theme::Unbound, Theme::Calm] {
        assert!(themes.iter().filter(|drawn| **drawn == theme).count() >= 20, "{theme:?}");
    }
}
