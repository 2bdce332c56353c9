//! The settings of a queue.

use crate::handles::HandleForm;

/// The fate of the good handles of a confirm with a bad one. The documents do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixedConfirm {
    /// Their events are deleted, and the request still fails.
    #[default]
    DeleteGood,
    /// The whole request is refused.
    RefuseAll,
}

/// The handle under which an event comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redelivery {
    /// A new one.
    #[default]
    NewHandle,
    /// Its old one.
    SameHandle,
}

/// How a pull gives out handles: as the cloud does, or as a fault requires.
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

/// The figures of a queue. They can change at any time, and hold for later deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a delivery hides its event and its handle can be confirmed, in milliseconds.
    pub window_ms: u64,
    /// How long an event is kept after it was put, in milliseconds.
    pub retention_ms: u64,
    /// The form of handles.
    pub form: HandleForm,
    /// The effect of a bad handle on its neighbours.
    pub mixed: MixedConfirm,
    /// Whether confirming a handle a second time, within its window, is an error. The documents do not say.
    pub refuse_repeats: bool,
    /// The handle under which an unconfirmed event comes again.
    pub redelivery: Redelivery,
    /// The number of finished (confirmed or expired) events in the ledger; older ones are dropped.
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
