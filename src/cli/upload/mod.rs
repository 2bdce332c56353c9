//! `upload`: files become media; `uploads`: those that are not done yet.

mod begin;
mod list;
mod manifest;
mod progress;
mod wait;

use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tencent_vod::upload::Committed;
use tencent_vod::upload::plan::{Failed, UploadInput, UploadOutcome};
use tencent_vod::upload::record::{RecordError, RecordFolder, UploadRecord};
use tencent_vod::upload::run::{self, CONCURRENCY, UploadEnd, UploadFigures};
use tencent_vod::upload::source::SourceError;
use tencent_vod::{CredentialSource, Places};
use tokio::sync::{mpsc, watch};
use url::Url;

use super::exit::{Exit, Failure};
use crate::app::daemon::on_signals;
use crate::config::{Config, environment};
use begin::{PreparedUpload, UploadStarter, say};
pub(super) use list::{UploadsCommand, run as run_uploads};

/// Upload files, and see each become a medium
///
/// A killed upload goes on when the same command is given again within a day: parts that arrived are not sent
/// again, and one command makes one medium. The FileId is printed when the cloud has confirmed the upload.
#[derive(Debug, clap::Args)]
pub(super) struct UploadArgs {
    /// The media files; an .m3u8 or .mpd brings its segments along
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    speed: Speed,
    #[command(flatten)]
    who: Who,
    /// Print JSON, one object a file
    #[arg(long)]
    json: bool,
    /// Wait until the journal has the events of this upload, at most so long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Drop an earlier upload of the same file, and begin again
    #[arg(long)]
    restart: bool,
}

/// What is asked for.
#[derive(Clone, Debug, Default, clap::Args)]
struct What {
    /// The task flow that begins when the medium is there
    #[arg(long, value_name = "NAME")]
    procedure: Option<String>,
    /// A picture for its cover
    #[arg(long, value_name = "FILE")]
    cover: Option<PathBuf>,
    /// The name of the medium [default: the file's, without its ending]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Its type, like mp4 [default: the ending of the file's name]
    #[arg(long = "type", value_name = "TYPE")]
    media_type: Option<String>,
    /// The sub-application; the default one is 0
    #[arg(long, value_name = "ID", default_value_t = 0)]
    sub_app: u64,
    /// Where it is stored [default: the nearest enabled region]
    #[arg(long, value_name = "REGION")]
    storage_region: Option<String>,
    /// Its class
    #[arg(long, value_name = "ID")]
    class_id: Option<i64>,
    /// Comes back in NewFileUpload; at most 250 characters
    #[arg(long, value_name = "TEXT", value_parser = at_most::<250>)]
    source_context: Option<String>,
    /// Comes back in ProcedureStateChanged; at most 1000 characters
    #[arg(long, value_name = "TEXT", value_parser = at_most::<1000>)]
    session_context: Option<String>,
    /// When the medium is deleted, like 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<String>,
}

/// Where it goes.
#[derive(Clone, Debug, Default, clap::Args)]
struct Where {
    /// The address of the API [default: vod.endpoint of the configuration]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Url>,
    /// The address of the object storage, for a local VOD [default: the API's, if that is on this machine]
    #[arg(long, value_name = "URL")]
    cos_endpoint: Option<Url>,
}

/// How fast it goes.
#[derive(Clone, Debug, clap::Args)]
struct Speed {
    /// How many parts are sent at once
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY, value_parser = clap::value_parser!(u32).range(1..=64))]
    concurrency: u32,
    /// How many bytes a second all parts send together, like 2M
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bwlimit: Option<NonZeroU64>,
}

/// Who uploads, and where that is written down.
#[derive(Clone, Debug, clap::Args)]
struct Who {
    /// Where your key is: auto, env, file, cvm-role or systemd
    #[arg(long, value_name = "SOURCE", default_value = "auto", value_parser = source)]
    credentials: CredentialSource,
    /// Where unfinished uploads are written down [default: vodrelay/uploads in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// How it is done.
#[derive(Clone, Debug)]
struct How {
    who: Who,
    place: Where,
    speed: Speed,
    json: bool,
}

fn at_most<const MOST: usize>(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if length <= MOST {
        Ok(text.to_owned())
    } else {
        Err(format!("it has {length} characters; the cloud takes {MOST}"))
    }
}

fn expiry(text: &str) -> Result<String, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| "a time like 2026-12-31T00:00:00Z is wanted".to_owned())?;
    if time <= jiff::Timestamp::now() {
        return Err("it is in the past".to_owned());
    }
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    let (number, unit) = match text.trim_end_matches(['B', 'b']) {
        text if text.ends_with(['k', 'K']) => (&text[..text.len() - 1], 1 << 10),
        text if text.ends_with(['m', 'M']) => (&text[..text.len() - 1], 1 << 20),
        text if text.ends_with(['g', 'G']) => (&text[..text.len() - 1], 1 << 30),
        text => (text, 1),
    };
    let bytes =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).and_then(NonZeroU64::new);
    bytes.ok_or_else(|| "bytes a second are wanted, like 500k, 2M or 1G".to_owned())
}

fn source(text: &str) -> Result<CredentialSource, String> {
    let named = CredentialSource::NAMES.iter().find(|(name, _)| *name == text);
    named
        .map(|(_, source)| *source)
        .ok_or_else(|| "auto, env, file, cvm-role or systemd is wanted".to_owned())
}

/// The folder of unfinished uploads.
fn state_folder(given: Option<&Path>) -> Result<RecordFolder, Failure> {
    if let Some(path) = given {
        return Ok(RecordFolder::new(path.to_owned()));
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| {
        Failure::new(Exit::Usage, "neither XDG_STATE_HOME nor HOME is set")
            .next("name a folder with --state-dir")
    })?;
    Ok(RecordFolder::new(state.join("vodrelay/uploads")))
}

pub(super) fn run(args: UploadArgs, config: Option<&Path>) -> Result<Exit, Failure> {
    super::runtime()?.block_on(upload(args, config))
}

async fn upload(args: UploadArgs, config: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(config, environment())?;
    let how =
        How { who: args.who.clone(), place: args.place.clone(), speed: args.speed.clone(), json: args.json };
    let uploads = UploadStarter::new(&how, &config)?;
    let several = args.files.len() > 1;
    if several && (args.what.name.is_some() || args.what.cover.is_some()) {
        return Err(Failure::new(
            Exit::Usage,
            "--name and --cover are for one file; upload the files one by one",
        ));
    }
    let (mut done, mut last) = (0, None);
    for file in &args.files {
        let ended = one(&args, &how, &uploads, &config, file).await;
        match ended {
            Ok(()) => done += 1,
            Err(failure) if several && failure.exit() != Exit::Usage => {
                let mut words = io::stderr().lock();
                let _ = writeln!(words, "{}:", file.display());
                let _ = failure.report(&mut words);
                let paused = failure.exit() == Exit::Temporary;
                last = Some(failure);
                if paused {
                    break;
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    match last {
        None => Ok(Exit::Done),
        Some(_) if done > 0 => Ok(Exit::Partial),
        Some(failure) => Ok(failure.exit()),
    }
}

async fn one(
    args: &UploadArgs,
    how: &How,
    uploads: &UploadStarter,
    config: &Config,
    file: &Path,
) -> Result<(), Failure> {
    let begun = uploads.begin(&args.what, file, args.restart).await?;
    let done = go_on(begun, how, config).await?;
    finish(how, config, args.wait, done).await
}

/// A medium that is there.
struct DoneUpload {
    file_id: String,
    /// What `CommitUpload` answered, if its answer arrived.
    answer: Option<Committed>,
    proven: bool,
    kept_parts: u32,
    resumed: bool,
    ended: UploadEnd,
}

/// Uploads, shows how far the upload is, and says how it ended.
async fn go_on(begun: PreparedUpload, how: &How, config: &Config) -> Result<DoneUpload, Failure> {
    let (work, resumed) = (begun.work, begun.resumed);
    let path = work.record.path.clone();
    let (control, inputs) = mpsc::channel(2);
    pause_on_signal(control)?;
    let (figures, seen) = watch::channel(UploadFigures::default());
    let shown = tokio::spawn(progress::show(seen.clone(), path.clone(), how.json));
    let ended = run::run(work, inputs, figures).await;
    // It ends with the figures.
    let _ = shown.await;
    let kept_parts = seen.borrow().kept_parts;
    let id = &ended.record.id;
    let words = ended.error.clone().unwrap_or_else(|| "no reason is known".to_owned());
    let (file_id, answer, proven) = match ended.outcome.clone() {
        UploadOutcome::Committed { medium, proven } => (medium.file_id.clone(), Some(medium), proven),
        UploadOutcome::PerhapsCommitted => {
            let found = wait::find(config, &ended.record).await?;
            let file_id = found.ok_or_else(|| {
                Failure::new(
                    Exit::Temporary,
                    format!("{} is perhaps committed: CommitUpload was not answered ({words})", path.display()),
                )
                .next(format!(
                    "look for its NewFileUpload event before you upload it again; `vodrelay uploads resume {id}` asks once more"
                ))
            })?;
            (file_id, None, true)
        }
        UploadOutcome::Paused => return Err(paused(&ended)),
        UploadOutcome::Cancelled => {
            ended.held.remove().map_err(record_failure)?;
            let text = format!("{} was not uploaded: it was cancelled", path.display());
            return Err(Failure::new(Exit::Failure, text));
        }
        UploadOutcome::Failed(failed) => return Err(failure(failed, ended, &path, &words)),
    };
    Ok(DoneUpload { file_id, answer, proven, kept_parts, resumed, ended })
}

fn paused(ended: &UploadEnd) -> Failure {
    let path = ended.record.path.display();
    if ended.record.progress.is_none() {
        return Failure::new(Exit::Temporary, format!("{path} was stopped before anything was sent"));
    }
    Failure::new(Exit::Temporary, format!("{path} is paused; what was sent stays")).next(format!(
        "`vodrelay uploads resume {}` goes on, within a day after the upload began",
        ended.record.id
    ))
}

fn failure(failed: Failed, ended: UploadEnd, path: &Path, words: &str) -> Failure {
    let path = path.display();
    let id = ended.record.id.clone();
    let (exit, text, next) = match failed {
        Failed::FileChanged => (
            Exit::Failure,
            format!("{path} was not uploaded: {words}"),
            Some("nothing was committed".to_owned()),
        ),
        Failed::Refused => (Exit::Failure, format!("{path} was not uploaded: {words}"), None),
        Failed::GaveUp => (
            Exit::Temporary,
            format!("{path} is not uploaded yet: {words}"),
            ended.record.progress.as_ref().map(|_| format!("`vodrelay uploads resume {id}` goes on")),
        ),
        Failed::KeyOver => (
            Exit::Temporary,
            format!(
                "{path} was not uploaded: its temporary key ended twice before all of it was sent ({words})"
            ),
            Some("upload it over a faster line, or with a larger --bwlimit".to_owned()),
        ),
    };
    if failed != Failed::GaveUp {
        // Nothing is left to go on from.
        let _ = ended.held.remove();
    }
    let failure = Failure::new(exit, text);
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

/// Prints the medium, removes the record, and waits for the events.
async fn finish(how: &How, config: &Config, wait: Option<Duration>, done: DoneUpload) -> Result<(), Failure> {
    let mut out = io::stdout();
    let DoneUpload { file_id, answer, proven, kept_parts, resumed, ended } = done;
    let (media_url, cover_url, request_id) = match answer {
        Some(answer) => (answer.media_url, answer.cover_url, Some(answer.request_id)),
        None => (String::new(), None, None),
    };
    let UploadRecord { path, apply, began_at, .. } = ended.record;
    if how.json {
        let shown = serde_json::json!({
            "file": path, "file_id": file_id, "media_url": media_url, "cover_url": cover_url, "request_id": request_id,
            "proven": proven, "resumed": resumed, "kept_parts": kept_parts,
        });
        writeln!(out, "{shown}").map_err(Failure::stdout)?;
    } else {
        writeln!(out, "{file_id}").map_err(Failure::stdout)?;
        say(&format!("uploaded {}: {media_url}", path.display()));
    }
    // Printed first: a process that is killed between the two prints the same FileId again.
    ended.held.remove().map_err(record_failure)?;
    match wait {
        Some(wait) => wait::events(config, &file_id, apply.procedure.is_some(), began_at * 1_000, wait).await,
        None => Ok(()),
    }
}

/// The first signal pauses, the second ends at once: what is written down is right at any time.
fn pause_on_signal(control: mpsc::Sender<UploadInput>) -> Result<(), Failure> {
    let pause = move || {
        // An upload that has ended takes no more inputs.
        let _ = control.try_send(UploadInput::Pause);
    };
    on_signals(pause, || std::process::exit(Exit::Temporary as i32))?;
    Ok(())
}

fn record_failure(error: RecordError) -> Failure {
    let exit = match error {
        RecordError::InUse { .. } => Exit::Temporary,
        RecordError::Unknown { .. } => Exit::Usage,
        RecordError::Unusable { .. } | RecordError::Damaged { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}

fn source_failure(error: SourceError) -> Failure {
    let exit = match error {
        SourceError::NotAFile { .. } | SourceError::Empty { .. } | SourceError::TooLarge { .. } => {
            Exit::Usage
        }
        SourceError::Unreadable { .. } | SourceError::Changed { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// Where the key of the person who runs this is.
fn places(how: &How) -> Places {
    Places::new(how.who.credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(rate("500k").map(NonZeroU64::get), Ok(512_000));
        assert_eq!(rate("2M").map(NonZeroU64::get), Ok(2 << 20));
        assert_eq!(rate("1GB").map(NonZeroU64::get), Ok(1 << 30));
        assert_eq!(rate("77").map(NonZeroU64::get), Ok(77));
        for wrong in ["", "0", "M", "-1", "1.5M", "99999999999999999999G"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_are_refused_and_never_cut() {
        assert!(at_most::<250>(&"片".repeat(250)).is_ok());
        assert!(at_most::<250>(&"片".repeat(251)).unwrap_err().contains("251 characters"));
        assert!(expiry("2020-01-01T00:00:00Z").is_err() && expiry("soon").is_err());
        assert_eq!(expiry("2099-01-01T08:00:00+08:00").unwrap(), "2099-01-01T00:00:00Z");
    }
}
