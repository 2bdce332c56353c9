//! Uploads: what is applied for, where it is stored, what it becomes, and the events that tell of it.
//!
//! - [`settings`]: figures and switches.
//! - `sessions`: applications, temporary keys, media: a model.
//! - `store`, with `content`: the object storage: a model.
//! - `actions`, with `parameters` and `manifest`: the calls of the API.
//! - `ugc`: the calls of the web SDK.
//! - `media_events`: what consumers hear.

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

/// How many spent signatures and session ids are remembered.
const MAX_REMEMBERED: usize = 100_000;

/// Everything about uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    pub(crate) sessions: Sessions,
    pub(crate) store: ObjectStore,
    /// One-time signatures that are spent, with the second in which they expire.
    spent: BTreeMap<String, i64>,
    /// Ids that requests for tasks were told apart by, with the second of the request.
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

    /// Spends a one-time signature. False when it was spent before.
    pub(crate) fn spend(&mut self, signature: &str, expires: i64, now: i64) -> bool {
        if self.spent.len() >= MAX_REMEMBERED {
            self.spent.retain(|_, expires| *expires > now);
        }
        self.spent.insert(signature.to_owned(), expires).is_none()
    }

    pub(crate) fn is_spent(&self, signature: &str) -> bool {
        self.spent.contains_key(signature)
    }

    /// Notes the id that a request is told apart by. False when it came within the last three days.
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
