//! The plan in a simulated cloud: lost answers, failures, kills, keys that end, files that change; by the thousand seeds.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::upload::api::{Applied, Committed, TempCredential};

/// What a deliberate bug does to the plan's effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A new session is asked for when a commit was not answered.
    ApplyAfterLostCommit,
    /// A later process sends what the service has.
    SendsAgain,
    /// An unanswered part is sent again without a question.
    DoesNotAsk,
    /// The file is not looked at before the completion.
    NoFinalCheck,
    /// "Committing" is not saved before the request.
    CommitsUnsaved,
    /// The id of the multipart upload is not saved.
    ForgetsUpload,
}

#[derive(Clone, Default)]
struct Multipart {
    /// The version of the file that each part was read from.
    parts: BTreeMap<u32, u64>,
}

/// The cloud, the file and the disk.
struct World {
    rng: fastrand::Rng,
    now_s: i64,
    shape: Shape,
    bug: Option<Bug>,
    /// Versions of the file; each change makes another one.
    version: u64,
    saved: Option<UploadProgress>,
    saved_version: u64,
    sessions: u32,
    uploads: BTreeMap<String, Multipart>,
    /// The object of each session: the versions of its parts.
    objects: BTreeMap<String, Vec<u64>>,
    /// The media: of which session, and what versions the file had.
    media: BTreeMap<String, Vec<u64>>,
    /// Whether a second commit of one session answers as the first did.
    idempotent: bool,
    calm: bool,
    kills: u32,
    violation: Option<String>,
}

/// What became of a request.
enum Fate {
    Done,
    /// Done, and the answer lost.
    Lost,
    /// Not done, and no answer.
    Never,
    Later,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let parts = rng.u64(0..6);
        let size =
            if parts == 0 { rng.u64(1..WHOLE_BELOW) } else { parts * WHOLE_BELOW + rng.u64(0..WHOLE_BELOW) };
        let shape = Shape { size, others: rng.u32(0..3), concurrency: rng.u32(1..4) };
        let idempotent = rng.bool();
        Self {
            rng,
            now_s: 1_000_000,
            shape,
            bug,
            version: 1,
            saved: None,
            saved_version: 1,
            sessions: 0,
            uploads: BTreeMap::new(),
            objects: BTreeMap::new(),
            media: BTreeMap::new(),
            idempotent,
            calm: false,
            kills: 0,
            violation: None,
        }
    }

    fn broken(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn fate(&mut self) -> Fate {
        match self.rng.u32(0..12) {
            0 if !self.calm => Fate::Lost,
            1 if !self.calm => Fate::Never,
            2 if !self.calm => Fate::Later,
            _ => Fate::Done,
        }
    }

    /// What a request to the object storage comes to; `act` is done unless it never arrives.
    fn stored<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, StoreFailure>,
    ) -> Result<T, StoreFailure> {
        let key_over =
            self.saved.as_ref().is_some_and(|saved| saved.applied.credential.expires_at <= self.now_s);
        if key_over {
            return Err(StoreFailure::KeyOver);
        }
        match self.fate() {
            Fate::Done => act(self),
            Fate::Lost => {
                let _ = act(self);
                Err(StoreFailure::Unanswered)
            }
            Fate::Never => Err(StoreFailure::Unanswered),
            Fate::Later => Err(StoreFailure::Later),
        }
    }

    fn session(&self) -> String {
        self.saved.as_ref().map(|saved| saved.applied.session_key.clone()).unwrap_or_default()
    }

    fn upload_id(&self, plan: &UploadPlan) -> String {
        plan.progress.as_ref().and_then(|progress| progress.upload_id.clone()).unwrap_or_default()
    }

    fn put_part(&mut self, id: &str, number: u32, version: u64) -> Result<PartProof, StoreFailure> {
        self.stored(|world| {
            let already =
                world.uploads.get(id).is_some_and(|upload| upload.parts.get(&number) == Some(&version));
            if already {
                world.broken(format!("part {number} of {id} was sent again"));
            }
            let upload = world.uploads.get_mut(id).ok_or(StoreFailure::NoSuchUpload)?;
            upload.parts.insert(number, version);
            Ok(proof(version))
        })
    }

    fn act(&mut self, plan: &UploadPlan, act: Act) -> UploadInput {
        self.now_s += self.rng.i64(0..20);
        if !self.calm && self.rng.u32(0..60) == 0 {
            self.version += 1;
        }
        let id = self.upload_id(plan);
        match act {
            Act::Apply => {
                let applied = match self.fate() {
                    Fate::Done => {
                        self.sessions += 1;
                        // Some keys end before the upload does.
                        let life = if self.calm || self.rng.bool() { 100_000 } else { self.rng.i64(40..400) };
                        Ok(applied(self.sessions, self.now_s + life))
                    }
                    Fate::Later => Err(ApiFailure::Later),
                    Fate::Lost | Fate::Never => Err(ApiFailure::Unanswered),
                };
                UploadInput::Applied(applied)
            }
            Act::Save(progress) => {
                if self.saved.as_ref().is_none_or(|saved| saved.applied != progress.applied) {
                    self.saved_version = self.version;
                }
                let forgets = self.bug == Some(Bug::ForgetsUpload) && progress.upload_id.is_some()
                    || self.bug == Some(Bug::CommitsUnsaved) && progress.phase == Phase::Committing;
                if !forgets {
                    self.saved = Some(*progress);
                }
                UploadInput::Saved
            }
            Act::PutOther(number) => UploadInput::OtherPut(number, self.stored(|_| Ok(()))),
            Act::PutWhole => {
                let (session, version) = (self.session(), self.version);
                if version != self.saved_version {
                    return UploadInput::WholePut(Err(StoreFailure::File));
                }
                UploadInput::WholePut(self.stored(|world| {
                    world.objects.insert(session, vec![version]);
                    Ok(())
                }))
            }
            Act::Initiate => UploadInput::Initiated(self.stored(|world| {
                let id = format!("u{}", world.uploads.len());
                world.uploads.insert(id.clone(), Multipart::default());
                Ok(id)
            })),
            Act::List => UploadInput::Listed(self.stored(|world| world.listed(&id))),
            Act::Part { number, stored, ask_first } => {
                let version = self.version;
                if stored.is_none() && ask_first && self.bug != Some(Bug::DoesNotAsk) {
                    match self.stored(|world| world.listed(&id)) {
                        Ok(parts) if parts.get(&number) == Some(&etag(version)) => {
                            return UploadInput::PartDone(number, Ok(proof(version)));
                        }
                        Ok(_) => {}
                        Err(failure) => return UploadInput::PartDone(number, Err(failure)),
                    }
                }
                match stored.filter(|_| self.bug != Some(Bug::SendsAgain)) {
                    Some(stored) if stored == etag(version) => {
                        UploadInput::PartDone(number, Ok(proof(version)))
                    }
                    Some(_) => UploadInput::PartDiffers(number),
                    None => UploadInput::PartDone(number, self.put_part(&id, number, version)),
                }
            }
            Act::CheckFile => {
                let same = self.version == self.saved_version || self.bug == Some(Bug::NoFinalCheck);
                UploadInput::FileChecked(same)
            }
            Act::Complete(_) => {
                let session = self.session();
                UploadInput::Completed(self.stored(|world| {
                    let upload = world.uploads.remove(&id).ok_or(StoreFailure::NoSuchUpload)?;
                    world.objects.insert(session, upload.parts.into_values().collect());
                    Ok(())
                }))
            }
            Act::Abort => {
                let _ = self.stored(|world| {
                    world.uploads.remove(&id);
                    Ok(())
                });
                UploadInput::Aborted
            }
            Act::Commit => UploadInput::CommitAnswered(self.commit(plan)),
            Act::Finish(_) => unreachable!("the end is nothing to be done"),
        }
    }

    fn listed(&mut self, id: &str) -> Result<BTreeMap<u32, String>, StoreFailure> {
        let upload = self.uploads.get(id).ok_or(StoreFailure::NoSuchUpload)?;
        Ok(upload.parts.iter().map(|(number, version)| (*number, etag(*version))).collect())
    }

    fn commit(&mut self, plan: &UploadPlan) -> Result<Committed, ApiFailure> {
        let session =
            plan.progress.as_ref().map(|progress| progress.applied.session_key.clone()).unwrap_or_default();
        let fate = self.fate();
        if matches!(fate, Fate::Never) {
            return Err(ApiFailure::Unanswered);
        }
        if matches!(fate, Fate::Later) {
            return Err(ApiFailure::Later);
        }
        let done = match self.media.contains_key(&session) {
            true if self.idempotent => Ok(committed(&session)),
            true => Err(ApiFailure::UnknownSession),
            false => match self.objects.get(&session).cloned() {
                None => Err(ApiFailure::Refused),
                Some(versions) => {
                    self.media.insert(session.clone(), versions);
                    Ok(committed(&session))
                }
            },
        };
        if matches!(fate, Fate::Lost) { Err(ApiFailure::Unanswered) } else { done }
    }
}

fn etag(version: u64) -> String {
    format!("v{version}")
}

fn proof(version: u64) -> PartProof {
    PartProof { etag: etag(version), crc64: version }
}

fn committed(session: &str) -> Committed {
    Committed {
        file_id: format!("file of {session}"),
        media_url: String::new(),
        cover_url: None,
        request_id: "r".to_owned(),
    }
}

fn applied(number: u32, expires_at: i64) -> Applied {
    let secret = || tencentcloud_signing::Secret::new("s");
    let credential =
        TempCredential { secret_id: "i".to_owned(), secret_key: secret(), token: secret(), expires_at };
    Applied {
        bucket: "b-1".to_owned(),
        region: "r".to_owned(),
        session_key: format!("session{number}"),
        media_path: "/m".to_owned(),
        cover_path: None,
        credential,
    }
}

/// One upload, over as many processes as it takes.
fn upload(seed: u64, bug: Option<Bug>) -> Result<UploadOutcome, String> {
    let mut world = World::new(seed, bug);
    let (mut plan, effects) = UploadPlan::new(world.shape);
    let mut waiting: VecDeque<UploadEffect> = effects.into();
    let mut restarted = false;
    for steps in 0.. {
        if steps > 3_000 {
            return Err("it does not end".to_owned());
        }
        world.calm = steps > 1_500;
        if !world.calm && world.kills < 6 && world.rng.u32(0..25) == 0 {
            world.kills += 1;
            let Some(progress) = world.saved.clone() else {
                (plan, waiting) = begin(UploadPlan::new(world.shape));
                continue;
            };
            let same = world.version == world.saved_version;
            (plan, waiting) = begin(UploadPlan::resumed(world.shape, progress, same));
            continue;
        }
        let at = world.rng.usize(0..waiting.len().max(1));
        let Some(effect) = waiting.remove(at) else { return Err("it waits for nothing".to_owned()) };
        if let Act::Finish(outcome) = effect.act {
            check(&mut world, &outcome);
            return world.violation.map_or(Ok(outcome), Err);
        }
        let input = world.act(&plan, effect.act);
        let lost_commit = matches!(input, UploadInput::CommitAnswered(Err(ApiFailure::Unanswered)));
        if lost_commit && bug == Some(Bug::ApplyAfterLostCommit) && !restarted {
            restarted = true;
            world.saved = None;
            (plan, waiting) = begin(UploadPlan::new(world.shape));
            continue;
        }
        let effects = plan.step(world.now_s, input);
        waiting.extend(effects);
    }
    unreachable!("the loop has no other end")
}

fn begin((plan, effects): (UploadPlan, Vec<UploadEffect>)) -> (UploadPlan, VecDeque<UploadEffect>) {
    (plan, effects.into())
}

fn check(world: &mut World, outcome: &UploadOutcome) {
    if world.media.len() > 1 {
        world.broken(format!("one upload became {} media", world.media.len()));
    }
    for versions in world.media.clone().into_values() {
        if versions.windows(2).any(|pair| pair[0] != pair[1]) {
            world.broken(format!("a medium is of several versions of the file: {versions:?}"));
        }
    }
    let media = world.media.len();
    match outcome {
        UploadOutcome::Committed { .. } if media != 1 => {
            world.broken("told of a medium that is not there".to_owned())
        }
        UploadOutcome::Failed(_) | UploadOutcome::Cancelled if media != 0 => {
            world.broken(format!("{outcome:?} told, and the medium is there"));
        }
        _ => {}
    }
}

#[test]
fn no_seed_makes_two_media_or_a_wrong_one_or_sends_twice() {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..30_000 {
        let outcome = upload(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let name = format!("{outcome:?}");
        *ends.entry(name.split([' ', '{']).next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    println!("{ends:?}");
    assert!(ends.len() >= 4, "every end is met: {ends:?}");
}

#[test]
fn every_deliberate_bug_is_seen() {
    use Bug::{ApplyAfterLostCommit, CommitsUnsaved, DoesNotAsk, ForgetsUpload, NoFinalCheck, SendsAgain};
    for bug in [ApplyAfterLostCommit, SendsAgain, DoesNotAsk, NoFinalCheck, CommitsUnsaved, ForgetsUpload] {
        let seen =
            (0..5_000).find_map(|seed| upload(seed, Some(bug)).err().map(|violation| (seed, violation)));
        println!("{bug:?}: {seen:?}");
        assert!(seen.is_some(), "{bug:?}");
    }
}

#[test]
fn parts_fit_the_limits_of_the_object_storage() {
    for size in [WHOLE_BELOW, WHOLE_BELOW + 1, 80_000_000_000, 83_886_080_001, LARGEST_FILE] {
        let part = part_size(size);
        assert!(
            part >= WHOLE_BELOW && part.is_multiple_of(MIB) && size.div_ceil(part) <= MOST_PARTS,
            "{size}"
        );
        assert!(part <= 5 * 1024 * MIB);
    }
    let parts = |size| Shape { size, others: 0, concurrency: 1 }.parts();
    assert_eq!([parts(0), parts(WHOLE_BELOW - 1), parts(WHOLE_BELOW), parts(WHOLE_BELOW + 1)], [0, 0, 1, 2]);
}
