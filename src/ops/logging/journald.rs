//! systemd's journal in its own protocol (systemd.io, "Native Journal Protocol"). The fields of a line are
//! made where it is logged, and the thread that writes the log sends them.

use std::fmt::{self, Write as _};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::LogQueue;

const SOCKET: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "vodrelay";
/// The prefix of a line's own fields, which could be mistaken for others.
const PREFIX: &str = "VODRELAY_";

/// The connection to the journal.
#[derive(Debug)]
pub(super) struct Journald {
    socket: UnixDatagram,
}

impl Journald {
    /// Fails when nothing listens there. It does not wait, because the journal may be blocked.
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self { socket })
    }

    /// Sends one line's fields. Waits while the journal does not read.
    pub(super) fn send(&mut self, fields: &[u8]) -> io::Result<()> {
        match self.socket.send(fields) {
            Ok(_) => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => self.send_large(fields),
            // The journal was restarted.
            Err(_) => {
                *self = Self::connect()?;
                self.socket.send(fields).map(|_| ())
            }
        }
    }

    /// A message that is too large for a datagram goes as a sealed file.
    fn send_large(&self, fields: &[u8]) -> io::Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = std::fs::File::from(rustix::fs::memfd_create("vodrelay-log", flags)?);
        file.write_all(fields)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        let address = SocketAddrUnix::new(SOCKET)?;
        rustix::net::sendmsg_addr(
            &self.socket,
            &address,
            &[IoSlice::new(&[])],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

/// Makes the fields of each line.
pub(super) struct Fields(pub(super) LogQueue);

impl<S: Subscriber> Layer<S> for Fields {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.push(fields(event));
    }
}

fn fields(event: &Event<'_>) -> Vec<u8> {
    let metadata = event.metadata();
    let mut fields = Made(Vec::with_capacity(512));
    // syslog(3). One level lower would make every line at info a notice, which journalctl prints in bold.
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    fields.put("PRIORITY", priority);
    fields.put("SYSLOG_IDENTIFIER", IDENTIFIER);
    fields.put("TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        fields.put("CODE_FILE", file);
        fields.put("CODE_LINE", &line.to_string());
    }
    event.record(&mut fields);
    fields.0
}

struct Made(Vec<u8>);

impl Made {
    /// With its length, so a line feed in a value ends nothing.
    fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl Visit for Made {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a text fails only if the value does.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return self.put("MESSAGE", value);
        }
        let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = PREFIX.chars().chain(field.name().chars().map(allowed)).collect();
        self.put(&name, value);
    }
}
