//! The relay's real core in a made-up world: one seed decides everything, time is a number, and every leg can fail.
//!
//! In reading order: `plan` (what a seed decides beforehand), `world` (time, the cloud, the clock's faults), `relay` (a
//! process with the real core, and its journal), `broker`, `journal` (what is committed), `check` (what must hold, seen
//! from outside), `sabotage` (deliberate bugs, so that the checkers can be checked), `campaign` (many seeds).

pub(crate) mod campaign;
pub(crate) mod check;
pub(crate) mod journal;
pub(crate) mod plan;
pub(crate) mod sabotage;
pub(crate) mod world;
