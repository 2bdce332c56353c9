//! Every fault between a client and the cloud, on request.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::queue::{HandleStyle, Redelivery};
use super::state::now_ms;

/// The form of "nothing to pull now". Real clients were written for each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleShape {
    /// The error `ResourceNotFound`, `no event`.
    #[default]
    Error,
    /// `"EventSet":null`.
    Null,
    /// `"EventSet":[]`.
    Empty,
    /// No `EventSet` at all.
    Absent,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// The request waits before it is processed.
    Delay {
        /// For how long.
        ms: u64,
    },
    /// The request takes effect, and its answer waits.
    SlowAnswer {
        /// For how long.
        ms: u64,
    },
    /// `RequestLimitExceeded`; nothing happens.
    Throttle,
    /// Any error of the API; nothing happens.
    Error {
        /// The code, like `InternalError` or `AuthFailure.TokenFailure`.
        code: String,
    },
    /// A page of HTML from a gateway; nothing happens.
    Html {
        /// The HTTP status.
        status: u16,
    },
    /// Status 200 and a body that is not JSON; nothing happens.
    Rubbish,
    /// The connection is reset before the request is processed.
    Reset,
    /// The request takes effect, and the connection is closed without an answer.
    AnswerLost,
    /// The request takes effect, and the connection is closed in the middle of the answer.
    Truncated,
    /// A pull is answered as idle at once, whatever the queue holds.
    Idle {
        /// In which shape.
        shape: IdleShape,
    },
    /// The events of a pull are visible again at once.
    Redelivered {
        /// The handle under which it comes again.
        under: Redelivery,
    },
    /// From now on a handle fails every confirm that contains it, and such a request deletes nothing.
    BadHandle {
        /// The handle; without one, a random one of the next confirm's.
        handle: Option<String>,
    },
    /// A confirm of an event that was handed out only once is lost on its way; nothing happens.
    FirstConfirmLost,
    /// One handle for all events of a pull.
    OneHandle,
    /// Events without a handle.
    NoHandle,
    /// Handles as bare numbers.
    NumericHandle,
    /// The server's clock is wrong, in its `Date` header and in its check of time stamps.
    ClockSkew {
        /// By how much; positive when the server is ahead.
        ms: i64,
    },
    /// `CompleteMultipartUpload` does nothing and answers 200 with this error in the body.
    ErrorInOk {
        /// The code, like `InternalError`.
        code: String,
    },
    /// `CompleteMultipartUpload` answers 200 at once and sends spaces before the result.
    Spaces {
        /// For how long.
        ms: u64,
    },
    /// The object storage resets the connection in the body of a PUT. Nothing is stored.
    ResetInBody {
        /// After how many bytes of it.
        bytes: u64,
    },
    /// The object storage reads bodies at this speed.
    SlowRead {
        /// How fast.
        bytes_per_second: u64,
    },
    /// One bit of the stored content differs from the sent content.
    BitFlip,
    /// `ETag` without its quotes.
    BareEtag,
    /// A wrong `x-cos-hash-crc64ecma`.
    WrongCrc64,
    /// No `x-cos-hash-crc64ecma`.
    NoCrc64,
    /// No `x-cos-request-id`.
    NoRequestId,
    /// Lists of the object storage have one item a page.
    OneItemAPage,
}

/// The point in a request at which a fault strikes. A fault with a count is used up only where it has an
/// effect: an idle poll does not use up a fault of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestStage {
    Arrival,
    Delivery,
    /// For a confirm: before its handles are processed.
    Way,
    Confirm,
    /// For a request to the object storage: after the check of its signature.
    Storage,
    Answer,
}

impl FaultKind {
    fn stage(&self) -> RequestStage {
        match self {
            Self::Delay { .. }
            | Self::Throttle
            | Self::Error { .. }
            | Self::Html { .. }
            | Self::Rubbish
            | Self::Reset
            | Self::Idle { .. }
            | Self::ClockSkew { .. } => RequestStage::Arrival,
            Self::Redelivered { .. } | Self::OneHandle | Self::NoHandle | Self::NumericHandle => {
                RequestStage::Delivery
            }
            Self::FirstConfirmLost => RequestStage::Way,
            Self::BadHandle { .. } => RequestStage::Confirm,
            Self::ErrorInOk { .. }
            | Self::Spaces { .. }
            | Self::ResetInBody { .. }
            | Self::SlowRead { .. }
            | Self::BitFlip
            | Self::BareEtag
            | Self::WrongCrc64
            | Self::NoCrc64
            | Self::NoRequestId
            | Self::OneItemAPage => RequestStage::Storage,
            Self::SlowAnswer { .. } | Self::AnswerLost | Self::Truncated => RequestStage::Answer,
        }
    }
}

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub fault: FaultKind,
    /// Only in requests of this action; without one, in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Its probability when it could strike, from 0 to 1; without one, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// How often it strikes; without a number, until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// It strikes only every N-th time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// It does not strike in this time after it is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
}

impl Fault {
    /// A fault that always strikes, in every possible action.
    pub fn always(fault: FaultKind) -> Self {
        Self { fault, action: None, probability: None, count: None, every: None, after_ms: None }
    }

    /// A fault that strikes once.
    pub fn once(fault: FaultKind) -> Self {
        Self::always(fault).times(1)
    }

    /// Only in requests of this action.
    #[must_use]
    pub fn on(mut self, action: Action) -> Self {
        self.action = Some(action);
        self
    }

    /// Only this many times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Only every N-th time.
    #[must_use]
    pub fn every(mut self, times: u64) -> Self {
        self.every = Some(times);
        self
    }

    /// Not in this time after it is added.
    #[must_use]
    pub fn after_ms(mut self, ms: u64) -> Self {
        self.after_ms = Some(ms);
        self
    }

    /// Only with this probability.
    #[must_use]
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }
}

/// The early end of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Early {
    Reset,
    Html(u16),
    Rubbish,
    Error(String),
    Idle(IdleShape),
}

/// The faults at a request's arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Arrival {
    pub(super) delay_ms: u64,
    pub(super) skew_ms: i64,
    pub(super) early: Option<Early>,
}

/// The faults of the events that a pull hands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeliveryFaults {
    pub(super) style: HandleStyle,
    pub(super) redelivered: Option<Redelivery>,
}

/// The faults of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AnswerFaults {
    pub(super) delay_ms: u64,
    pub(super) lost: bool,
    pub(super) truncated: bool,
}

/// The faults of a request to the object storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StorageFaults {
    pub(super) error_in_ok: Option<String>,
    pub(super) spaces_ms: u64,
    pub(super) reset_after: Option<u64>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) bit_flip: bool,
    pub(super) bare_etag: bool,
    pub(super) wrong_crc64: bool,
    pub(super) no_crc64: bool,
    pub(super) no_request_id: bool,
    pub(super) one_item_a_page: bool,
}

/// An active fault.
#[derive(Debug)]
struct ActiveFault {
    fault: Fault,
    since_ms: u64,
    /// The number of times it could have struck.
    chances: u64,
}

impl ActiveFault {
    /// Whether it strikes now.
    fn is_due(&mut self, now_ms: u64, rng: &mut fastrand::Rng) -> bool {
        if self.fault.after_ms.is_some_and(|after| now_ms.saturating_sub(self.since_ms) < after) {
            return false;
        }
        self.chances += 1;
        self.fault.every.is_none_or(|every| self.chances.is_multiple_of(every.max(1)))
            && self.fault.probability.is_none_or(|p| rng.f64() < p)
    }
}

/// The active faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    active: Vec<ActiveFault>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.active.push(ActiveFault { fault, since_ms: now_ms(), chances: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    pub(super) fn active(&self) -> Vec<Fault> {
        self.active.iter().map(|active| active.fault.clone()).collect()
    }

    /// Calls `strike` with every fault of this stage that strikes now. An answer of `false` means that it had
    /// no effect and is not used up.
    fn draw(
        &mut self,
        stage: RequestStage,
        action: Action,
        rng: &mut fastrand::Rng,
        mut strike: impl FnMut(&FaultKind) -> bool,
    ) {
        let now_ms = now_ms();
        self.active.retain_mut(|active| {
            let fault = &active.fault;
            let concerned = fault.fault.stage() == stage && fault.action.is_none_or(|only| only == action);
            let struck = concerned && active.is_due(now_ms, rng) && strike(&active.fault.fault);
            if struck && let Some(left) = &mut active.fault.count {
                *left = left.saturating_sub(1);
            }
            active.fault.count != Some(0)
        });
    }

    pub(super) fn arrival(&mut self, action: Action, rng: &mut fastrand::Rng) -> Arrival {
        let mut arrival = Arrival::default();
        self.draw(RequestStage::Arrival, action, rng, |fault| {
            let early = match fault {
                FaultKind::Delay { ms } => {
                    arrival.delay_ms = arrival.delay_ms.saturating_add(*ms);
                    return true;
                }
                FaultKind::ClockSkew { ms } => {
                    arrival.skew_ms = arrival.skew_ms.saturating_add(*ms);
                    return true;
                }
                FaultKind::Throttle => Early::Error("RequestLimitExceeded".to_owned()),
                FaultKind::Error { code } => Early::Error(code.clone()),
                FaultKind::Html { status } => Early::Html(*status),
                FaultKind::Rubbish => Early::Rubbish,
                FaultKind::Reset => Early::Reset,
                FaultKind::Idle { shape } if action == Action::PullEvents => Early::Idle(*shape),
                _ => return false,
            };
            // A request ends once.
            let first = arrival.early.is_none();
            if first {
                arrival.early = Some(early);
            }
            first
        });
        arrival
    }

    pub(super) fn delivery(&mut self, rng: &mut fastrand::Rng) -> DeliveryFaults {
        let mut faults = DeliveryFaults::default();
        self.draw(RequestStage::Delivery, Action::PullEvents, rng, |fault| {
            match fault {
                FaultKind::OneHandle => faults.style = HandleStyle::OneForAll,
                FaultKind::NoHandle => faults.style = HandleStyle::Missing,
                FaultKind::NumericHandle => faults.style = HandleStyle::Number,
                FaultKind::Redelivered { under } => faults.redelivered = Some(*under),
                _ => return false,
            }
            true
        });
        faults
    }

    /// The handles of a confirm that turn bad now.
    pub(super) fn bad_handles(&mut self, handles: &[String], rng: &mut fastrand::Rng) -> Vec<String> {
        let mut bad = Vec::new();
        let mut by_chance = rng.fork();
        self.draw(RequestStage::Confirm, Action::ConfirmEvents, rng, |fault| {
            let FaultKind::BadHandle { handle } = fault else { return false };
            let chosen = match handle {
                Some(handle) => handles.iter().find(|h| *h == handle),
                None => by_chance.choice(handles),
            };
            bad.extend(chosen.cloned());
            chosen.is_some()
        });
        bad
    }

    /// Whether a confirm is lost on its way. `is_first` says whether it is for an event that was handed out
    /// once.
    pub(super) fn loses_confirm(&mut self, is_first: impl Fn() -> bool, rng: &mut fastrand::Rng) -> bool {
        let mut lost = false;
        self.draw(RequestStage::Way, Action::ConfirmEvents, rng, |_| {
            lost = is_first();
            lost
        });
        lost
    }

    /// The faults of an authorized request to the object storage.
    pub(super) fn storage(&mut self, action: Action, rng: &mut fastrand::Rng) -> StorageFaults {
        let stores = matches!(action, Action::PutObject | Action::UploadPart);
        let completes = action == Action::CompleteMultipartUpload;
        let lists = matches!(action, Action::ListParts | Action::ListMultipartUploads);
        let mut faults = StorageFaults::default();
        self.draw(RequestStage::Storage, action, rng, |fault| {
            match fault {
                FaultKind::ErrorInOk { code } if completes => faults.error_in_ok = Some(code.clone()),
                FaultKind::Spaces { ms } if completes => faults.spaces_ms = *ms,
                FaultKind::ResetInBody { bytes } if stores => faults.reset_after = Some(*bytes),
                FaultKind::SlowRead { bytes_per_second } if stores => {
                    faults.bytes_per_second = Some(*bytes_per_second);
                }
                FaultKind::BitFlip if stores => faults.bit_flip = true,
                FaultKind::BareEtag if stores || completes || action == Action::ListParts => {
                    faults.bare_etag = true;
                }
                FaultKind::WrongCrc64 if stores || completes => faults.wrong_crc64 = true,
                FaultKind::NoCrc64 if stores || completes => faults.no_crc64 = true,
                FaultKind::NoRequestId => faults.no_request_id = true,
                FaultKind::OneItemAPage if lists => faults.one_item_a_page = true,
                _ => return false,
            }
            true
        });
        faults
    }

    pub(super) fn answer(&mut self, action: Action, rng: &mut fastrand::Rng) -> AnswerFaults {
        let mut faults = AnswerFaults::default();
        self.draw(RequestStage::Answer, action, rng, |fault| {
            match fault {
                FaultKind::SlowAnswer { ms } => faults.delay_ms = faults.delay_ms.saturating_add(*ms),
                FaultKind::AnswerLost => faults.lost = true,
                FaultKind::Truncated => faults.truncated = true,
                _ => return false,
            }
            true
        });
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(list: impl IntoIterator<Item = Fault>) -> Faults {
        let mut faults = Faults::default();
        list.into_iter().for_each(|fault| faults.add(fault));
        faults
    }

    #[test]
    fn a_fault_strikes_every_so_many_times_and_not_before_its_time() {
        let every_third = Fault::always(FaultKind::Throttle).every(3);
        let late = Fault::always(FaultKind::Reset).after_ms(3_600_000);
        let mut faults = faults([every_third, late]);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut struck = || faults.arrival(Action::UploadPart, &mut rng).early.is_some();
        let times: Vec<bool> = (0..6).map(|_| struck()).collect();
        assert_eq!(times, [false, false, true, false, false, true]);
    }

    #[test]
    fn a_fault_of_the_storage_is_spent_where_it_has_an_effect() {
        let mut faults = faults([
            Fault::once(FaultKind::ErrorInOk { code: "InternalError".to_owned() }),
            Fault::once(FaultKind::OneItemAPage),
            Fault::once(FaultKind::BareEtag),
        ]);
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(faults.storage(Action::InitiateMultipartUpload, &mut rng), StorageFaults::default());
        assert_eq!(faults.active().len(), 3);
        assert!(faults.storage(Action::UploadPart, &mut rng).bare_etag);
        assert!(faults.storage(Action::ListParts, &mut rng).one_item_a_page);
        let completed = faults.storage(Action::CompleteMultipartUpload, &mut rng);
        assert_eq!(completed.error_in_ok.as_deref(), Some("InternalError"));
        assert!(faults.active().is_empty());
    }

    #[test]
    fn a_fault_strikes_its_action_as_often_as_it_was_told() {
        let mut faults = faults([Fault::always(FaultKind::Throttle).on(Action::ConfirmEvents).times(2)]);
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(faults.arrival(Action::PullEvents, &mut rng).early, None);
        for _ in 0..2 {
            let early = faults.arrival(Action::ConfirmEvents, &mut rng).early;
            assert_eq!(early, Some(Early::Error("RequestLimitExceeded".to_owned())));
        }
        assert_eq!(faults.arrival(Action::ConfirmEvents, &mut rng).early, None);
        assert!(faults.active().is_empty());
    }

    #[test]
    fn a_request_ends_once_and_spends_one_fault() {
        let mut faults = faults([Fault::once(FaultKind::Reset), Fault::once(FaultKind::Rubbish)]);
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(faults.arrival(Action::PullEvents, &mut rng).early, Some(Early::Reset));
        assert_eq!(faults.arrival(Action::PullEvents, &mut rng).early, Some(Early::Rubbish));
    }

    #[test]
    fn delays_and_skews_add_up() {
        let mut faults = faults([
            Fault::always(FaultKind::Delay { ms: 5 }),
            Fault::always(FaultKind::Delay { ms: 7 }),
            Fault::always(FaultKind::ClockSkew { ms: -400_000 }),
        ]);
        let arrival = faults.arrival(Action::DescribeEventsState, &mut fastrand::Rng::with_seed(1));
        assert_eq!(arrival, Arrival { delay_ms: 12, skew_ms: -400_000, early: None });
    }

    #[test]
    fn probability_is_kept_roughly() {
        let mut faults = faults([Fault::always(FaultKind::Throttle).with_probability(0.25)]);
        let mut rng = fastrand::Rng::with_seed(3);
        let struck =
            (0..4_000).filter(|_| faults.arrival(Action::PullEvents, &mut rng).early.is_some()).count();
        assert!((800..1_200).contains(&struck), "{struck} of 4000");
    }

    #[test]
    fn a_bad_handle_that_is_named_waits_for_its_confirm() {
        let named = FaultKind::BadHandle { handle: Some("b".to_owned()) };
        let mut faults = faults([Fault::once(named)]);
        let mut rng = fastrand::Rng::with_seed(1);
        assert!(faults.bad_handles(&["a".to_owned()], &mut rng).is_empty());
        assert_eq!(faults.bad_handles(&["a".to_owned(), "b".to_owned()], &mut rng), ["b"]);
        assert!(faults.active().is_empty());
    }

    #[test]
    fn faults_are_read_from_json_and_typos_are_refused() {
        let read = |json: &str| serde_json::from_str::<Fault>(json);
        assert_eq!(
            read(r#"{"fault":"throttle","count":3}"#).unwrap(),
            Fault::always(FaultKind::Throttle).times(3)
        );
        assert_eq!(
            read(r#"{"fault":{"delay":{"ms":5}},"action":"PullEvents","probability":0.5}"#).unwrap(),
            Fault::always(FaultKind::Delay { ms: 5 }).on(Action::PullEvents).with_probability(0.5)
        );
        assert!(read(r#"{"fault":"throttle","prob":1}"#).is_err());
        assert!(read(r#"{"fault":{"delay":{"msec":5}}}"#).is_err());
        assert!(read(r#"{"fault":"trottle"}"#).is_err());
        assert!(read(r#"{"fault":"throttle","action":"PullEvent"}"#).is_err());
    }
}
