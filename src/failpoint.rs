//! Points on an event's way at which a test build can kill itself, as by SIGKILL from outside.
//!
//! From outside, a test cannot hit the moment between a commit and its reply. With
//! `CRASH_AT="committed record:3"` in its environment, the process kills itself when it passes that point for
//! the third time. The variable counts in builds with debug assertions only. In all others, and so in every
//! release, [`reach`] is empty.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

const VARIABLE: &str = "CRASH_AT";

static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
    let text = std::env::var(VARIABLE).ok()?;
    Some(
        Plan::parse(&text).unwrap_or_else(|| panic!("{VARIABLE} is not like \"committed record:3\": {text}")),
    )
});

/// A point on the way: the action, and its object. `reach("committed", "record")` is called
/// `committed record`.
pub fn reach(done: &str, what: &str) {
    if cfg!(debug_assertions)
        && let Some(plan) = &*PLAN
        && plan.is_due(done, what)
    {
        // A process can always signal itself.
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal ends the other threads at their next step. This one takes none.
        loop {
            std::thread::park();
        }
    }
}

struct Plan {
    done: String,
    what: String,
    nth: u64,
    passed: AtomicU64,
}

impl Plan {
    fn parse(text: &str) -> Option<Self> {
        let (name, nth) = text.rsplit_once(':')?;
        let (done, what) = name.split_once(' ')?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
        Some(Self { done: done.to_owned(), what: what.to_owned(), nth, passed: AtomicU64::new(0) })
    }

    fn is_due(&self, done: &str, what: &str) -> bool {
        self.done == done && self.what == what && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.nth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_due_once_at_its_nth_pass() {
        let plan = Plan::parse("committed record:2").unwrap();
        let passes = [("committed", "record"), ("committing", "record"), ("committed", "load")];
        assert!(passes.iter().all(|(done, what)| !plan.is_due(done, what)));
        assert!(plan.is_due("committed", "record"));
        assert!(!plan.is_due("committed", "record"));
    }

    #[test]
    fn what_names_no_point_is_refused() {
        for wrong in ["", "committed record", "committed:1", "committed record:0", "committed record:x"] {
            assert!(Plan::parse(wrong).is_none(), "{wrong}");
        }
    }
}
