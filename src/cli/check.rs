//! `check`: is the configuration right?

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::exit::{Exit, Failure};
use crate::config::{Config, DEFAULT_PATH, environment};

/// Check the configuration
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read the configuration only; try neither the cloud nor the broker nor the journal
    #[arg(long, required = true)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, path: Option<&Path>) -> Result<Exit, Failure> {
    let loaded = Config::load(path, environment());
    let shown = match path {
        Some(path) => path.display().to_string(),
        None if Path::new(DEFAULT_PATH).exists() => DEFAULT_PATH.to_owned(),
        None => format!("the defaults, without {DEFAULT_PATH}"),
    };
    let errors: Vec<_> = loaded.as_ref().err().into_iter().flat_map(|errors| errors.iter()).collect();
    let mut out = io::stdout().lock();
    let written = if args.json {
        let errors: Vec<_> =
            errors.iter().map(|error| json!({ "place": error.place, "message": error.message })).collect();
        writeln!(out, "{}", json!({ "config": shown, "ok": loaded.is_ok(), "errors": errors }))
    } else if loaded.is_ok() {
        writeln!(out, "config ok: {shown}")
    } else {
        errors.iter().try_for_each(|error| writeln!(out, "{error}"))
    };
    written.map_err(Failure::stdout)?;
    Ok(if loaded.is_ok() { Exit::Done } else { Exit::Configuration })
}
