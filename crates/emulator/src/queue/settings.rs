//! How a queue behaves where it can be set.

use crate::handles::HandleForm;

/// What becomes of the good handles of a confirm that holds a bad one. The documents do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixedConfirm {
    /// Their events are deleted, and the call fails all the same.
    #[default]
    DeleteGood,
    /// The whole call is refused.
    RefuseAll,
}

/// Under which handle an event comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redelivery {
    /// Under a new one.
    #[default]
    NewHandle,
    /// Under the one that it had.
    SameHandle,
}

/// How a pull hands out handles: as the cloud should, or as a fault has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandleStyle {
    /// One for each event.
    #[default]
    Each,
    /// One for all events of the pull, as the vendor's tutorial prints it.
    OneForAll,
    /// None at all.
    Missing,
    /// One for each event, as a bare JSON number.
    Number,
}

/// The figures of a queue. They can change at any time, and hold for deliveries from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a delivery hides its event and its handle can be confirmed, in milliseconds.
    pub window_ms: u64,
    /// How long an event is kept from when it was put, in milliseconds.
    pub retention_ms: u64,
    /// What handles look like.
    pub form: HandleForm,
    /// What a bad handle does to its neighbours.
    pub mixed: MixedConfirm,
    /// Whether confirming a handle a second time, within its window, is an error. The documents do not say.
    pub refuse_repeats: bool,
    /// Under which handle an unconfirmed event comes again.
    pub redelivery: Redelivery,
    /// How many finished (confirmed or expired) events the ledger remembers; older ones are forgotten.
    pub remember: usize,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            window_ms: 30_000,
            retention_ms: 4 * 24 * 3_600_000,
            form: HandleForm::default(),
            mixed: MixedConfirm::default(),
            refuse_repeats: false,
            redelivery: Redelivery::default(),
            remember: 1_000_000,
        }
    }
}
