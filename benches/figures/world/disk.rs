//! What the disk can do, and how much room it has.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The magic number of `tmpfs` (Linux's `magic.h`).
const TMPFS: u32 = 0x0102_1994;

/// Whether files in this folder are in memory, where a sync costs nothing.
pub(crate) fn is_memory(folder: &Path) -> bool {
    let stat = rustix::fs::statfs(folder).expect("a file system can be examined");
    // The field's width and sign differ between platforms; the magic numbers have 32 bits.
    stat.f_type as u32 == TMPFS
}

/// The bytes that may still be written to the disk of this folder.
pub(crate) fn free_bytes(folder: &Path) -> u64 {
    let stat = rustix::fs::statvfs(folder).expect("a file system can be examined");
    stat.f_bavail * stat.f_frsize
}

/// How long it takes to append a page to a file and to sync it, time after time.
pub(crate) fn sync_times(folder: &Path, count: usize) -> Vec<Duration> {
    let mut file = File::create(folder.join("sync")).expect("a file can be made");
    let mut once = || {
        let began = Instant::now();
        file.write_all(&[1; 4096]).expect("a file can be written");
        file.sync_data().expect("a file can be synced");
        began.elapsed()
    };
    (0..count).map(|_| once()).collect()
}
