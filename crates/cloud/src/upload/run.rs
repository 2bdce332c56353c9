//! Carries a plan's effects out: the shell of an upload.

mod content;
mod failures;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tencent_vod_event::SubAppId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::api::{Applied, Committed};
use super::plan::{
    Act, ApiFailure, PartProof, Shape, StoreFailure, UploadEffect, UploadInput, UploadOutcome, UploadPlan,
    UploadProgress, part_size,
};
use super::record::{HeldRecord, UploadRecord};
use super::source::{SourceError, SourceFile};
use crate::cos::digest::{PartDigests, combine};
use crate::cos::{self, StorageHost, Stored, Target};
use crate::{Client, Credentials};
use content::FilePiece;
use failures::{api_failure, store_failure};

/// How many parts are under way at once, unless somebody says another number: with 8 MiB a part, 32 MiB of memory.
pub const CONCURRENCY: u32 = 4;

/// What an upload works with.
#[derive(Debug)]
pub struct Work {
    /// The API.
    pub client: Client,
    /// The object storage.
    pub storage: cos::Client,
    /// What is known of the upload.
    pub record: UploadRecord,
    /// Where it is written down.
    pub held: HeldRecord,
    /// The medium's file.
    pub file: SourceFile,
    /// The files beside it, in the order of the record.
    pub others: Vec<SourceFile>,
    /// How many parts are under way at once.
    pub concurrency: u32,
}

/// How far an upload is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadFigures {
    /// Bytes of the medium that are stored, or were found stored.
    pub stored_bytes: u64,
    /// Bytes of the medium.
    pub bytes: u64,
    /// Parts that did not have to be sent, because an earlier process had sent them.
    pub kept_parts: u32,
    /// How often the upload began again, because its key or its parts were gone.
    pub restarts: u32,
    /// The last failure, in words, while a request is repeated for it.
    pub problem: Option<String>,
}

/// How an upload ended, and with which words if it did not end well.
#[derive(Debug)]
pub struct UploadEnd {
    /// The end.
    pub outcome: UploadOutcome,
    /// The last failure.
    pub error: Option<String>,
    /// The record as it was written last.
    pub record: UploadRecord,
    /// The hold on it.
    pub held: HeldRecord,
}

/// Uploads, from the beginning or from where the record is. `control` brings [`UploadInput::Pause`] and [`UploadInput::Cancel`];
/// `figures` is told how far it is.
pub async fn run(
    work: Work,
    mut control: mpsc::Receiver<UploadInput>,
    figures: watch::Sender<UploadFigures>,
) -> UploadEnd {
    let shape = Shape {
        size: work.file.identity().size,
        others: u32::try_from(work.others.len()).unwrap_or(u32::MAX),
        concurrency: work.concurrency.max(1),
    };
    let same_file = work.file.identity() == work.record.identity
        && work.others.iter().zip(&work.record.others).all(|(file, other)| file.identity() == other.identity);
    let (mut plan, mut effects) = match work.record.progress.clone() {
        None => UploadPlan::new(shape),
        Some(progress) => UploadPlan::resumed(shape, progress, same_file),
    };
    figures.send_modify(|figures| figures.bytes = shape.size);
    let hands = Arc::new(Hands::new(work, figures));
    let (sender, mut inputs) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let outcome = loop {
        if let Some(outcome) = hands.begin(&mut tasks, &sender, effects) {
            break outcome;
        }
        let input = tokio::select! {
            Some(input) = control.recv() => input,
            Some(input) = inputs.recv() => input,
        };
        effects = plan.step(hands.now_s(), input);
        hands.figures.send_modify(|figures| figures.restarts = plan.restarts());
    };
    // What is under way is dropped: whether it arrived is for the service to say, if anybody goes on.
    tasks.shutdown().await;
    let hands = Arc::into_inner(hands).expect("every task has ended");
    UploadEnd {
        outcome,
        error: hands.error.into_inner().unwrap_or_else(PoisonError::into_inner),
        record: hands.record.into_inner().unwrap_or_else(PoisonError::into_inner),
        held: hands.held,
    }
}

/// What carries effects out.
struct Hands {
    client: Client,
    storage: cos::Client,
    sub_app: SubAppId,
    record: Mutex<UploadRecord>,
    held: HeldRecord,
    file: Arc<SourceFile>,
    others: Vec<Arc<SourceFile>>,
    figures: watch::Sender<UploadFigures>,
    error: Mutex<Option<String>>,
    other_host: AtomicBool,
}

impl Hands {
    fn new(work: Work, figures: watch::Sender<UploadFigures>) -> Self {
        Self {
            client: work.client,
            storage: work.storage,
            sub_app: SubAppId(work.record.sub_app),
            record: Mutex::new(work.record),
            held: work.held,
            file: Arc::new(work.file),
            others: work.others.into_iter().map(Arc::new).collect(),
            figures,
            error: Mutex::new(None),
            other_host: AtomicBool::new(false),
        }
    }

    /// The time by the cloud's clock as far as it is known, in seconds since the Unix epoch.
    fn now_s(&self) -> i64 {
        let skew_ms = self.storage.clock_skew_ms().or_else(|| self.client.clock_skew_ms()).unwrap_or(0);
        vodrelay_host::wall_clock_ms().saturating_add(skew_ms).div_euclid(1_000)
    }

    /// Starts what effects ask for; the end, if one of them is it.
    fn begin(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        inputs: &mpsc::UnboundedSender<UploadInput>,
        effects: Vec<UploadEffect>,
    ) -> Option<UploadOutcome> {
        for UploadEffect { after, act } in effects {
            if let Act::Finish(outcome) = act {
                return Some(outcome);
            }
            let (hands, inputs) = (Arc::clone(self), inputs.clone());
            tasks.spawn(async move {
                tokio::time::sleep(jittered(after)).await;
                let input = hands.carry_out(act).await;
                // No one receives it after the end of the upload.
                let _ = inputs.send(input);
            });
        }
        while tasks.try_join_next().is_some() {}
        None
    }

    async fn carry_out(self: &Arc<Self>, act: Act) -> UploadInput {
        match act {
            Act::Apply => UploadInput::Applied(self.apply().await),
            Act::Save(progress) => self.save(*progress).await,
            Act::PutOther(number) => UploadInput::OtherPut(number, self.put_other(number).await),
            Act::PutWhole => UploadInput::WholePut(self.put_whole().await),
            Act::Initiate => {
                let begun = match self.target() {
                    Ok(target) => self.storage.initiate(&target).await.map_err(|error| self.failed(&error)),
                    Err(failure) => Err(failure),
                };
                UploadInput::Initiated(begun)
            }
            Act::List => UploadInput::Listed(self.list().await),
            Act::Part { number, stored, ask_first } => self.part(number, stored, ask_first).await,
            Act::CheckFile => UploadInput::FileChecked(self.check_files().await),
            Act::Complete(parts) => UploadInput::Completed(self.complete(parts).await),
            Act::Abort => {
                if let (Ok(target), Some(id)) = (self.target(), self.upload_id()) {
                    let _tried = self.storage.abort(&target, &id).await;
                }
                UploadInput::Aborted
            }
            Act::Commit => UploadInput::CommitAnswered(self.commit().await),
            Act::Finish(_) => unreachable!("the end is taken before"),
        }
    }

    async fn apply(&self) -> Result<Applied, ApiFailure> {
        let apply = self.record().apply.clone();
        let applied = self.client.apply_upload(self.sub_app, &apply).await;
        applied.map_err(|error| self.told(error.to_string(), api_failure(&error)))
    }

    async fn commit(&self) -> Result<Committed, ApiFailure> {
        let session = self.applied().map(|applied| applied.session_key).unwrap_or_default();
        let committed = self.client.commit_upload(self.sub_app, &session).await;
        committed.map_err(|error| self.told(error.to_string(), api_failure(&error)))
    }

    async fn save(self: &Arc<Self>, progress: UploadProgress) -> UploadInput {
        let hands = Arc::clone(self);
        let record = {
            let mut record = self.record();
            record.progress = Some(progress);
            record.clone()
        };
        // Not under the lock: other requests read the record while the disk is busy.
        let saved = blocking(move || hands.held.write(&record));
        match saved.await {
            Ok(()) => UploadInput::Saved,
            Err(error) => self.told(error.to_string(), UploadInput::SaveFailed),
        }
    }

    async fn put_other(&self, number: u32) -> Result<(), StoreFailure> {
        let applied = self.applied().ok_or(StoreFailure::Refused)?;
        let other = self.record().others.get(number as usize).cloned().ok_or(StoreFailure::Refused)?;
        let file = Arc::clone(self.others.get(number as usize).ok_or(StoreFailure::Refused)?);
        let key = match &other.beside {
            Some(name) => {
                let folder = applied.media_path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{name}")
            }
            None => applied.cover_path.clone().ok_or_else(|| {
                let words = "the cloud named no place for the cover; give its type by the end of its name";
                self.told(words.to_owned(), StoreFailure::Refused)
            })?,
        };
        let target = self.target_of(&applied, &key)?;
        let piece = FilePiece { offset: 0, length: file.identity().size };
        self.put_object(&target, &file, piece).await
    }

    async fn put_whole(&self) -> Result<(), StoreFailure> {
        let target = self.target()?;
        let piece = FilePiece { offset: 0, length: self.file.identity().size };
        self.put_object(&target, &self.file, piece).await?;
        self.stored(piece.length);
        Ok(())
    }

    async fn put_object(
        &self,
        target: &Target,
        file: &Arc<SourceFile>,
        piece: FilePiece,
    ) -> Result<(), StoreFailure> {
        let (content, digests) = self.content(file, piece).await?;
        let stored = self.storage.put_object(target, content).await.map_err(|error| self.failed(&error))?;
        self.agree(&stored, &digests())
    }

    async fn list(&self) -> Result<BTreeMap<u32, String>, StoreFailure> {
        let (target, id) = (self.target()?, self.upload_id().ok_or(StoreFailure::NoSuchUpload)?);
        let parts = self.storage.list_parts(&target, &id).await.map_err(|error| self.failed(&error))?;
        // One of another size is none of this file's.
        let fits = |part: &cos::ListedPart| part.size == self.piece(part.number).length;
        let parts = parts.into_iter().filter(fits).map(|part| (part.number, part.etag));
        Ok(parts.collect())
    }

    async fn part(self: &Arc<Self>, number: u32, stored: Option<String>, ask_first: bool) -> UploadInput {
        match self.try_part(number, stored, ask_first).await {
            Ok(Some(proof)) => {
                self.stored(self.piece(number).length);
                UploadInput::PartDone(number, Ok(proof))
            }
            Ok(None) => UploadInput::PartDiffers(number),
            Err(failure) => UploadInput::PartDone(number, Err(failure)),
        }
    }

    /// A part that the service has; `None` when it has another one than the file.
    async fn try_part(
        &self,
        number: u32,
        stored: Option<String>,
        ask_first: bool,
    ) -> Result<Option<PartProof>, StoreFailure> {
        let piece = self.piece(number);
        if let Some(etag) = stored {
            let digests = self.digests(&self.file, piece).await?;
            if !etag.eq_ignore_ascii_case(&digests.etag()) {
                return Ok(None);
            }
            self.figures.send_modify(|figures| figures.kept_parts += 1);
            return Ok(Some(PartProof { etag, crc64: digests.crc64 }));
        }
        let (target, id) = (self.target()?, self.upload_id().ok_or(StoreFailure::NoSuchUpload)?);
        if ask_first {
            let page = self.storage.list_parts_page(&target, &id, number - 1).await;
            let page = page.map_err(|error| self.failed(&error))?;
            if let Some(part) = page.parts.into_iter().find(|part| part.number == number) {
                let digests = self.digests(&self.file, piece).await?;
                if part.etag.eq_ignore_ascii_case(&digests.etag()) {
                    return Ok(Some(PartProof { etag: part.etag, crc64: digests.crc64 }));
                }
            }
        }
        let (content, digests) = self.content(&self.file, piece).await?;
        let sent = self.storage.put_part(&target, &id, number, content).await;
        let sent = sent.map_err(|error| self.failed(&error))?;
        let digests = digests();
        self.agree(&sent, &digests)?;
        Ok(Some(PartProof { etag: sent.etag, crc64: digests.crc64 }))
    }

    async fn complete(&self, parts: BTreeMap<u32, PartProof>) -> Result<(), StoreFailure> {
        let (target, id) = (self.target()?, self.upload_id().ok_or(StoreFailure::NoSuchUpload)?);
        let whole = parts
            .iter()
            .fold(0, |crc64, (number, proof)| combine(crc64, proof.crc64, self.piece(*number).length));
        let listed = parts.iter().map(|(number, proof)| (*number, proof.etag.as_str()));
        let done = self.storage.complete(&target, &id, listed).await.map_err(|error| self.failed(&error))?;
        match done.crc64 {
            Some(crc64) if crc64 != whole => {
                let words = format!(
                    "the object storage has another file than this host: CRC-64 {crc64} there, {whole} here; nothing was committed; \
                     upload it again"
                );
                Err(self.told(words, StoreFailure::Refused))
            }
            _ => Ok(()),
        }
    }

    async fn check_files(self: &Arc<Self>) -> bool {
        let hands = Arc::clone(self);
        let checked = blocking(move || {
            hands.file.check()?;
            hands.others.iter().try_for_each(|other| other.check())
        });
        checked.await.map_err(|error: SourceError| self.told(error.to_string(), ())).is_ok()
    }

    /// The part of the file that a part of the upload is.
    fn piece(&self, number: u32) -> FilePiece {
        let (size, part) = (self.file.identity().size, part_size(self.file.identity().size));
        let offset = u64::from(number.saturating_sub(1)) * part;
        FilePiece { offset, length: part.min(size.saturating_sub(offset)) }
    }

    fn stored(&self, bytes: u64) {
        self.figures.send_modify(|figures| {
            figures.stored_bytes = (figures.stored_bytes + bytes).min(figures.bytes);
            figures.problem = None;
        });
    }

    fn agree(&self, stored: &Stored, sent: &PartDigests) -> Result<(), StoreFailure> {
        if stored.agrees_with(sent) {
            return Ok(());
        }
        let words = "the object storage stored other bytes than were sent; they are sent again";
        Err(self.told(words.to_owned(), StoreFailure::Later))
    }

    fn target(&self) -> Result<Target, StoreFailure> {
        let applied = self.applied().ok_or(StoreFailure::Refused)?;
        self.target_of(&applied, &applied.media_path)
    }

    fn target_of(&self, applied: &Applied, key: &str) -> Result<Target, StoreFailure> {
        let credentials = Credentials::from(&applied.credential);
        let target = Target::new(&applied.bucket, &applied.region, key, Arc::new(credentials));
        let target = target.map_err(|error| self.told(error.to_string(), StoreFailure::Refused))?;
        let backup = self.other_host.load(Ordering::Relaxed);
        Ok(if backup { target.at(StorageHost::Backup) } else { target })
    }

    fn applied(&self) -> Option<Applied> {
        self.record().progress.as_ref().map(|progress| progress.applied.clone())
    }

    fn upload_id(&self) -> Option<String> {
        self.record().progress.as_ref().and_then(|progress| progress.upload_id.clone())
    }

    fn record(&self) -> std::sync::MutexGuard<'_, UploadRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &cos::StorageError) -> StoreFailure {
        if error.try_other_host {
            self.other_host.fetch_xor(true, Ordering::Relaxed);
        }
        self.told(error.to_string(), store_failure(error))
    }

    fn source_failed(&self, error: &SourceError) -> StoreFailure {
        self.told(error.to_string(), StoreFailure::File)
    }

    /// Keeps the words of a failure, and hands on what the plan is told of it.
    fn told<T>(&self, words: String, what: T) -> T {
        self.figures.send_modify(|figures| figures.problem = Some(words.clone()));
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        what
    }
}

/// Runs what blocks beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Between half and all of a wait, so that many clients do not come back together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}
