//! What tests ask of the journal, each with the answer that it has.

#![expect(async_fn_in_trait, reason = "tests await the answers where they ask")]

use std::sync::Arc;

use tencent_vod_event::SubAppId;
use vodrelay::journal::{Closed, Journal};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::identity::{DeliveryId, EventId, Recorded};
use vodrelay_core::lease::Lease;
use vodrelay_core::outcome::Problem;
use vodrelay_core::write::{
    ConfirmedDelivery, FailedAttempt, LetGo, Loaded, Pulled, Vacuumed, Write, Written,
};

/// The journal's answer to a write, in the type that belongs to it.
macro_rules! answer_of {
    ($written:expr, $pattern:pat => $value:expr) => {
        match $written {
            $pattern => Ok($value),
            other => panic!("an unexpected answer: {other:?}"),
        }
    };
}

/// The journal, as tests ask it.
pub trait Asks {
    async fn record(&self, pulled: Pulled) -> Result<Vec<Recorded>, Closed>;
    async fn published(&self, events: Vec<EventId>, at: WallTime) -> Result<(), Closed>;
    async fn failed(&self, attempts: Vec<FailedAttempt>) -> Result<(), Closed>;
    async fn parked(&self, events: Vec<(EventId, Problem)>) -> Result<(), Closed>;
    async fn confirmed(&self, deliveries: Vec<DeliveryId>, at: WallTime) -> Result<(), Closed>;
    async fn let_go(&self, deliveries: Vec<DeliveryId>, why: LetGo) -> Result<(), Closed>;
    async fn settle(&self, sub_app: SubAppId, before: Moment, at: WallTime) -> Result<u64, Closed>;
    async fn load(&self, after: EventId, limit: u32) -> Result<Vec<Loaded>, Closed>;
    async fn release(&self, event: EventId) -> Result<bool, Closed>;
    async fn settle_unpolled(
        &self,
        polled: Arc<[SubAppId]>,
        received_before: WallTime,
        at: WallTime,
        limit: u32,
    ) -> Result<u64, Closed>;
    async fn prune(&self, before: WallTime, limit: u32) -> Result<u64, Closed>;
    async fn vacuum(&self, pages: u32) -> Result<Vacuumed, Closed>;
}

impl Asks for Journal {
    async fn record(&self, pulled: Pulled) -> Result<Vec<Recorded>, Closed> {
        answer_of!(self.ask(Write::Record(pulled.into())).await?, Written::Recorded(_, recorded) => recorded)
    }

    async fn published(&self, events: Vec<EventId>, at: WallTime) -> Result<(), Closed> {
        answer_of!(self.ask_at(Write::Published(events.into()), at).await?, Written::Published(_) => ())
    }

    async fn failed(&self, attempts: Vec<FailedAttempt>) -> Result<(), Closed> {
        answer_of!(self.ask(Write::Failed(attempts.into())).await?, Written::Failed(_) => ())
    }

    async fn parked(&self, events: Vec<(EventId, Problem)>) -> Result<(), Closed> {
        answer_of!(self.ask(Write::Parked(events.into())).await?, Written::Parked(_) => ())
    }

    async fn confirmed(&self, deliveries: Vec<DeliveryId>, at: WallTime) -> Result<(), Closed> {
        // The journal looks at nothing but the number.
        let nothing = Moment(0);
        let deliveries = deliveries.into_iter().map(|delivery| ConfirmedDelivery {
            delivery,
            event: EventId(0),
            lease: Lease { sent_at: nothing, cutoff: nothing },
            received_at: nothing,
            confirmed_at: nothing,
        });
        answer_of!(self.ask_at(Write::Confirmed(deliveries.collect()), at).await?, Written::Confirmed(_) => ())
    }

    async fn let_go(&self, deliveries: Vec<DeliveryId>, why: LetGo) -> Result<(), Closed> {
        answer_of!(self.ask(Write::LetGo(deliveries.into(), why)).await?, Written::LetGo(..) => ())
    }

    async fn settle(&self, sub_app: SubAppId, before: Moment, at: WallTime) -> Result<u64, Closed> {
        let settle = Write::Settle { sub_app, received_before: before };
        answer_of!(self.ask_at(settle, at).await?, Written::Settled(events) => events)
    }

    async fn load(&self, after: EventId, limit: u32) -> Result<Vec<Loaded>, Closed> {
        answer_of!(self.ask(Write::Load { after, limit }).await?, Written::Loaded(loaded) => loaded)
    }

    async fn release(&self, event: EventId) -> Result<bool, Closed> {
        answer_of!(self.ask(Write::Release(event)).await?, Written::Released(done) => done)
    }

    async fn settle_unpolled(
        &self,
        polled: Arc<[SubAppId]>,
        received_before: WallTime,
        at: WallTime,
        limit: u32,
    ) -> Result<u64, Closed> {
        let settle = Write::SettleUnpolled { polled, received_before, limit };
        answer_of!(self.ask_at(settle, at).await?, Written::Settled(events) => events)
    }

    async fn prune(&self, before: WallTime, limit: u32) -> Result<u64, Closed> {
        answer_of!(self.ask(Write::Prune { before, limit }).await?, Written::Pruned(events) => events)
    }

    async fn vacuum(&self, pages: u32) -> Result<Vacuumed, Closed> {
        answer_of!(self.ask(Write::Vacuum { pages }).await?, Written::Vacuumed(pages) => pages)
    }
}
