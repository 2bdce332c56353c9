//! The `vodrelay` binary.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use vodrelay::cli::Cli;
use vodrelay::cli::exit::{Exit, Failure, exit_on_panic};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    exit_on_panic();
    match install_crypto().and_then(|()| Cli::parse().run()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // There is nobody left to tell when standard error is gone.
            let _ = failure.report(&mut io::stderr().lock());
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
