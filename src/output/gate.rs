//! Lets a batch leave in one piece.
//!
//! lapin's thread writes as soon as there is something to write: first the one message that woke it, then the few that came
//! meanwhile, and it goes to sleep in between. A batch of 64 left in eight pieces that way (measured with 4.12.3), and each of them
//! cost a system call, a wake and two switches of threads here, and the broker a read. So whatever lapin writes goes through a gate
//! that is shut while a lane puts its batch.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::heard::Heard;
use super::tls::Socket;

/// Shut while somebody holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<()>>);

impl Gate {
    /// Shuts it until the guard is dropped. lapin's thread stands still meanwhile: this is for a stretch that waits for nothing.
    pub(super) fn shut(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) {
        drop(self.shut());
    }
}

/// What lapin runs on: this process's tokio, with connections that have this gate.
pub(super) fn runtime(gate: &Gate) -> Runtime<RuntimeParts<Tokio, Gated>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Gated { tokio, gate: gate.clone() }))
}

/// Tokio's reactor, whose connections have a gate.
#[derive(Clone, Debug)]
pub(super) struct Gated {
    tokio: Tokio,
    gate: Gate,
}

impl Reactor for Gated {
    type TcpStream = GatedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let gate = self.gate.clone();
        async move { Ok(GatedStream::new(Box::new(TcpStream::connect(address).await?), gate, Heard::default())) }
    }
}

/// A connection to the broker with a gate.
pub(super) struct GatedStream {
    socket: Compat<Box<dyn Socket>>,
    gate: Gate,
    heard: Option<Heard>,
}

impl GatedStream {
    /// `heard` takes the first that is read.
    pub(super) fn new(socket: Box<dyn Socket>, gate: Gate, heard: Heard) -> Self {
        Self { socket: socket.compat(), gate, heard: Some(heard) }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.heard.as_ref().is_some_and(|heard| !heard.take(bytes)) {
            self.heard = None;
        }
    }
}

impl AsyncRead for GatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.hear(&buffer[..read]);
        Poll::Ready(Ok(read))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.socket).poll_read_vectored(cx, buffers))?;
        let mut left = read;
        for buffer in buffers {
            let part = left.min(buffer.len());
            self.hear(&buffer[..part]);
            left -= part;
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, buffers)
    }

    /// lapin flushes before it collects what there is to write, and this is where its thread waits.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate.pass();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    use futures_util::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_lapin_would_write_waits_until_the_gate_opens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate::default();
        let runtime = runtime(&gate);
        let mut stream = runtime.tcp_connect_addr(listener.local_addr().unwrap()).await.unwrap();

        let (say, said) = mpsc::channel();
        let put = gate.shut();
        let lapin = thread::spawn({
            let say = say.clone();
            move || {
                say.send("woken").unwrap();
                futures_util::FutureExt::now_or_never(stream.flush()).unwrap().unwrap();
                say.send("written").unwrap();
            }
        });
        assert_eq!(said.recv().unwrap(), "woken");
        // Were it open, its thread would be through long before these turns are over.
        for _ in 0..1_000 {
            thread::yield_now();
        }
        say.send("put").unwrap();
        drop(put);
        lapin.join().unwrap();
        drop(say);
        assert_eq!(said.iter().collect::<Vec<_>>(), ["put", "written"]);
    }
}
