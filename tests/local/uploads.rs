//! Uploads to the emulator, in plain HTTP: what it answers is checked without any client of ours in between.

mod calls;
pub(crate) mod client;
mod document;
mod faults;
mod flow;
mod hostile;
mod switches;
pub(crate) mod web;
