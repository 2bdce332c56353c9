//! What the service manager is told: that we are ready, that we stop, and how things stand in one line.
//!
//! Without `NOTIFY_SOCKET` nobody listens, and nothing is sent.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::reason::Reason;

/// The line to the service manager. One owner: it remembers what was said last.
#[derive(Debug, Default)]
pub struct ServiceManager {
    status: String,
    failed: bool,
    /// Whether the service manager waits for signs of life (`WatchdogSec=`).
    watchdog: bool,
}

impl ServiceManager {
    /// The line, with nothing said yet.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled().is_some(), ..Self::default() }
    }

    /// The program has begun its work.
    pub fn ready(&mut self) {
        self.send(NotifyState::Ready);
    }

    /// The program finishes what is in flight, and then ends.
    pub fn stopping(&mut self) {
        self.send(NotifyState::Stopping);
    }

    /// The configuration is being read again; [`Self::ready`] ends it (sd_notify(3), `RELOADING=1`).
    pub fn reloading(&mut self) {
        let monotonic = NotifyState::monotonic_usec_now().ok();
        let sent = match monotonic {
            Some(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
            None => sd_notify::notify(&[NotifyState::Reloading]),
        };
        self.sent(sent);
    }

    /// The start takes longer, and goes on: so much more time from now on.
    pub fn extend_start(&mut self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.send(NotifyState::ExtendTimeoutUsec(micros));
    }

    /// Every loop has made progress: the watchdog may wait on.
    pub fn alive(&mut self) {
        if self.watchdog {
            self.send(NotifyState::Watchdog);
        }
    }

    /// How things stand, in one line. Said only when it differs from what was said last.
    pub fn status(&mut self, status: &str) {
        // The protocol is made of lines: a line feed would begin another assignment.
        let status = status.replace(['\n', '\r'], " ");
        if status != self.status {
            self.send(NotifyState::Status(&status));
            self.status = status;
        }
    }

    fn send(&mut self, state: NotifyState<'_>) {
        self.sent(sd_notify::notify(&[state]));
    }

    fn sent(&mut self, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                warn!(code = %Reason::ManagerUnreachable, %error, "the service manager cannot be told how things stand");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    const SPEAKER: &str = "VODRELAY_TEST_SPEAKER";

    /// The variable is the process's, so that the speaker is a process of its own: this test again, told so.
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

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        let mut manager = ServiceManager::new();
        manager.status("unheard");
        manager.stopping();
        assert!(!manager.failed);
    }
}
