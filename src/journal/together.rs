//! Requests that are put to the writer at once.
//!
//! The writer begins with the first request that comes. Of several that are put to it one after the other, it would commit
//! that one alone, and the others with the next commit.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::request::{Queued, Request};
use super::{Closed, Journal};

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Writer(mpsc::Sender<Queued>),
    /// To the others, until all of them go to the writer.
    Gathered(mpsc::Sender<Queued>, Arc<Mutex<Vec<Request>>>),
}

impl Way {
    pub(super) fn writer(&self) -> &mpsc::Sender<Queued> {
        let (Self::Writer(writer) | Self::Gathered(writer, _)) = self;
        writer
    }

    pub(super) async fn take(&self, request: Request) -> Result<(), Closed> {
        match self {
            Self::Writer(writer) => put(writer, vec![request]).await,
            Self::Gathered(_, gathered) => {
                lock(gathered).push(request);
                Ok(())
            }
        }
    }
}

async fn put(writer: &mpsc::Sender<Queued>, requests: Vec<Request>) -> Result<(), Closed> {
    writer.send(Queued::Requests(requests)).await.map_err(|_| Closed)
}

fn lock(gathered: &Mutex<Vec<Request>>) -> MutexGuard<'_, Vec<Request>> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests that share a commit, in their order.
#[derive(Debug)]
pub struct Together {
    journal: Journal,
    gathered: Arc<Mutex<Vec<Request>>>,
}

impl Journal {
    /// Begins with none.
    pub fn together(&self) -> Together {
        let gathered = Arc::default();
        let way = Way::Gathered(self.way.writer().clone(), Arc::clone(&gathered));
        Together { journal: Self { way, ..self.clone() }, gathered }
    }
}

impl Together {
    /// Adds what `ask` asks of the journal that it is given: one request. Its answer comes after [`Self::send`].
    ///
    /// # Panics
    ///
    /// When it does not wait for the journal's answer.
    pub fn add<F: Future>(&mut self, ask: impl FnOnce(Journal) -> F) -> Pin<Box<F>> {
        let mut answer = Box::pin(ask(self.journal.clone()));
        // Its first step makes the request.
        assert!(answer.as_mut().now_or_never().is_none(), "nobody can have answered yet");
        answer
    }

    /// Puts all of them to the writer.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn send(self) -> Result<(), Closed> {
        let requests = std::mem::take(&mut *lock(&self.gathered));
        if requests.is_empty() { Ok(()) } else { put(self.journal.way.writer(), requests).await }
    }
}
