//! Uploads: applications, stored content, media and their events.
//!
//! - [`settings`]: limits and switches.
//! - `sessions`: applications, temporary keys and media, a model.
//! - `store`, with `content`: the object storage, a model.
//! - `actions`, with `parameters` and `manifest`: the requests of the API.
//! - `ugc`: the requests of the web SDK.
//! - `media_events`: the events.

pub(crate) mod actions;
pub(crate) mod content;
mod manifest;
pub(crate) mod media_events;
pub(crate) mod parameters;
pub(crate) mod report;
pub(crate) mod sessions;
pub mod settings;
pub(crate) mod store;
pub(crate) mod ugc;

use std::collections::BTreeMap;

pub(crate) use self::sessions::Sessions;
pub(crate) use self::store::ObjectStore;

/// The number of spent signatures and session ids that are kept.
const MAX_REMEMBERED: usize = 100_000;

/// The state of uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    pub(crate) sessions: Sessions,
    pub(crate) store: ObjectStore,
    /// Spent one-time signatures, with their expiry in seconds.
    spent: BTreeMap<String, i64>,
    /// `SessionId` of requests for tasks, with the time of the request in seconds.
    session_ids: BTreeMap<(u64, String), i64>,
}

impl Uploads {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            sessions: Sessions::new(seed),
            store: ObjectStore::default(),
            spent: BTreeMap::new(),
            session_ids: BTreeMap::new(),
        }
    }

    /// Spends a one-time signature. `false` if it was spent before.
    pub(crate) fn spend(&mut self, signature: &str, expires: i64, now: i64) -> bool {
        if self.spent.len() >= MAX_REMEMBERED {
            self.spent.retain(|_, expires| *expires > now);
        }
        self.spent.insert(signature.to_owned(), expires).is_none()
    }

    pub(crate) fn is_spent(&self, signature: &str) -> bool {
        self.spent.contains_key(signature)
    }

    /// Records a `SessionId`. `false` if it was used in the last three days.
    pub(crate) fn first_of(&mut self, sub_app_id: u64, session_id: &str, now: i64) -> bool {
        const MEMORY: i64 = 3 * 86_400;
        if self.session_ids.len() >= MAX_REMEMBERED {
            self.session_ids.retain(|_, at| now - *at < MEMORY);
        }
        let key = (sub_app_id, session_id.to_owned());
        let repeated = self.session_ids.get(&key).is_some_and(|at| now - *at < MEMORY);
        if !repeated {
            self.session_ids.insert(key, now);
        }
        !repeated
    }
}
