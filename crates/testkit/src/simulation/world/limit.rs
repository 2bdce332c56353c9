//! The account's limit, as the cloud counts it.

use crate::simulation::plan::{Counting, Plan};

/// The requests of one API.
#[derive(Debug)]
pub(super) struct Limiter {
    counting: Counting,
    per_second: u64,
    /// A bucket's level, in thousandths of a request; of a window the requests in it.
    level: u64,
    at: u64,
}

impl Limiter {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { counting: plan.counting, per_second: plan.accepted_per_second.into(), level: 0, at: 0 }
    }

    /// Whether another request is accepted now.
    pub(super) fn accepts(&mut self, now: u64) -> bool {
        match self.counting {
            Counting::Not => true,
            Counting::Bucket => {
                let filled = self.level + (now - self.at) * self.per_second;
                self.at = now;
                self.level = filled.min(self.per_second * 1_000);
                let accepted = self.level >= 1_000;
                self.level -= if accepted { 1_000 } else { 0 };
                accepted
            }
            Counting::Window => {
                if now / 1_000 != self.at / 1_000 {
                    self.level = 0;
                }
                self.at = now;
                self.level += 1;
                self.level <= self.per_second
            }
        }
    }
}
