//! A relay as a process of its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tencent_vod_emulator::Emulator;

const LIMIT: Duration = Duration::from_secs(60);

/// What a relay of this cloud needs in its environment. It writes to standard output, and its files are in this folder.
pub(crate) fn environment(cloud: &Emulator, folder: &Path) -> [(&'static str, OsString); 7] {
    let credential = cloud.credential();
    [
        ("TENCENTCLOUD_SECRET_ID", credential.secret_id.into()),
        ("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose().into()),
        ("VODRELAY_VOD__ENDPOINT", cloud.endpoint().into()),
        ("VODRELAY_OUTPUT__KIND", "stdout".into()),
        ("VODRELAY_JOURNAL__PATH", folder.join("journal.db").into()),
        // A port that the system chooses.
        ("VODRELAY_HTTP__LISTEN", "127.0.0.1:0".into()),
        ("VODRELAY_STATUS__SOCKET", folder.join("status.sock").into()),
    ]
}

/// A process that does not outlive its test.
pub(crate) struct Relay(pub(crate) Child);

impl Relay {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
