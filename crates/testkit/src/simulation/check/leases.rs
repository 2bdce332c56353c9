//! The leases under which handles stand in a relay's hands, by what the relay was told.
//!
//! A delivery under a handle that is in hand joins it, and the earliest of their leases counts. While the handle is in a request,
//! the delivery stands apart; a request that fails brings both together.

use tencent_vod_event::{EventHandle, SubAppId};
use vodrelay_core::clock::Moment;
use vodrelay_core::machine::ConfirmId;
use vodrelay_core::outcome::RequestFailure;

use super::{Checker, HandleKey};

/// The relay may let a handle go this long before its lease ends.
const REQUEST_MIN_MS: u64 = 100;

/// Deliveries under one handle that are confirmed together.
#[derive(Debug)]
pub(super) struct Joined {
    /// The earliest and the latest end of their leases.
    earliest: u64,
    latest: u64,
    /// The request that they are in.
    request: Option<ConfirmId>,
    /// They may have joined a delivery whose lease ended then, and have been let go with it.
    gone_from: Option<u64>,
}

impl Checker {
    /// The relay learnt that a delivery with this handle is recorded.
    pub(crate) fn held(&mut self, relay: usize, sub_app: SubAppId, handle: &EventHandle, sent_at: u64) {
        let (now, cutoff) = (self.now, sent_at + self.usable_ms());
        if cutoff <= now {
            return;
        }
        let all = self.joined.entry((relay, sub_app, handle.clone())).or_default();
        let ending = all.iter().find(|one| one.request.is_none() && one.earliest <= now + REQUEST_MIN_MS);
        let gone_from = ending.map(|one| one.earliest);
        all.retain(|joined| joined.request.is_some() || joined.earliest > now + REQUEST_MIN_MS);
        match all.iter_mut().find(|joined| joined.request.is_none()) {
            Some(joined) if joined.gone_from.is_some_and(|at| at <= now) => {
                joined.earliest = joined.earliest.max(cutoff);
                joined.latest = joined.latest.max(cutoff);
            }
            Some(joined) => {
                joined.earliest = joined.earliest.min(cutoff);
                joined.latest = joined.latest.max(cutoff);
            }
            None => all.push(Joined { earliest: cutoff, latest: cutoff, request: None, gone_from }),
        }
    }

    /// A request takes the handles that are in hand. Returns the earliest of their leases.
    pub(super) fn requested(
        &mut self,
        relay: usize,
        sub_app: SubAppId,
        handle: &EventHandle,
        request: ConfirmId,
    ) -> Moment {
        let key = (relay, sub_app, handle.clone());
        let joined =
            self.joined.get_mut(&key).and_then(|all| all.iter_mut().find(|one| one.request.is_none()));
        match joined {
            Some(joined) => {
                joined.request = Some(request);
                let earliest = Moment(joined.earliest);
                self.in_requests.entry((relay, request)).or_default().push(key);
                earliest
            }
            None => self.latest_deadline(relay, sub_app, std::slice::from_ref(handle)),
        }
    }

    /// The latest of the leases of the deliveries that each handle stands for, and the earliest of these.
    pub(crate) fn latest_joined(&self, relay: usize, sub_app: SubAppId, handles: &[EventHandle]) -> Moment {
        let latest = |handle: &EventHandle| {
            let all = self.joined.get(&(relay, sub_app, handle.clone()))?;
            all.iter().find(|one| one.request.is_none()).map(|one| one.latest)
        };
        Moment(handles.iter().filter_map(latest).min().unwrap_or(0))
    }

    /// The relay learnt how a request ended.
    pub(crate) fn request_ended(
        &mut self,
        relay: usize,
        request: ConfirmId,
        result: Result<(), RequestFailure>,
    ) {
        let keys: Vec<HandleKey> = self.in_requests.remove(&(relay, request)).unwrap_or_default();
        let done = result.is_ok() || (result == Err(RequestFailure::Refused) && keys.len() == 1);
        for key in keys {
            let all = self.joined.entry(key).or_default();
            let Some(at) = all.iter().position(|one| one.request == Some(request)) else { continue };
            let mut ended = all.remove(at);
            if done || ended.earliest <= self.now {
                continue;
            }
            ended.request = None;
            // What has waited meanwhile may have been let go by now.
            let over = self.now + REQUEST_MIN_MS;
            let ending = all.iter().find(|one| one.request.is_none() && one.earliest <= over);
            ended.gone_from = ending.map(|one| one.earliest).or(ended.gone_from);
            all.retain(|one| one.request.is_some() || one.earliest > over);
            match all.iter_mut().find(|one| one.request.is_none()) {
                Some(other) => {
                    // One that may have been let go meanwhile may have left its lease behind, or not.
                    let now = self.now;
                    let is_gone = |at: Option<u64>| at.is_some_and(|at| at <= now);
                    other.earliest = if is_gone(ended.gone_from) || is_gone(other.gone_from) {
                        other.earliest.max(ended.earliest)
                    } else {
                        other.earliest.min(ended.earliest)
                    };
                    other.latest = other.latest.max(ended.latest);
                    other.gone_from = other.gone_from.or(ended.gone_from);
                }
                None => all.push(ended),
            }
        }
    }

    /// The process is gone, and its handles with it.
    pub(super) fn holds_nothing(&mut self, relay: usize) {
        self.joined.retain(|(of, _, _), _| *of != relay);
        self.in_requests.retain(|(of, _), _| *of != relay);
    }
}
