//! `uploads`: those that are not done yet.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tencent_vod::upload::plan::{Phase, UploadInput, UploadOutcome};
use tencent_vod::upload::record::{RecordError, UploadRecord};
use tencent_vod::upload::run::{self, CONCURRENCY, UploadFigures};
use tokio::sync::{mpsc, watch};

use super::begin::{UploadStarter, say};
use super::{How, Speed, Where, Who, finish, go_on, record_failure, state_folder};
use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, printable};
use crate::config::{Config, environment};

/// How long a process may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Look at the uploads that are not done, go on with them, or drop them
#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum UploadsCommand {
    /// List the uploads that are not done
    List(ListArgs),
    /// Stop an upload that another terminal runs; what was sent stays
    Pause(IdArgs),
    /// Go on with an upload
    Resume(ResumeArgs),
    /// Drop an upload, and remove what was sent of it
    Abort(AbortArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    /// Where unfinished uploads are written down
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print JSON, one object an upload
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct IdArgs {
    /// The upload, as `uploads list` shows it
    id: String,
    /// Where unfinished uploads are written down
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ResumeArgs {
    /// The upload, as `uploads list` shows it
    id: String,
    #[command(flatten)]
    speed: Speed,
    #[command(flatten)]
    who: Who,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AbortArgs {
    /// The upload, as `uploads list` shows it
    id: String,
    #[command(flatten)]
    who: Who,
}

pub(in crate::cli) fn run(command: &UploadsCommand, config: Option<&Path>) -> Result<Exit, Failure> {
    match command {
        UploadsCommand::List(args) => list(args),
        UploadsCommand::Pause(args) => pause(args),
        UploadsCommand::Resume(args) => crate::cli::runtime()?.block_on(resume(args, config)),
        UploadsCommand::Abort(args) => crate::cli::runtime()?.block_on(abort(args, config)),
    }
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let folder = state_folder(args.state_dir.as_deref())?;
    let records = folder.list().map_err(record_failure)?;
    let mut out = io::stdout().lock();
    let screen = Screen::of_stdout();
    let mut shown = 0;
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                say(&printable(&error.to_string()));
                continue;
            }
        };
        let running = folder.is_held(&record.id);
        let line = if args.json { json(&record, running) } else { screen.line(&row(&record, running)) };
        if shown == 0 && !args.json {
            writeln!(out, "{}", screen.line(HEAD)).map_err(Failure::stdout)?;
        }
        writeln!(out, "{line}").map_err(Failure::stdout)?;
        shown += 1;
    }
    if shown == 0 {
        say("no upload is unfinished");
    }
    Ok(Exit::Done)
}

const HEAD: &str = "ID        STATE       RUNS  RESUMABLE UNTIL       FILE";

fn state(record: &UploadRecord) -> &'static str {
    match record.progress.as_ref().map(|progress| &progress.phase) {
        None => "beginning",
        Some(Phase::Sending) => "sending",
        Some(Phase::Completing) => "completing",
        Some(Phase::Committing) => "committing",
        Some(Phase::Committed(_)) => "committed",
    }
}

fn until(record: &UploadRecord) -> Option<String> {
    let until = jiff::Timestamp::from_second(record.resumable_until()?).ok()?;
    Some(until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn row(record: &UploadRecord, running: bool) -> String {
    let until = until(record).unwrap_or_else(|| "-".to_owned());
    let runs = if running { "yes" } else { "no" };
    let path = printable(&record.path.to_string_lossy());
    format!("{:<8}  {:<10}  {runs:<4}  {until:<20}  {path}", record.id, state(record))
}

fn json(record: &UploadRecord, running: bool) -> String {
    // Nothing of the session or its key.
    serde_json::json!({
        "id": record.id, "state": state(record), "running": running, "resumable_until": until(record), "file": record.path,
        "bytes": record.identity.size, "sub_app_id": record.sub_app, "procedure": record.apply.procedure,
    })
    .to_string()
}

fn pause(args: &IdArgs) -> Result<Exit, Failure> {
    let folder = state_folder(args.state_dir.as_deref())?;
    let record = folder.read(&args.id).map_err(record_failure)?;
    if !folder.is_held(&args.id) {
        say(&format!("the upload {} is not running", args.id));
        return Ok(Exit::Done);
    }
    let process = record.process.and_then(|process| Pid::from_raw(process.cast_signed()));
    let unknown =
        || Failure::new(Exit::Failure, format!("the process that runs the upload {} is not known", args.id));
    // Only a process that holds the record is signalled: the number of one that ended may be another's.
    kill_process(process.ok_or_else(unknown)?, Signal::TERM).map_err(|error| {
        Failure::new(Exit::Failure, format!("the process of the upload cannot be signalled: {error}"))
    })?;
    let began = std::time::Instant::now();
    while folder.is_held(&args.id) {
        if began.elapsed() >= STOP_LIMIT {
            return Err(Failure::new(Exit::Temporary, format!("the upload {} has not stopped yet", args.id)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Exit::Done)
}

async fn resume(args: &ResumeArgs, config: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(config, environment())?;
    let (who, speed) = (args.who.clone(), args.speed.clone());
    let how = How { who, place: Where::default(), speed, json: args.json };
    let begun = UploadStarter::new(&how, &config)?.resume(&args.id, None)?;
    let done = go_on(begun, &how, &config).await?;
    finish(&how, &config, None, done).await?;
    Ok(Exit::Done)
}

async fn abort(args: &AbortArgs, config: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(config, environment())?;
    let speed = Speed { concurrency: CONCURRENCY, bwlimit: None };
    let how = How { who: args.who.clone(), place: Where::default(), speed, json: false };
    let uploads = UploadStarter::new(&how, &config)?;
    let record = uploads.folder.read(&args.id).map_err(record_failure)?;
    if record.may_be_committed() {
        return Err(Failure::new(
            Exit::Temporary,
            format!("the upload {} is perhaps committed already", args.id),
        )
        .next(format!("`vodrelay uploads resume {}` asks the cloud once more", args.id)));
    }
    let sent = record.progress.as_ref().is_some_and(|progress| progress.upload_id.is_some());
    let held = match uploads.folder.hold(&args.id) {
        Err(error @ RecordError::InUse { .. }) => return Err(record_failure(error)),
        held => held.map_err(record_failure)?,
    };
    if !sent {
        held.remove().map_err(record_failure)?;
        say(&format!("the upload {} is dropped; nothing was stored", args.id));
        return Ok(Exit::Done);
    }
    drop(held);
    let begun = uploads.resume(&args.id, None)?;
    let (control, inputs) = mpsc::channel(1);
    let _ = control.send(UploadInput::Cancel).await;
    let (figures, _seen) = watch::channel(UploadFigures::default());
    let ended = run::run(begun.work, inputs, figures).await;
    match ended.outcome {
        UploadOutcome::Cancelled | UploadOutcome::Failed(_) => {
            ended.held.remove().map_err(record_failure)?;
            say(&format!("the upload {} is dropped, and what was stored of it removed", args.id));
            Ok(Exit::Done)
        }
        _ => Err(Failure::new(Exit::Temporary, format!("the upload {} could not be dropped", args.id))),
    }
}
