//! Parts of the program that need no broker: rules of the tree, the configuration, the emulator, the client, the journal, and
//! the program as a process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod child;
mod config;
mod dependencies;
mod disk;
mod documents;
mod emulator;
mod glossary;
mod house;
mod journal;
mod observers;
mod package;
mod process;
mod refusals;
mod signature;
mod snapshots;
mod terminal;
mod uploader;
mod uploads;
mod vod;
