//! How often a relay calls the cloud: the account's limit, and few calls while none is accepted.

use std::collections::{BTreeMap, VecDeque};

use tencent_vod_event::SubAppId;
use vodrelay_core::outcome::RequestFailure;

use super::{Checker, Guarantee};

/// While nothing is accepted: so many calls are none too many at first, and one more for each such time.
const CALLS_IN_VAIN: u64 = 10;
const CALL_IN_VAIN_MS: u64 = 200;

/// The APIs whose calls the cloud counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// `PullEvents`.
    Pull,
    /// `ConfirmEvents`.
    Confirm,
}

/// The calls of one API.
#[derive(Debug, Default)]
pub(super) struct Calls {
    last_second: VecDeque<u64>,
    /// Since when the relay knows that the cloud throttles, while no call was accepted, and the calls since then.
    throttled: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// No pull of a sub-application before this moment.
    pub(super) pull_not_before: BTreeMap<SubAppId, u64>,
    pub(super) confirm_not_before: BTreeMap<SubAppId, u64>,
    /// No request for a proof of the right to confirm before this moment.
    pub(super) proof_not_before: BTreeMap<SubAppId, u64>,
    pulls: Calls,
    confirms: Calls,
    pub(super) last_tick: u64,
    pub(super) ticks: usize,
}

impl Pace {
    fn calls(&mut self, api: Api) -> &mut Calls {
        match api {
            Api::Pull => &mut self.pulls,
            Api::Confirm => &mut self.confirms,
        }
    }
}

impl Checker {
    /// The relay asks whether it may confirm: only when nothing is being confirmed, and not again for a minute.
    pub(crate) fn proof_asked(&mut self, relay: usize, sub_app: SubAppId, confirms: usize) {
        let not_before = self.paces[relay].proof_not_before.get(&sub_app).copied().unwrap_or(0);
        if confirms > 0 || self.now < not_before {
            let what = format!("relay {relay} asks whether it may confirm {sub_app}, and does not need to");
            self.violated(Guarantee::Bounded, what);
        }
        self.paces[relay].proof_not_before.insert(sub_app, self.now + 60_000);
        self.called(relay, Api::Confirm);
    }

    /// The relay learnt whether it may confirm.
    pub(crate) fn proof_ended(
        &mut self,
        relay: usize,
        sub_app: SubAppId,
        result: Result<(), RequestFailure>,
    ) {
        if matches!(result, Ok(()) | Err(RequestFailure::Refused)) {
            // Until a confirm is denied or the process dies.
            self.paces[relay].proof_not_before.insert(sub_app, u64::MAX);
        }
    }

    /// The cloud accepted a call: what it answered is another matter.
    pub(crate) fn call_accepted(&mut self, relay: usize, api: Api) {
        self.paces[relay].calls(api).throttled = None;
    }

    /// The relay learnt that a call was throttled.
    pub(crate) fn throttled(&mut self, relay: usize, api: Api) {
        let now = self.now;
        self.paces[relay].calls(api).throttled.get_or_insert((now, 0));
    }

    /// The account's limit is kept, at any moment. While nothing is accepted, calls become few, whatever the limit.
    pub(super) fn called(&mut self, relay: usize, api: Api) {
        let limit = self.plan.requests_per_second as usize;
        let burst = limit / 50 + 1;
        let now = self.now;
        let calls = self.paces[relay].calls(api);
        while calls.last_second.front().is_some_and(|at| at + 1_000 <= now) {
            calls.last_second.pop_front();
        }
        calls.last_second.push_back(now);
        let count = calls.last_second.len();
        let mut in_vain = None;
        if let Some((since, calls)) = &mut calls.throttled {
            *calls += 1;
            in_vain = Some((now - *since, *calls));
        }
        if count > limit + burst {
            let what = format!("relay {relay} made {count} calls of {api:?} in a second, {limit} allowed");
            self.violated(Guarantee::Bounded, what);
        }
        if let Some((ms, calls)) = in_vain
            && calls > CALLS_IN_VAIN + ms / CALL_IN_VAIN_MS
        {
            let what = format!("relay {relay} made {calls} calls of {api:?} in {ms} ms, all of them in vain");
            self.violated(Guarantee::Bounded, what);
        }
    }
}
