//! The journal's path: whether it can be used, whether a relay uses it, and what a sync of the disk costs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::lines::CheckLine;
use crate::journal::OpenError;
use crate::journal::probe::{JournalReport, JournalStanding, probe};

const PART: &str = "journal";

/// Every commit waits for the disk. A slower sync makes the relay slow.
const SLOW_SYNC: Duration = Duration::from_millis(20);

/// A busy day can use up less free space than this.
const LITTLE_SPACE: u64 = 1_000_000_000;

pub(super) async fn check(path: PathBuf, deadline: Instant) -> Vec<CheckLine> {
    let shown = path.display().to_string();
    let probing = tokio::task::spawn_blocking(move || (probe(&path), path));
    match timeout_at(deadline, probing).await {
        Ok(Ok((Ok(report), path))) => vec![standing(&path, &report), disk(&report)],
        Ok(Ok((Err(error), _))) => vec![refused(&error)],
        Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => {
            vec![CheckLine::away(PART, format!("{shown}: the disk does not answer; see the kernel's log"))]
        }
    }
}

fn refused(error: &OpenError) -> CheckLine {
    let line = match error {
        OpenError::InUse { .. }
        | OpenError::Files { .. }
        | OpenError::Failed { .. }
        | OpenError::Disk { .. } => CheckLine::away(PART, error.to_string()),
        OpenError::Unusable { .. } | OpenError::Newer { .. } | OpenError::Damaged { .. } => {
            CheckLine::wrong(PART, error.to_string())
        }
    };
    line.error_code(error.error_code())
}

fn standing(path: &Path, report: &JournalReport) -> CheckLine {
    let newest = JournalReport::NEWEST_VERSION;
    let standing = match report.standing {
        JournalStanding::Absent => "missing; `vodrelay run` creates it".to_owned(),
        JournalStanding::Version(0) => "empty; `vodrelay run` fills it".to_owned(),
        JournalStanding::Version(version) if version == newest => format!("schema version {version}"),
        JournalStanding::Version(old) => {
            format!("schema version {old}, which `vodrelay run` migrates to {newest}")
        }
    };
    let user = match &report.in_use_by {
        Some(pid) => format!("in use by process {pid}"),
        None => "not in use".to_owned(),
    };
    CheckLine::ok(PART, format!("{}: {standing}; {user}", path.display()))
}

fn disk(report: &JournalReport) -> CheckLine {
    let (cost, count) = report.sync;
    let mut text = format!(
        "fsync {:.1} ms (p50 of {count}), {} free",
        cost.as_secs_f64() * 1_000.0,
        space(report.free_bytes)
    );
    let mut doubts = Vec::new();
    if report.in_memory {
        doubts.push("this file system is in memory and lost at a reboot: set journal.path to a real disk");
    }
    if cost > SLOW_SYNC {
        doubts.push("every commit waits that long: use a faster local disk");
    }
    if report.free_bytes < LITTLE_SPACE {
        doubts.push("the relay stops pulling when the disk is full: free space");
    }
    if doubts.is_empty() {
        return CheckLine::ok(PART, text);
    }
    for doubt in doubts {
        text += "; ";
        text += doubt;
    }
    CheckLine::warn(PART, text)
}

/// In the units of disks: powers of a thousand.
fn space(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 { format!("{:.1} GB", bytes / 1e9) } else { format!("{:.0} MB", bytes / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cost_ms: u64, free_bytes: u64, in_memory: bool) -> JournalReport {
        let sync = (Duration::from_millis(cost_ms), 20);
        JournalReport { standing: JournalStanding::Absent, in_use_by: None, sync, free_bytes, in_memory }
    }

    #[test]
    fn a_good_disk_is_shown_and_a_bad_one_is_warned_of() {
        let line = disk(&report(20, 64_000_000_000, false));
        assert_eq!(line, CheckLine::ok(PART, "fsync 20.0 ms (p50 of 20), 64.0 GB free"));
        let line = disk(&report(21, 5_000_000, true));
        assert_eq!(
            line,
            CheckLine::warn(
                PART,
                "fsync 21.0 ms (p50 of 20), 5 MB free; this file system is in memory and lost at a reboot: set journal.path to a real disk; every commit waits that long: use a faster local disk; the relay stops pulling when the disk is full: free space"
            )
        );
    }

    #[test]
    fn a_journal_in_use_is_nothing_bad() {
        let mut report = report(1, u64::MAX, false);
        let path = Path::new("/j");
        let said = "/j: missing; `vodrelay run` creates it; not in use";
        assert_eq!(standing(path, &report), CheckLine::ok(PART, said));
        report.standing = JournalStanding::Version(JournalReport::NEWEST_VERSION);
        report.in_use_by = Some("17".to_owned());
        assert_eq!(
            standing(path, &report),
            CheckLine::ok(PART, "/j: schema version 5; in use by process 17")
        );
    }
}
