//! A copy of the journal, made while the writer works.
//!
//! SQLite's backup copies the file's pages a few at a time. On a connection of its own it would start again
//! at each commit of the writer. `VACUUM INTO` would keep the WAL from being copied back until it ends. So
//! the writer itself copies some pages between two transactions, on request. SQLite then puts later changes
//! into the copy as well, and holds nothing in between. The pages come as they are, damage included, so an
//! examination of the copy finds it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::Closed;
use super::damage;
use super::queue::Queued;
use super::schema::{self, Found};

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The writer is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// SQLite could not read the journal or write the copy.
    #[error("{0}")]
    Failed(rusqlite::Error),
    /// The copy has ended, or another one was begun.
    #[error("the copy has ended already")]
    Over,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStep {
    /// Pages that the journal has.
    pub pages: u64,
    /// Pages that are not in the copy yet. None means that the copy is complete and its file is closed.
    pub left: u64,
}

/// A copy in progress. When it is dropped before its end, the writer closes the file.
#[derive(Debug)]
pub struct Copying {
    requests: mpsc::UnboundedSender<Queued>,
    /// While this lives, the copy is wanted.
    wanted: Arc<()>,
}

type CopyReply = oneshot::Sender<Result<CopyStep, rusqlite::Error>>;

/// Requests to the writer between its transactions.
#[derive(Debug)]
pub(super) enum CopyCommand {
    /// A new copy.
    Begin(Begin),
    /// More pages.
    Step(More),
    /// The copy is no longer wanted.
    End,
}

#[derive(Debug)]
pub(super) struct Begin {
    to: PathBuf,
    wanted: Weak<()>,
    reply: CopyReply,
}

#[derive(Debug)]
pub(super) struct More {
    pages: u16,
    /// Which copy is meant.
    of: Weak<()>,
    reply: CopyReply,
}

impl Copying {
    pub(super) async fn begin(
        requests: mpsc::UnboundedSender<Queued>,
        to: PathBuf,
    ) -> Result<Self, CopyError> {
        let wanted = Arc::new(());
        let (reply, answer) = oneshot::channel();
        let begin = Begin { to, wanted: Arc::downgrade(&wanted), reply };
        let copying = Self { requests, wanted };
        copying.ask(CopyCommand::Begin(begin), answer).await?;
        Ok(copying)
    }

    /// Copies up to `pages` pages more. Expensive: it blocks the writer. A few hundred pages take a
    /// millisecond.
    ///
    /// A step can leave more than the one before it: the journal grew, or another program wrote to it and the
    /// copy started again.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; the copy is over then.
    pub async fn step(&mut self, pages: u16) -> Result<CopyStep, CopyError> {
        let (reply, answer) = oneshot::channel();
        let more = More { pages, of: Arc::downgrade(&self.wanted), reply };
        self.ask(CopyCommand::Step(more), answer).await
    }

    async fn ask(
        &self,
        command: CopyCommand,
        answer: oneshot::Receiver<Result<CopyStep, rusqlite::Error>>,
    ) -> Result<CopyStep, CopyError> {
        self.requests.send(Queued::Copy(command)).map_err(|_| Closed)?;
        match answer.await {
            Ok(step) => step.map_err(CopyError::Failed),
            Err(_) if self.requests.is_closed() => Err(Closed.into()),
            Err(_) => Err(CopyError::Over),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // A full queue has work for a writer that will notice on its own.
        let _ = self.requests.send(Queued::Copy(CopyCommand::End));
    }
}

impl Begin {
    /// Opens the copy's file and lets `work` continue with it. `None` when the file could not be opened.
    pub(super) fn run<T, E>(
        self,
        journal: &Connection,
        work: impl FnOnce(&mut Copy<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let Self { to, wanted, reply } = self;
        let mut file = match open(&to) {
            Ok(file) => file,
            Err(cause) => {
                let _ = reply.send(Err(cause));
                return Ok(None);
            }
        };
        let (done, over) = match Backup::new(journal, &mut file) {
            Ok(backup) => {
                let _ = reply.send(Ok(CopyStep { pages: 0, left: 0 }));
                let mut copy = Copy { backup, wanted, over: None };
                let done = work(&mut copy);
                (done.map(Some), copy.over)
            }
            Err(cause) => (Ok(None), Some((reply, Err(cause)))),
        };
        // The receiver of the end can open the file.
        drop(file);
        if let Some((reply, result)) = over {
            let _ = reply.send(result);
        }
        done
    }
}

/// The writer's side of a copy.
pub(super) struct Copy<'a> {
    backup: Backup<'a, 'a>,
    wanted: Weak<()>,
    /// How it ended, and who waits for that.
    over: Option<(CopyReply, Result<CopyStep, rusqlite::Error>)>,
}

impl fmt::Debug for Copy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Copy<'_> {
    /// Whether it is still wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.strong_count() > 0
    }

    /// Copies some pages. False when the copy is over.
    pub(super) fn step(&mut self, more: More) -> bool {
        if !Weak::ptr_eq(&more.of, &self.wanted) {
            return self.is_wanted();
        }
        let stepped = self.backup.step(more.pages.max(1).into());
        let progress = self.backup.progress();
        let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
        let step = CopyStep { pages: count(progress.pagecount), left: count(progress.remaining) };
        match stepped {
            Ok(StepResult::Done) => self.over = Some((more.reply, Ok(CopyStep { left: 0, ..step }))),
            Err(cause) => self.over = Some((more.reply, Err(cause))),
            // Another program holds a lock for a moment, or there is more to do. The last page can be copied
            // before the copy has ended.
            Ok(_) => {
                let _ = more.reply.send(Ok(CopyStep { left: step.left.max(1), ..step }));
            }
        }
        self.over.is_none()
    }
}

/// An incomplete copy is useless, so nothing of it is synced or logged here.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    Ok(conn)
}

/// The condition of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// A journal whose pages are in order.
    Sound,
    /// Damaged, and so probably is the journal; with SQLite's words.
    Damaged(String),
    /// Unknown: the examination was cut off.
    CutOff,
}

/// Examines every page of a finished copy until `is_over`, and makes it readable on a read-only disk. Blocks
/// on the disk, for about a second for each gigabyte.
///
/// # Errors
///
/// SQLite's error of the file or the disk, if it is not damage.
pub fn examine_copy(
    path: &Path,
    is_over: impl FnMut() -> bool + Send + 'static,
) -> Result<Examined, rusqlite::Error> {
    let examined = (|| {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags)?;
        // No other process has it open, so nothing has to be shared.
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        if schema::examine(&conn)? != Found::Version(schema::VERSION) {
            return Ok(Examined::Damaged("it is no journal".to_owned()));
        }
        if !damage::look_until(&mut conn, is_over)? {
            return Ok(Examined::CutOff);
        }
        conn.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        // A copy that is written over the journal's own file has no other sign.
        conn.execute("UPDATE origin SET is_backup = 1", [])?;
        Ok(Examined::Sound)
    })();
    examined.or_else(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            Ok(Examined::Damaged(error.to_string()))
        }
        _ => Err(error),
    })
}
