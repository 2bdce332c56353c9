//! How often a relay asks the cloud: the account's limit, and few requests while none is accepted.

use std::collections::{BTreeMap, VecDeque};

use tencent_vod_event::SubAppId;
use vodrelay_core::outcome::RequestFailure;

use super::{Checker, Guarantee};

/// While nothing is accepted: so many requests are none too many at first, and one more for each such time.
const REQUESTS_IN_VAIN: u64 = 10;
const REQUEST_IN_VAIN_MS: u64 = 200;

/// The APIs whose requests the cloud counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `PullEvents`.
    Pull,
    /// `ConfirmEvents`.
    Confirm,
}

/// The requests of one API.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last_second: VecDeque<u64>,
    /// Since when the relay knows that the cloud throttles, while no request was accepted, and the requests since then.
    throttled: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// No pull of a sub-application before this moment.
    pub(super) pull_not_before: BTreeMap<SubAppId, u64>,
    pub(super) confirm_not_before: BTreeMap<SubAppId, u64>,
    /// No request for a proof of the right to confirm before this moment.
    pub(super) proof_not_before: BTreeMap<SubAppId, u64>,
    pulls: Requests,
    confirms: Requests,
    pub(super) last_tick: u64,
    pub(super) ticks: usize,
}

impl Pace {
    fn requests(&mut self, api: Api) -> &mut Requests {
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
        self.sent(relay, Api::Confirm);
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

    /// The cloud accepted a request: what it answered is another matter.
    pub(crate) fn request_accepted(&mut self, relay: usize, api: Api) {
        self.paces[relay].requests(api).throttled = None;
    }

    /// The relay learnt that a request was throttled.
    pub(crate) fn throttled(&mut self, relay: usize, api: Api) {
        let now = self.now;
        self.paces[relay].requests(api).throttled.get_or_insert((now, 0));
    }

    /// The account's limit is kept, at any moment. While nothing is accepted, requests become few, whatever the limit.
    pub(super) fn sent(&mut self, relay: usize, api: Api) {
        let limit = self.plan.requests_per_second as usize;
        let burst = limit / 50 + 1;
        let now = self.now;
        let requests = self.paces[relay].requests(api);
        while requests.last_second.front().is_some_and(|at| at + 1_000 <= now) {
            requests.last_second.pop_front();
        }
        requests.last_second.push_back(now);
        let count = requests.last_second.len();
        let mut in_vain = None;
        if let Some((since, requests)) = &mut requests.throttled {
            *requests += 1;
            in_vain = Some((now - *since, *requests));
        }
        if count > limit + burst {
            let what = format!("relay {relay} made {count} requests of {api:?} in a second, {limit} allowed");
            self.violated(Guarantee::Bounded, what);
        }
        if let Some((ms, requests)) = in_vain
            && requests > REQUESTS_IN_VAIN + ms / REQUEST_IN_VAIN_MS
        {
            let what =
                format!("relay {relay} made {requests} requests of {api:?} in {ms} ms, all of them in vain");
            self.violated(Guarantee::Bounded, what);
        }
    }
}
