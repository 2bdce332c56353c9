//! Processes and what the kernel counts of them.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Bench, STEP_LIMIT, until};

/// The unit of times in `/proc/PID/stat`: a hundredth of a second on every Linux that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// One child process. It ends with this value, and with the benchmark, whichever is first.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the program that was built together with this benchmark. Its standard error goes to a file of that name.
    pub(crate) fn start<'a>(
        bench: &Bench,
        name: &str,
        arguments: &[&str],
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let log = bench.folder().join(format!("{name}.log"));
        let file = File::create(&log).expect("a log can be written");
        let child = Command::new(env!("CARGO_BIN_EXE_vodrelay"))
            .args(arguments)
            .env_clear()
            .envs(variables)
            .process_group(bench.leash.group())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the program can be started");
        Self { child, log }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process has a number"))
    }

    /// What it wrote to its standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log can be read")
    }

    /// Panics when it has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
            panic!("a process ended by itself: {status}\n{}", tail(&self.log));
        }
    }

    /// SIGTERM, and then the orderly end.
    pub(crate) async fn terminate(mut self) -> String {
        self.assert_alive();
        // The child is unreaped until it is waited for, so that its number is its own.
        kill(self.pid(), Signal::SIGTERM).expect("a child can be told to end");
        let status: ExitStatus = until("the end of a process", STEP_LIMIT, async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await;
        assert!(status.success(), "{status}\n{}", tail(&self.log));
        self.log()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of a process so far, of all its threads, in user and kernel mode.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // "pid (name) state ...": the name may hold anything, the times are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").expect("a process has a name");
    let times = fields.split(' ').skip(11).take(2);
    let ticks: u32 = times.map(|field| field.parse::<u32>().expect("a time is a number")).sum();
    TICK * ticks
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident_bytes: u64,
    pub(crate) peak_bytes: u64,
}

pub(crate) fn memory(pid: Pid) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process has memory");
        let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        kib.parse::<u64>().expect("a size is a number") * 1024
    };
    Memory { resident_bytes: bytes("VmRSS"), peak_bytes: bytes("VmHWM") }
}

/// The last words of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
