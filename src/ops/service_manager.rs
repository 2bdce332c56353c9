//! The messages to the service manager: ready, stopping, and the state in one line.
//!
//! Without `NOTIFY_SOCKET` there is no receiver, and nothing is sent. The relay does not wait for a blocked
//! service manager: necessary messages are sent when it reads again.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;
use vodrelay_core::error_code::ErrorCode;

/// The connection to the service manager. It has one owner, because it remembers the last state.
#[derive(Debug, Default)]
pub struct ServiceManager {
    status: String,
    failed: bool,
    /// Necessary messages that could not be sent yet.
    waiting: VecDeque<String>,
    /// Whether the service manager expects signs of progress (`WatchdogSec=`).
    watchdog: bool,
}

impl ServiceManager {
    /// A connection without any message yet.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled().is_some(), ..Self::default() }
    }

    /// The program has begun its work.
    pub fn ready(&mut self) {
        self.must_send(&[NotifyState::Ready]);
    }

    /// The program finishes what is in flight, and then ends.
    pub fn stopping(&mut self) {
        self.must_send(&[NotifyState::Stopping]);
    }

    /// The configuration is being read again; [`Self::ready`] ends it (sd_notify(3), `RELOADING=1`).
    pub fn reloading(&mut self) {
        let monotonic = NotifyState::monotonic_usec_now().ok();
        match monotonic {
            Some(now) => self.must_send(&[NotifyState::Reloading, now]),
            None => self.must_send(&[NotifyState::Reloading]),
        }
    }

    /// The start takes longer: this much more time from now on.
    pub fn extend_start(&mut self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.try_send(&lines(&[NotifyState::ExtendTimeoutUsec(micros)]));
    }

    /// Every loop has made progress: feeds the watchdog.
    pub fn alive(&mut self) {
        if self.watchdog {
            self.try_send(&lines(&[NotifyState::Watchdog]));
        } else {
            self.send_waiting();
        }
    }

    /// The state in one line. Sent only when it differs from the last one.
    pub fn status(&mut self, status: &str) {
        // The protocol consists of lines: a line feed would begin another assignment.
        let status = status.replace(['\n', '\r'], " ");
        if status != self.status && self.try_send(&lines(&[NotifyState::Status(&status)])) {
            self.status = status;
        }
    }

    fn must_send(&mut self, states: &[NotifyState<'_>]) {
        self.waiting.push_back(lines(states));
        self.send_waiting();
    }

    /// Sends the waiting messages in their order. Whether no message is left.
    fn send_waiting(&mut self) -> bool {
        while let Some(message) = self.waiting.front() {
            let sent = send(message);
            let full = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            self.sent(sent);
            if full {
                return false;
            }
            self.waiting.pop_front();
        }
        true
    }

    /// Sends a message that is worthless later. Whether it was sent, or there is no receiver.
    fn try_send(&mut self, message: &str) -> bool {
        if !self.send_waiting() {
            return false;
        }
        let sent = send(message);
        let full = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.sent(sent);
        !full
    }

    fn sent(&mut self, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                warn!(error_code = %ErrorCode::ManagerUnreachable, %error, "the service manager does not take messages");
            }
            Err(_) => {}
        }
    }
}

fn lines(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

/// Sends one message. It does not wait: `sd_notify::notify` would wait for a service manager that does not
/// read.
fn send(message: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(&name)?)?;
    socket.send(message.as_bytes()).map(|_| ())
}

/// A path, or a name without a file that begins with `@` (sd_notify(3)).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const SPEAKER: &str = "VODRELAY_TEST_SPEAKER";

    /// The variable belongs to the process, so the test speaks in a process of its own: this test again, with
    /// a variable that says so.
    #[test]
    fn the_service_manager_hears_each_thing_once() {
        if std::env::var_os(SPEAKER).is_some() {
            let mut manager = ServiceManager::new();
            manager.ready();
            manager.status("carrying");
            manager.status("carrying");
            manager.status("two\nlines");
            manager.extend_start(Duration::from_secs(30));
            manager.alive();
            manager.reloading();
            manager.stopping();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut speaker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ops::service_manager::tests::the_service_manager_hears_each_thing_once"])
            .env(SPEAKER, "1")
            .env("WATCHDOG_USEC", "30000000")
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for expected in [
            "READY=1\n",
            "STATUS=carrying\n",
            "STATUS=two lines\n",
            "EXTEND_TIMEOUT_USEC=30000000\n",
            "WATCHDOG=1\n",
            "RELOADING=1\nMONOTONIC_USEC=",
            "STOPPING=1\n",
        ] {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            let told = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(told.starts_with(expected), "{told:?} instead of {expected:?}");
        }
        assert!(speaker.wait().unwrap().success());
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 256]).is_err(), "nothing more is said");
    }

    /// Waits until the other process has made this file.
    fn meet(path: &std::path::Path) {
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !path.exists() {
            assert!(std::time::Instant::now() < until, "nobody has made {path:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_service_manager_that_stands_still_is_not_waited_for_and_told_what_it_has_to_know_later() {
        if let Some(folder) = std::env::var_os(SPEAKER) {
            let folder = std::path::PathBuf::from(folder);
            let mut manager = ServiceManager::new();
            // More than any socket holds.
            for number in 0..5_000 {
                manager.status(&format!("{number}"));
            }
            manager.ready();
            manager.stopping();
            std::fs::write(folder.join("full"), "").unwrap();
            meet(&folder.join("empty"));
            manager.alive();
            manager.status("4999");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let mut speaker = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "ops::service_manager::tests::a_service_manager_that_stands_still_is_not_waited_for_and_told_what_it_has_to_know_later",
            ])
            .env(SPEAKER, directory.path())
            .env("NOTIFY_SOCKET", directory.path().join("notify"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        meet(&directory.path().join("full"));
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let mut kept = 0;
        while let Ok(length) = socket.recv(&mut buffer) {
            assert!(buffer[..length].starts_with(b"STATUS="));
            kept += 1;
        }
        assert!((1..5_000).contains(&kept), "{kept}");
        std::fs::write(directory.path().join("empty"), "").unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for expected in ["READY=1\n", "STOPPING=1\n", "STATUS=4999\n"] {
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
        }
        assert!(speaker.wait().unwrap().success());
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        let mut manager = ServiceManager::new();
        manager.status("unheard");
        manager.stopping();
        assert!(!manager.failed);
    }
}
