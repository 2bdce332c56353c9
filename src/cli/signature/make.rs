//! `signature make`: one signature, of what the command line says.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use tencentcloud_signing::upload::{self, Grant, InvalidGrant, TaskNotifyMode};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::KeySource;
use crate::cli::exit::{Exit, Failure};
use crate::clock::Now as _;
use crate::serve::signature::GrantSigner;

/// Make one signature that lets its holder upload
///
/// The signature goes to standard output, alone. Whoever has it can upload until it expires: give it to one client, and keep it
/// out of logs. The key signs here and is sent nowhere.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// How long the signature holds, at most 90 days
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    expires_in: Duration,
    /// Let it be used once only
    #[arg(long)]
    one_time: bool,
    /// The task flow that starts after the upload
    #[arg(long, value_name = "NAME")]
    procedure: Option<String>,
    /// The priority of the task flow, from -10 to 10
    #[arg(long, value_name = "N", allow_hyphen_values = true, requires = "procedure")]
    task_priority: Option<i8>,
    /// When the task flow sends events
    #[arg(long, value_name = "MODE", value_enum, ignore_case = true, requires = "procedure")]
    task_notify_mode: Option<NotifyModeArg>,
    /// The category of the media
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    class_id: Option<i64>,
    /// A text of at most 250 characters that comes back in the event of the upload, such as who uploads
    #[arg(long, value_name = "TEXT")]
    source_context: Option<String>,
    /// A text of at most 1,000 characters that comes back in the events of the task flow
    #[arg(long, value_name = "TEXT", requires = "procedure")]
    session_context: Option<String>,
    /// The sub-application; 0 is the default application
    #[arg(long, value_name = "ID")]
    sub_app: Option<u64>,
    /// Where the media is stored; the region has to be enabled in the console
    #[arg(long, value_name = "REGION")]
    storage_region: Option<String>,
    /// Where the key comes from
    #[arg(long, value_name = "SOURCE", value_enum, default_value = "auto")]
    credentials: KeySource,
    /// Print one JSON object, as `signature serve` answers
    #[arg(long)]
    json: bool,
}

/// `taskNotifyMode`, as it is typed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum NotifyModeArg {
    /// Once, when all of it is done
    Finish,
    /// Whenever something of it is done
    Change,
    /// Never
    None,
}

impl From<NotifyModeArg> for TaskNotifyMode {
    fn from(mode: NotifyModeArg) -> Self {
        match mode {
            NotifyModeArg::Finish => Self::Finish,
            NotifyModeArg::Change => Self::Change,
            NotifyModeArg::None => Self::None,
        }
    }
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let signer = GrantSigner::new(args.credentials.read()?)
        .map_err(|error| Failure::new(Exit::Configuration, error).error_code(ErrorCode::CannotSign))?;
    let credentials = signer.credentials();
    let now = WallTime::now().0 / 1_000;
    let random = upload::random().map_err(|error| Failure::new(Exit::Failure, error))?;
    let grant = grant(args, &credentials.secret_id, now, random);
    let signature = grant
        .sign(credentials.secret_key.expose())
        .map_err(|error| Failure::new(Exit::Usage, refused(&error)))?;
    let mut out = io::stdout().lock();
    let printed = if args.json { json(&grant, &signature) } else { signature };
    writeln!(out, "{printed}").and_then(|()| out.flush()).map_err(Failure::stdout)?;
    Ok(Exit::Done)
}

fn grant(args: &Args, secret_id: &str, now: i64, random: u32) -> Grant {
    let life = i64::try_from(args.expires_in.as_secs()).unwrap_or(i64::MAX);
    Grant {
        class_id: args.class_id,
        procedure: args.procedure.clone(),
        task_priority: args.task_priority,
        task_notify_mode: args.task_notify_mode.map(Into::into),
        source_context: args.source_context.clone(),
        one_time_valid: args.one_time.then_some(true),
        sub_app_id: args.sub_app.filter(|id| *id != 0),
        session_context: args.session_context.clone(),
        storage_region: args.storage_region.clone(),
        ..Grant::new(secret_id, now, now.saturating_add(life), random)
    }
}

/// What is wrong with the command line, in its own words.
fn refused(error: &InvalidGrant) -> String {
    match error {
        InvalidGrant::NoLife => "--expires-in is less than a second; name at least 1s".to_owned(),
        InvalidGrant::LifeTooLong(_) => {
            "--expires-in is more than 90days, which the cloud does not allow".to_owned()
        }
        other => other.to_string(),
    }
}

fn json(grant: &Grant, signature: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct MadeObject<'a> {
        signature: &'a str,
        expire_time: i64,
        current_time_stamp: i64,
        one_time_valid: bool,
        sub_app_id: u64,
    }
    let object = MadeObject {
        signature,
        expire_time: grant.expire_time,
        current_time_stamp: grant.current_time_stamp,
        one_time_valid: grant.one_time_valid.unwrap_or(false),
        sub_app_id: grant.sub_app_id.unwrap_or(0),
    };
    serde_json::to_string(&object).expect("a struct of texts and numbers is JSON")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use tencentcloud_signing::upload::Signature;

    use super::*;

    #[derive(Debug, Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        Wrapped::try_parse_from(format!("make {words}").split_whitespace()).unwrap().args
    }

    #[test]
    fn every_parameter_of_the_documents_can_be_said() {
        Wrapped::command().debug_assert();
        let all = args(
            "--expires-in 1h --one-time --procedure P&x=1 --task-priority -10 --task-notify-mode change --class-id 7 \
             --source-context u=1 --session-context s --sub-app 5 --storage-region ap-chongqing",
        );
        let made = grant(&all, "AKIDexample", 1_800_000_000, 9);
        let signature = Signature::parse(&made.sign("key").unwrap()).unwrap();
        let said: Vec<(String, String)> = signature
            .parameters()
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let names: Vec<&str> = said.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, upload::PARAMETERS);
        assert_eq!(signature.grant().unwrap(), made);
        assert_eq!(made.expire_time - made.current_time_stamp, 3_600);
        assert_eq!(made.procedure.as_deref(), Some("P&x=1"));
    }

    #[test]
    fn nothing_is_granted_that_is_not_said() {
        let made = grant(&args("--sub-app 0"), "AKIDexample", 1_800_000_000, 9);
        assert_eq!(made, Grant::new("AKIDexample", 1_800_000_000, 1_800_000_600, 9));
    }

    #[test]
    fn what_the_cloud_would_refuse_is_refused_in_the_words_of_the_command() {
        for (words, told) in [
            ("--expires-in 91d", "--expires-in is more than 90days"),
            ("--expires-in 900ms", "--expires-in is less than a second"),
            (
                &format!("--source-context {}", "x".repeat(251)),
                "sourceContext has 251 characters; 250 are allowed",
            ),
        ] {
            let error = grant(&args(words), "AKIDexample", 1_800_000_000, 9).sign("key").unwrap_err();
            assert!(refused(&error).contains(told), "{}", refused(&error));
        }
    }
}
