//! The relay as a process, killed over and over.

pub mod audit;
pub mod campaign;
pub mod process;
