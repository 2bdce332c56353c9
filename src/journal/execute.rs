//! Executes a [`Write`] in the writer's open transaction.

use vodrelay_core::clock::WallTime;
use vodrelay_core::write::{Write, Written};

use super::store::Store;

impl Store {
    /// `at` is the time of the request. What the write records has happened by then.
    pub(super) fn execute(&self, write: &Write, at: WallTime) -> rusqlite::Result<Written> {
        Ok(match write {
            Write::Record(pulled) => Written::Recorded(pulled.clone(), self.record(pulled)?),
            Write::Published(events) => {
                self.published(events, at)?;
                Written::Published(events.clone())
            }
            Write::Failed(attempts) => {
                self.failed(attempts)?;
                Written::Failed(attempts.clone())
            }
            Write::Parked(events) => {
                self.parked(events)?;
                Written::Parked(events.clone())
            }
            Write::Confirmed(deliveries) => {
                self.confirmed(deliveries, at)?;
                Written::Confirmed(deliveries.clone())
            }
            Write::LetGo(deliveries, why) => {
                self.let_go(deliveries, *why)?;
                Written::LetGo(deliveries.clone(), *why)
            }
            Write::Settle { sub_app, received_before } => {
                Written::Settled(self.settle(*sub_app, *received_before, at)?)
            }
            Write::Load { after, limit } => Written::Loaded(self.load(*after, *limit)?),
            Write::Release(event) => Written::Released(self.release(*event)?),
            Write::SettleUnpolled { polled, received_before, limit } => {
                Written::Settled(self.settle_unpolled(polled, *received_before, at, *limit)?)
            }
            Write::Prune { before, limit } => Written::Pruned(self.prune(*before, *limit)?),
            Write::Vacuum { pages } => Written::Vacuumed(self.vacuum(*pages)?),
            Write::Summarise(polled) => Written::Summary(self.summary(polled.as_deref())?),
        })
    }
}
