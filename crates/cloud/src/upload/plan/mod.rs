//! What an upload does next, decided without I/O: `step(now, input) -> effects`.
//!
//! ```text
//! Apply -> Save -> (objects beside the medium) -> Initiate -> Save -> parts -> CheckFile -> Save -> Complete -> Save -> Commit -> Save
//! ```
//!
//! Order is what keeps the promises:
//!
//! - The session is saved before anything is stored under it, and the id of a multipart upload before a part of it is sent: a process that
//!   is killed can be followed by one that goes on.
//! - The list of parts that the object storage has is the truth. A part of it is read again from the file, and compared by its MD5, but not
//!   sent again.
//! - The file is looked at again before it is completed. One that changed is not committed.
//! - "Completing" and "committing" are saved before the request leaves, so a later process knows that the request may have taken effect.
//!   `CommitUpload` is only ever repeated with the same session key: one upload never becomes two media.

#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use types::{
    Act, ApiFailure, Failed, PartProof, Phase, Shape, StoreFailure, UploadEffect, UploadInput, UploadOutcome,
    UploadProgress,
};

/// From this size on a file is sent in parts: a smaller one saves two requests.
pub const WHOLE_BELOW: u64 = 8 * MIB;
/// The most parts of one object ("Upload Part", COS documents).
pub const MOST_PARTS: u64 = 10_000;
/// The largest file that can be uploaded from a server: 50,000 GB ("Media upload", VOD documents).
pub const LARGEST_FILE: u64 = 50_000 * 1_000_000_000;
const MIB: u64 = 1024 * 1024;

/// A temporary key that ends sooner than this is not used for another part.
const KEY_RESERVE_SECONDS: i64 = 30;
/// How often one request is made before the upload fails.
const MOST_TRIES: u32 = 8;
/// How often the whole upload begins again, when its key or its parts are gone.
const MOST_RESTARTS: u32 = 1;

/// The size of a part: 8 MiB, or more where a file would have more than 10,000 of them; whole MiB.
pub fn part_size(file_size: u64) -> u64 {
    file_size.div_ceil(MOST_PARTS).next_multiple_of(MIB).max(WHOLE_BELOW)
}

/// What the plan waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Applying,
    SavingSession,
    Others,
    Whole,
    Initiating,
    SavingUpload,
    Listing,
    Parts,
    Checking,
    SavingCompletion,
    Completing,
    SavingCommit,
    Committing,
    SavingResult,
    Aborting(AfterAbort),
    Finished,
}

/// What follows an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterAbort {
    FileChanged,
    Cancelled,
    Refused,
    Restart,
}

/// The state machine.
#[derive(Debug)]
pub struct UploadPlan {
    shape: Shape,
    step: Step,
    progress: Option<UploadProgress>,
    /// Parts to be read still, with what the service has of them.
    open: BTreeMap<u32, Option<String>>,
    /// Parts under way.
    under_way: BTreeSet<u32>,
    done: BTreeMap<u32, PartProof>,
    /// Parts that failed: how often, and whether the service may have them.
    tries: BTreeMap<u32, (u32, bool)>,
    /// Failures in a row of the request that is under way.
    failures: u32,
    restarts: u32,
    /// Whether a `Complete` went unanswered, now or in an earlier process.
    maybe_complete: bool,
    /// Whether a `CommitUpload` went unanswered, now or in an earlier process.
    maybe_committed: bool,
    /// What a person wanted while the id of the multipart upload was on its way.
    asked_meanwhile: Option<UploadInput>,
    /// What is done after the parts under way have ended.
    closing: Option<AfterAbort>,
}

impl UploadPlan {
    /// An upload that begins, and what it does first.
    pub fn new(shape: Shape) -> (Self, Vec<UploadEffect>) {
        let plan = Self {
            shape,
            step: Step::Applying,
            progress: None,
            open: BTreeMap::new(),
            under_way: BTreeSet::new(),
            done: BTreeMap::new(),
            tries: BTreeMap::new(),
            failures: 0,
            restarts: 0,
            maybe_complete: false,
            maybe_committed: false,
            asked_meanwhile: None,
            closing: None,
        };
        (plan, vec![now(Act::Apply)])
    }

    /// An upload that goes on from what an earlier process saved, and what it does first. `same_file` says whether the file is the one
    /// that it was then.
    pub fn resumed(shape: Shape, progress: UploadProgress, same_file: bool) -> (Self, Vec<UploadEffect>) {
        let (mut plan, _) = Self::new(shape);
        plan.maybe_complete = progress.phase == Phase::Completing;
        plan.maybe_committed = progress.phase == Phase::Committing;
        let (phase, proven) = (progress.phase.clone(), progress.proven);
        plan.progress = Some(progress);
        let effects = match phase {
            Phase::Sending | Phase::Completing if !same_file => plan.abort(AfterAbort::FileChanged),
            Phase::Sending => plan.send_others(),
            Phase::Completing => plan.go(Step::Listing, Act::List),
            Phase::Committing => plan.go(Step::Committing, Act::Commit),
            Phase::Committed(medium) => plan.finish(UploadOutcome::Committed { medium, proven }),
        };
        (plan, effects)
    }

    /// How often the upload began again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes what happened at `now_s` (seconds since the Unix epoch, by the cloud's clock as far as it is known) and says what
    /// shall be done.
    pub fn step(&mut self, now_s: i64, input: UploadInput) -> Vec<UploadEffect> {
        match (self.step, input) {
            (Step::Finished, _) => Vec::new(),
            // An upload whose id is not known cannot be removed.
            (Step::Initiating | Step::SavingUpload, input @ (UploadInput::Pause | UploadInput::Cancel)) => {
                self.asked_meanwhile = Some(input);
                Vec::new()
            }
            (_, UploadInput::Pause) => self.pause(),
            (Step::Aborting(_) | Step::Committing | Step::SavingResult, UploadInput::Cancel) => Vec::new(),
            (_, UploadInput::Cancel) => self.abort(AfterAbort::Cancelled),
            (Step::Aborting(end), input) => self.after_abort(end, &input),
            (_, UploadInput::SaveFailed) => self.finish(UploadOutcome::Failed(Failed::GaveUp)),
            (Step::Applying, UploadInput::Applied(Ok(applied))) => {
                self.progress = Some(UploadProgress {
                    applied,
                    applied_at: now_s,
                    upload_id: None,
                    others_done: 0,
                    proven: false,
                    phase: Phase::Sending,
                });
                self.save(Step::SavingSession)
            }
            (Step::Applying, UploadInput::Applied(Err(failure))) => self.api_failed(Act::Apply, failure),
            (Step::SavingSession, UploadInput::Saved) => self.send_others(),
            (Step::Others, UploadInput::OtherPut(number, Ok(()))) => {
                self.failures = 0;
                self.progress_mut().others_done = number + 1;
                self.save(Step::SavingSession)
            }
            (Step::Others, UploadInput::OtherPut(number, Err(failure))) => {
                self.store_failed(Act::PutOther(number), failure)
            }
            (Step::Whole, UploadInput::WholePut(Ok(()))) => {
                self.progress_mut().proven = true;
                self.go(Step::Checking, Act::CheckFile)
            }
            (Step::Whole, UploadInput::WholePut(Err(failure))) => self.store_failed(Act::PutWhole, failure),
            (Step::Initiating, UploadInput::Initiated(Ok(id))) => {
                self.progress_mut().upload_id = Some(id);
                self.save(Step::SavingUpload)
            }
            (Step::Initiating, UploadInput::Initiated(Err(failure))) => {
                self.store_failed(Act::Initiate, failure)
            }
            (Step::SavingUpload, UploadInput::Saved) => match self.asked_meanwhile.take() {
                Some(UploadInput::Cancel) => self.abort(AfterAbort::Cancelled),
                Some(_) => self.pause(),
                None => self.send_parts(now_s, &BTreeMap::new()),
            },
            (Step::Listing, UploadInput::Listed(Ok(stored))) => self.send_parts(now_s, &stored),
            (Step::Listing, UploadInput::Listed(Err(StoreFailure::NoSuchUpload))) if self.maybe_complete => {
                self.commit()
            }
            (Step::Listing, UploadInput::Listed(Err(failure))) => self.store_failed(Act::List, failure),
            (Step::Parts, input) => self.part_ended(now_s, input),
            (Step::Checking, UploadInput::FileChecked(true)) => {
                if self.shape.parts() == 0 {
                    return self.commit();
                }
                self.progress_mut().phase = Phase::Completing;
                self.save(Step::SavingCompletion)
            }
            (Step::Checking, UploadInput::FileChecked(false)) => self.abort(AfterAbort::FileChanged),
            (Step::SavingCompletion, UploadInput::Saved) => {
                self.go(Step::Completing, Act::Complete(self.done.clone()))
            }
            (Step::Completing, UploadInput::Completed(Ok(()))) => {
                self.progress_mut().proven = true;
                self.commit()
            }
            (Step::Completing, UploadInput::Completed(Err(failure))) => self.completion_failed(failure),
            (Step::SavingCommit | Step::Committing | Step::SavingResult, input) => self.commit_ended(input),
            // An answer that came too late: a part of an upload that is given up, for example.
            _ => Vec::new(),
        }
    }

    fn progress_mut(&mut self) -> &mut UploadProgress {
        self.progress.as_mut().expect("no step after `Applying` is reached without a session")
    }

    fn go(&mut self, step: Step, act: Act) -> Vec<UploadEffect> {
        (self.step, self.failures) = (step, 0);
        vec![now(act)]
    }

    fn save(&mut self, step: Step) -> Vec<UploadEffect> {
        let progress = self.progress_mut().clone();
        self.go(step, Act::Save(Box::new(progress)))
    }

    fn finish(&mut self, outcome: UploadOutcome) -> Vec<UploadEffect> {
        self.go(Step::Finished, Act::Finish(outcome))
    }

    fn pause(&mut self) -> Vec<UploadEffect> {
        // What is saved is what a later process goes on from, whatever is under way.
        self.finish(UploadOutcome::Paused)
    }

    fn send_others(&mut self) -> Vec<UploadEffect> {
        let done = self.progress_mut().others_done;
        if done < self.shape.others {
            return self.go(Step::Others, Act::PutOther(done));
        }
        if self.shape.parts() == 0 {
            return self.go(Step::Whole, Act::PutWhole);
        }
        match self.progress_mut().upload_id {
            Some(_) => self.go(Step::Listing, Act::List),
            None => self.go(Step::Initiating, Act::Initiate),
        }
    }

    fn send_parts(&mut self, now_s: i64, stored: &BTreeMap<u32, String>) -> Vec<UploadEffect> {
        (self.step, self.failures) = (Step::Parts, 0);
        self.open = (1..=self.shape.parts()).map(|number| (number, stored.get(&number).cloned())).collect();
        (self.done, self.tries) = (BTreeMap::new(), BTreeMap::new());
        self.more_parts(now_s)
    }

    /// Reads on, in the order of the file, as far as may be under way at once.
    fn more_parts(&mut self, now_s: i64) -> Vec<UploadEffect> {
        if let Some(end) = self.closing {
            return if self.under_way.is_empty() { self.abort(end) } else { Vec::new() };
        }
        let mut effects = Vec::new();
        while self.under_way.len() < self.shape.concurrency as usize
            && let Some((&number, stored)) = self.open.first_key_value()
        {
            // A part that is there already needs no key.
            if stored.is_none()
                && self.progress_mut().applied.credential.expires_at - now_s < KEY_RESERVE_SECONDS
            {
                self.closing = Some(AfterAbort::Restart);
                break;
            }
            let stored = self.open.remove(&number).flatten();
            self.under_way.insert(number);
            effects.push(now(Act::Part { number, stored, ask_first: false }));
        }
        if self.closing.is_some() && self.under_way.is_empty() {
            return self.abort(AfterAbort::Restart);
        }
        if self.open.is_empty() && self.under_way.is_empty() {
            return self.go(Step::Checking, Act::CheckFile);
        }
        effects
    }

    fn part_ended(&mut self, now_s: i64, input: UploadInput) -> Vec<UploadEffect> {
        match input {
            UploadInput::PartDone(number, Ok(proof)) => self.part_done(now_s, number, proof),
            UploadInput::PartDone(number, Err(failure)) => self.part_failed(now_s, number, failure),
            UploadInput::PartDiffers(number) => {
                self.under_way.remove(&number);
                self.open.insert(number, None);
                self.more_parts(now_s)
            }
            _ => Vec::new(),
        }
    }

    fn part_done(&mut self, now_s: i64, number: u32, proof: PartProof) -> Vec<UploadEffect> {
        self.under_way.remove(&number);
        self.tries.remove(&number);
        self.done.insert(number, proof);
        self.more_parts(now_s)
    }

    fn part_failed(&mut self, now_s: i64, number: u32, failure: StoreFailure) -> Vec<UploadEffect> {
        if failure == StoreFailure::SlowDown {
            self.shape.concurrency = (self.shape.concurrency / 2).max(1);
        }
        match failure {
            StoreFailure::Unanswered | StoreFailure::Later | StoreFailure::SlowDown => {
                let (tries, ask_first) = self.tries.entry(number).or_default();
                *tries += 1;
                *ask_first |= failure == StoreFailure::Unanswered;
                let (tries, ask_first) = (*tries, *ask_first);
                if tries >= MOST_TRIES {
                    return self.finish(UploadOutcome::Failed(Failed::GaveUp));
                }
                if self.closing.is_some() {
                    self.under_way.remove(&number);
                    return self.more_parts(now_s);
                }
                vec![UploadEffect { after: wait(tries), act: Act::Part { number, stored: None, ask_first } }]
            }
            StoreFailure::KeyOver | StoreFailure::NoSuchUpload => {
                self.close(now_s, number, AfterAbort::Restart)
            }
            StoreFailure::File => self.close(now_s, number, AfterAbort::FileChanged),
            StoreFailure::Refused => self.close(now_s, number, AfterAbort::Refused),
        }
    }

    /// Waits for the other parts under way: an abort under them would leave what they store.
    fn close(&mut self, now_s: i64, number: u32, end: AfterAbort) -> Vec<UploadEffect> {
        self.under_way.remove(&number);
        self.closing.get_or_insert(end);
        self.more_parts(now_s)
    }

    fn abort(&mut self, end: AfterAbort) -> Vec<UploadEffect> {
        self.closing = None;
        let has_upload = self.progress.as_ref().is_some_and(|progress| progress.upload_id.is_some());
        self.step = Step::Aborting(end);
        if has_upload { vec![now(Act::Abort)] } else { self.after_abort(end, &UploadInput::Aborted) }
    }

    fn after_abort(&mut self, end: AfterAbort, input: &UploadInput) -> Vec<UploadEffect> {
        if *input != UploadInput::Aborted {
            return Vec::new();
        }
        match end {
            AfterAbort::FileChanged => self.finish(UploadOutcome::Failed(Failed::FileChanged)),
            AfterAbort::Cancelled => self.finish(UploadOutcome::Cancelled),
            AfterAbort::Refused => self.finish(UploadOutcome::Failed(Failed::Refused)),
            AfterAbort::Restart if self.restarts < MOST_RESTARTS => {
                self.restarts += 1;
                (self.progress, self.maybe_complete) = (None, false);
                self.under_way.clear();
                self.go(Step::Applying, Act::Apply)
            }
            AfterAbort::Restart => self.finish(UploadOutcome::Failed(Failed::KeyOver)),
        }
    }

    fn commit(&mut self) -> Vec<UploadEffect> {
        self.progress_mut().phase = Phase::Committing;
        self.save(Step::SavingCommit)
    }

    fn api_failed(&mut self, act: Act, failure: ApiFailure) -> Vec<UploadEffect> {
        match failure {
            ApiFailure::Unanswered | ApiFailure::Later => self.again(act),
            ApiFailure::UnknownSession | ApiFailure::Refused => {
                self.finish(UploadOutcome::Failed(Failed::Refused))
            }
        }
    }

    fn store_failed(&mut self, act: Act, failure: StoreFailure) -> Vec<UploadEffect> {
        match failure {
            StoreFailure::Unanswered | StoreFailure::Later | StoreFailure::SlowDown => self.again(act),
            StoreFailure::KeyOver | StoreFailure::NoSuchUpload => self.abort(AfterAbort::Restart),
            StoreFailure::File => self.abort(AfterAbort::FileChanged),
            StoreFailure::Refused => self.abort(AfterAbort::Refused),
        }
    }

    fn again(&mut self, act: Act) -> Vec<UploadEffect> {
        self.failures += 1;
        match self.asked_meanwhile.take() {
            Some(UploadInput::Cancel) => return self.abort(AfterAbort::Cancelled),
            Some(_) => return self.pause(),
            None => {}
        }
        if self.failures >= MOST_TRIES {
            return self.finish(UploadOutcome::Failed(Failed::GaveUp));
        }
        vec![UploadEffect { after: wait(self.failures), act }]
    }

    fn completion_failed(&mut self, failure: StoreFailure) -> Vec<UploadEffect> {
        match failure {
            StoreFailure::Unanswered => {
                self.maybe_complete = true;
                self.again(Act::Complete(self.done.clone()))
            }
            // A second completion of what is complete is answered so.
            StoreFailure::NoSuchUpload if self.maybe_complete => self.commit(),
            failure => self.store_failed(Act::Complete(self.done.clone()), failure),
        }
    }

    fn commit_ended(&mut self, input: UploadInput) -> Vec<UploadEffect> {
        match (self.step, input) {
            (Step::SavingCommit, UploadInput::Saved) => self.go(Step::Committing, Act::Commit),
            (Step::Committing, UploadInput::CommitAnswered(Ok(medium))) => {
                self.progress_mut().phase = Phase::Committed(medium);
                self.save(Step::SavingResult)
            }
            (Step::Committing, UploadInput::CommitAnswered(Err(failure))) => self.commit_failed(failure),
            (Step::SavingResult, UploadInput::Saved) => match self.progress_mut().phase.clone() {
                Phase::Committed(medium) => {
                    let proven = self.progress_mut().proven;
                    self.finish(UploadOutcome::Committed { medium, proven })
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn commit_failed(&mut self, failure: ApiFailure) -> Vec<UploadEffect> {
        match failure {
            ApiFailure::Unanswered | ApiFailure::Later => {
                self.maybe_committed |= failure == ApiFailure::Unanswered;
                self.failures += 1;
                if self.failures < MOST_TRIES {
                    return vec![UploadEffect { after: wait(self.failures), act: Act::Commit }];
                }
                let outcome = if self.maybe_committed {
                    UploadOutcome::PerhapsCommitted
                } else {
                    UploadOutcome::Failed(Failed::GaveUp)
                };
                self.finish(outcome)
            }
            ApiFailure::UnknownSession if self.maybe_committed => {
                self.finish(UploadOutcome::PerhapsCommitted)
            }
            ApiFailure::UnknownSession | ApiFailure::Refused => {
                self.finish(UploadOutcome::Failed(Failed::Refused))
            }
        }
    }
}

/// How long to wait after so many failures in a row; the shell adds chance to it.
fn wait(failures: u32) -> Duration {
    Duration::from_millis(500 << failures.min(6))
}

fn now(act: Act) -> UploadEffect {
    UploadEffect { after: Duration::ZERO, act }
}
