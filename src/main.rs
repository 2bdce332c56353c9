//! The `vodrelay` binary.

use std::process::ExitCode;

use clap::Parser;
use vodrelay::cli::Cli;
use vodrelay::cli::exit::{Exit, Failure, exit_on_panic};
use vodrelay::ops::logging;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    exit_on_panic();
    match install_crypto().and_then(|()| Cli::parse().run()) {
        Ok(exit) => {
            logging::flush();
            exit.into()
        }
        Err(failure) => {
            let mut words = Vec::new();
            // Writing to memory cannot fail.
            let _ = failure.report(&mut words);
            logging::last_words(words);
            failure.exit().into()
        }
    }
}

/// Every TLS connection of the process uses ring.
fn install_crypto() -> Result<(), Failure> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| Failure::new(Exit::Bug, "a TLS provider is installed already"))
}
