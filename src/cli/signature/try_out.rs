//! `signature serve --check`: does everything that the signature server needs work, and what does each caller get?

use std::path::Path;

use tencentcloud_signing::upload::Signature;
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use crate::app::signature::{Listeners, SignatureError, prepare};
use crate::cli::check::lines::{CheckLine, CheckReport};
use crate::cli::exit::{Exit, Failure};
use crate::clock::Now as _;
use crate::config::signature::{LoadedSignatureConfig, SignatureConfig};
use crate::serve::signature::{Caller, Current, Randoms, SignedGrant, Wanted};

pub(super) fn run(path: &Path, json: bool) -> Result<Exit, Failure> {
    let mut report = CheckReport::new(json);
    let LoadedSignatureConfig { config, warnings } = match SignatureConfig::load(path) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for error in errors.iter() {
                let line = CheckLine::wrong("config", error.to_string()).at(&error.place);
                report.add(&line.error_code(ErrorCode::ConfigurationWrong))?;
            }
            return Ok(report.exit());
        }
    };
    report.add(&CheckLine::ok("config", path.display().to_string()))?;
    for warning in &warnings {
        let line = CheckLine::warn("config", warning.to_string()).at(&warning.place);
        report.add(&line.error_code(ErrorCode::ConfigurationDoubtful))?;
    }
    let runtime = crate::cli::runtime()?;
    let (prepared, opened) =
        runtime.block_on(async { (prepare(&config).await, Listeners::open(&config).await.map(drop)) });
    runtime.shutdown_background();
    match prepared {
        Ok(current) => {
            for line in of(&current) {
                report.add(&line)?;
            }
        }
        Err(error) => {
            let part = if matches!(error, SignatureError::Token(_)) { "tokens" } else { "credentials" };
            let code = error.error_code();
            report.add(&CheckLine::wrong(part, error.to_string()).error_code(code))?;
        }
    }
    let listen = config.server.listen;
    report.add(&match opened {
        Ok(()) => CheckLine::ok("listener", format!("{listen} is free")),
        // Most often it is the server at work.
        Err(error) => CheckLine::warn("listener", format!("{error}; a server at work has it")),
    })?;
    Ok(report.exit())
}

fn of(current: &Current) -> Vec<CheckLine> {
    let credentials = current.signer().credentials();
    let mut lines = vec![CheckLine::ok(
        "credentials",
        format!("the pair {} in {}", credentials.masked_id(), credentials.origin),
    )];
    let tokens = match current.callers().tokens() {
        1 => "1 token can be read".to_owned(),
        tokens => format!("{tokens} tokens can be read"),
    };
    lines.push(CheckLine::ok("tokens", tokens));
    lines.extend(current.callers().iter().map(|caller| signed_for(current, caller)));
    lines
}

/// Signs what a caller gets without asking for anything in particular, and reads it again.
fn signed_for(current: &Current, caller: &Caller) -> CheckLine {
    let name = &caller.name;
    let now = WallTime::now().0 / 1_000;
    // A context that a caller has to say is said here.
    let wanted = Wanted { source_context: Some("check".to_owned()), ..Wanted::default() };
    let sign = |wanted| current.signer().sign(&caller.policy, name, wanted, now, &Randoms::default());
    match sign(wanted).or_else(|_| sign(Wanted::default())) {
        Ok(SignedGrant { signature, grant }) => {
            let key = current.signer().credentials().secret_key.expose();
            let verified = Signature::parse(&signature).is_ok_and(|read| read.verify(key));
            if !verified {
                return CheckLine::wrong("caller", format!("{name}: its signature does not verify"))
                    .error_code(ErrorCode::CannotSign);
            }
            let often =
                if grant.one_time_valid == Some(true) { "one upload" } else { "any number of uploads" };
            let procedure =
                grant.procedure.map_or_else(String::new, |name| format!(", with the task flow {name}"));
            let seconds = grant.expire_time - grant.current_time_stamp;
            CheckLine::ok("caller", format!("{name}: {often} within {seconds} s{procedure}"))
        }
        Err(error) => {
            let line = format!("{name}: {error}; what it always gets cannot be signed: correct its policy");
            CheckLine::wrong("caller", line).error_code(ErrorCode::CannotSign)
        }
    }
}
