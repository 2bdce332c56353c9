//! Child processes that end with this one, however it ends.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process group that cannot outlive this process: its leader waits for the end of a pipe that this process holds, and
/// then kills the whole group.
pub struct ProcessGroup(Child);

impl ProcessGroup {
    pub fn new() -> Self {
        let leader = Command::new("sh")
            .args(["-c", "read -r _; kill -9 0"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(leader.unwrap())
    }

    pub fn group(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
