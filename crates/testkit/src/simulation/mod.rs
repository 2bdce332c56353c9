//! The relay's real core in a made-up world: one seed decides everything, time is a number, and every stage can fail.
//!
//! In reading order: `plan` (what a seed decides beforehand), `world` (time, and the faults that come by the clock; in its
//! folder the process with the real core, the lane to its journal, the cloud, the broker), `journal` (what is committed),
//! `check` (what must hold, seen from outside), `sabotage` (deliberate bugs, so that the checkers can be checked),
//! `campaign` (many seeds).
//!
//! `tests/sim` runs it. The program `simulate` runs long campaigns, and one seed with a trace.

pub mod campaign;
pub mod check;
pub mod journal;
pub mod plan;
pub mod sabotage;
pub mod world;
