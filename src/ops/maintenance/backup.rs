//! A copy of the journal that is made while the relay works, examined, and kept beside earlier ones.
//!
//! The journal's writer makes the copy, some pages at a time, with pauses (see `journal/copy.rs`). It gets
//! its final name when it is complete, sound and synced. The next run removes the remains of a killed
//! process.

use std::cmp::Ordering;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::JobFailure;
use crate::clock::Now as _;
use crate::journal::{CopyError, Examined, Journal, examine_copy};

/// Events name customers' files: owner and group only.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// The pages of one step, and the pause before the next: at most some 50 MB a second.
const PAGES_PER_STEP: u16 = 64;
const PAUSE: Duration = Duration::from_millis(10);

/// The steps after which the copy is synced: 16 MB. Much more at once would delay the journal's own syncs.
const STEPS_PER_SYNC: u32 = 32;

/// The free space that a copy must leave on its disk, which is usually the journal's own.
const SPACE_LEFT: u64 = 256 << 20;

/// How often a copy may start again because another program writes to the journal, and how many steps in a
/// row may copy nothing because one holds a lock.
const FRESH_STARTS: u32 = 8;
const IDLE_STEPS: u32 = 3_000;

/// The suffixes of an incomplete copy and of a damaged one.
const PARTIAL: &str = "partial";
const DAMAGED: &str = "damaged";

/// Makes copies and removes old ones.
#[derive(Debug)]
pub(super) struct Backups {
    folder: PathBuf,
    /// The beginning of the names of all copies.
    stem: String,
    kept: usize,
    /// The free space that a copy must leave, in bytes.
    pub(super) space_left: u64,
    stop: CancellationToken,
}

/// Why there is no new copy.
#[derive(Debug, thiserror::Error)]
enum BackupProblem {
    #[error("{0}")]
    Copy(#[from] CopyError),
    #[error("{what} {path} ({cause}); {next_step}", path = path.display())]
    Files { what: &'static str, path: PathBuf, cause: io::Error, next_step: &'static str },
    #[error("{needed} bytes are needed in {path}, and {free} are free there; free some, or set maintenance.backup_dir to a folder on another disk", path = path.display())]
    NoSpace { path: PathBuf, needed: u64, free: u64 },
    #[error("another program writes to the journal, or holds it, all the time; end it")]
    Disturbed,
    #[error("the copy {path} is damaged ({words})", path = path.display())]
    Damaged { path: PathBuf, words: String },
    #[error("the relay stops")]
    Stopped,
}

/// A file that is removed with this value, unless it gets a name.
#[derive(Debug)]
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // If it cannot be removed now, the next run removes it.
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&self.0, suffix));
        }
    }
}

impl Backups {
    pub(super) fn new(journal: &Path, folder: PathBuf, kept: usize, stop: CancellationToken) -> Self {
        let stem = journal.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { folder, stem, kept, space_left: SPACE_LEFT, stop }
    }

    /// Makes a copy, and removes the oldest ones beyond the kept number. Returns its path.
    pub(super) async fn run(&self, journal: &Journal) -> Result<PathBuf, JobFailure> {
        let began = Instant::now();
        let problem = match self.make(journal).await {
            Ok(path) => {
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                let took_s = began.elapsed().as_secs();
                info!(path = %path.display(), bytes, took_s, "journal copied, and the copy checked");
                return Ok(path);
            }
            Err(problem) => problem,
        };
        match &problem {
            BackupProblem::Copy(CopyError::Closed(_)) | BackupProblem::Stopped => {
                return Err(JobFailure::Closed);
            }
            BackupProblem::Damaged { path, words } => error!(
                error_code = %ErrorCode::JournalDamaged,
                path = %path.display(),
                cause = %words,
                "the journal's copy is damaged, and so probably is the journal; no older copy is removed; stop the relay, look at \
                 the journal with `PRAGMA integrity_check`, and restore an older copy or start with a new one"
            ),
            _ => error!(
                error_code = %ErrorCode::Backup,
                folder = %self.folder.display(),
                error = %problem,
                "there is no new copy of the journal; the next attempt is at the next time of maintenance.backup"
            ),
        }
        Err(JobFailure::Failed(problem.to_string()))
    }

    async fn make(&self, journal: &Journal) -> Result<PathBuf, BackupProblem> {
        let name = self.name(WallTime::now());
        let (folder, stem, needed) =
            (self.folder.clone(), self.stem.clone(), journal.bytes() + self.space_left);
        let (file, partial) = blocking(move || prepare(&folder, &stem, &name, needed)).await?;
        self.fill(journal, file, &partial).await?;
        let (folder, stem, kept, stop) =
            (self.folder.clone(), self.stem.clone(), self.kept, self.stop.clone());
        blocking(move || finish(partial, &folder, &stem, kept, stop)).await
    }

    /// Copies the journal into the file.
    async fn fill(&self, journal: &Journal, file: File, partial: &Partial) -> Result<(), BackupProblem> {
        let mut copying = journal.copy(partial.0.clone()).await?;
        let (mut copied, mut fresh_starts, mut idle_steps) = (0, 0, 0);
        for steps in 1_u32.. {
            let step = copying.step(PAGES_PER_STEP).await?;
            if step.left == 0 {
                break;
            }
            let now_copied = step.pages.saturating_sub(step.left);
            match now_copied.cmp(&copied) {
                Ordering::Less => fresh_starts += 1,
                Ordering::Equal => idle_steps += 1,
                Ordering::Greater => idle_steps = 0,
            }
            if fresh_starts > FRESH_STARTS || idle_steps > IDLE_STEPS {
                return Err(BackupProblem::Disturbed);
            }
            copied = now_copied;
            if steps.is_multiple_of(STEPS_PER_SYNC) {
                let (file, path) =
                    (file.try_clone().map_err(|e| unwritable(&partial.0, e))?, partial.0.clone());
                let space_left = self.space_left;
                blocking(move || {
                    file.sync_data().map_err(|e| unwritable(&path, e))?;
                    // Other programs use this disk too, and the journal most of all.
                    space(path.parent().unwrap_or(&path), space_left)
                })
                .await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn name(&self, now: WallTime) -> String {
        let now = jiff::Timestamp::from_millisecond(now.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{}-{}.db", self.stem, now.strftime("%Y-%m-%dT%H%M%SZ"))
    }
}

/// Makes the folder and an empty file, if there is enough space.
fn prepare(folder: &Path, stem: &str, name: &str, needed: u64) -> Result<(File, Partial), BackupProblem> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(|cause| {
        BackupProblem::Files {
            what: "the folder cannot be made:",
            path: folder.to_owned(),
            cause,
            next_step: "make it writable for the relay's user, or change maintenance.backup_dir",
        }
    })?;
    // The remains of a killed process.
    for name in names(folder)?.iter().filter(|name| stands_for(name, stem, PARTIAL)) {
        drop(Partial(folder.join(name)));
    }
    let partial = Partial(folder.join(format!("{name}.{PARTIAL}")));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&partial.0);
    let file = file.map_err(|e| unwritable(&partial.0, e))?;
    space(folder, needed)?;
    Ok((file, partial))
}

/// Examines the copy, gives it its name, and removes the oldest ones.
fn finish(
    partial: Partial,
    folder: &Path,
    stem: &str,
    kept: usize,
    stop: CancellationToken,
) -> Result<PathBuf, BackupProblem> {
    let path = &partial.0;
    let whole = path.with_extension("");
    let examined = examine_copy(path, move || stop.is_cancelled());
    match examined.map_err(CopyError::Failed)? {
        Examined::Sound => {}
        Examined::CutOff => return Err(BackupProblem::Stopped),
        Examined::Damaged(words) => return Err(set_aside(partial, folder, stem, words)?),
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(path, &whole))
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|e| unwritable(&whole, e))?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    remove_old(folder, stem, kept, &name)?;
    Ok(whole)
}

/// Keeps a damaged copy under a name that says so, for the repair of the journal. The first one is enough: it
/// is closest to the event.
fn set_aside(
    partial: Partial,
    folder: &Path,
    stem: &str,
    words: String,
) -> Result<BackupProblem, BackupProblem> {
    let before = names(folder)?.into_iter().find(|name| stands_for(name, stem, DAMAGED));
    let path = match before {
        Some(name) => folder.join(name),
        None => {
            let path = partial.0.with_extension(DAMAGED);
            fs::rename(&partial.0, &path).map_err(|e| unwritable(&path, e))?;
            path
        }
    };
    Ok(BackupProblem::Damaged { path, words })
}

/// Removes the oldest copies beyond the kept number; never the newest one, even if the clock was wrong.
fn remove_old(folder: &Path, stem: &str, kept: usize, newest: &str) -> Result<(), BackupProblem> {
    let mut others = names(folder)?;
    others.retain(|name| stands_for(name, stem, "") && name != newest);
    others.sort_unstable();
    let beyond = (others.len() + 1).saturating_sub(kept.max(1));
    for name in &others[..beyond.min(others.len())] {
        let path = folder.join(name);
        if let Err(error) = fs::remove_file(&path) {
            warn!(error_code = %ErrorCode::Backup, path = %path.display(), %error, "an old copy of the journal cannot be removed; remove it by hand");
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, BackupProblem> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(|cause| BackupProblem::Files {
        what: "the folder cannot be read:",
        path: folder.to_owned(),
        cause,
        next_step: "make it readable for the relay's user, or change maintenance.backup_dir",
    })
}

/// Whether a file is a copy of the journal of this stem, of this kind: `journal-2026-11-20T033000Z.db`, and what follows.
fn stands_for(name: &str, stem: &str, kind: &str) -> bool {
    let time = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
    let Some((time, rest)) = time.and_then(|rest| rest.split_once(".db")) else { return false };
    let shape = "0000-00-00T000000Z";
    let fits =
        |(given, shape): (char, char)| if shape == '0' { given.is_ascii_digit() } else { given == shape };
    let kind = if kind.is_empty() { String::new() } else { format!(".{kind}") };
    rest == kind && time.len() == shape.len() && time.chars().zip(shape.chars()).all(fits)
}

/// An error when less than `needed` bytes are free.
fn space(folder: &Path, needed: u64) -> Result<(), BackupProblem> {
    let space = rustix::fs::statvfs(folder).map_err(|cause| BackupProblem::Files {
        what: "the file system cannot be examined:",
        path: folder.to_owned(),
        cause: cause.into(),
        next_step: "check maintenance.backup_dir",
    })?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < needed {
        return Err(BackupProblem::NoSpace { path: folder.to_owned(), needed, free });
    }
    Ok(())
}

fn unwritable(path: &Path, cause: io::Error) -> BackupProblem {
    BackupProblem::Files {
        what: "it cannot be written:",
        path: path.to_owned(),
        cause,
        next_step: "check the disk, and the owner and the mode of the folder, or change maintenance.backup_dir",
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Runs blocking work where it delays no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
