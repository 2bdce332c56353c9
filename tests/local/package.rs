//! What the Debian package does when it is purged. `scripts/test-systemd` sees the same on a real system.

use std::path::Path;
use std::process::Command;

use crate::observers::private_mounts;

/// Runs the purge on a `/var/lib` of its own, which this script has filled, and returns what is there afterwards.
fn purged(fill: &str) -> (Option<i32>, Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/postrm");
    // The system's own folder is hidden, and comes to no harm.
    let steps = format!(
        "set -e; mount -t tmpfs tmpfs /var/lib; cd /var/lib; {fill}; code=0; sh \"$1\" purge || code=$?; find . -mindepth 1 | sort; exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(private_mounts(folder.path())).args(["sh", "-c", &steps, "sh"]).arg(script);
    let output = command.output().unwrap();
    let lines = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let left = lines(output.stdout).lines().map(str::to_owned).collect();
    (output.status.code(), left, lines(output.stderr))
}

const FILES: &str =
    "mkdir vodrelay/backups; touch vodrelay/journal.db vodrelay/.hidden vodrelay/backups/journal.db";

#[test]
fn a_purge_removes_the_journal_s_folder_and_nothing_beside_it() {
    let (code, left, told) = purged(&format!("mkdir vodrelay private beside; {FILES}"));
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(left, ["./beside", "./private"]);
}

/// A mount point cannot be removed, which must not end the purge.
#[test]
fn a_purge_empties_a_mount_point_and_ends_well() {
    let (code, left, told) = purged(&format!("mkdir vodrelay; mount -t tmpfs tmpfs vodrelay; {FILES}"));
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(left, ["./vodrelay"]);
}

/// Another file system in the folder is somebody's on purpose. It is named, and stays.
#[test]
fn a_purge_leaves_what_is_mounted_in_the_folder() {
    let fill = format!(
        "mkdir vodrelay; {FILES}; mount -t tmpfs tmpfs vodrelay/backups; touch vodrelay/backups/theirs"
    );
    let (code, left, told) = purged(&fill);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(left, ["./vodrelay", "./vodrelay/backups", "./vodrelay/backups/theirs"]);
    assert!(told.contains("delete the rest by hand"), "{told}");
}

#[test]
fn a_purge_empties_what_is_behind_a_link_and_removes_the_link() {
    let fill = format!("mkdir elsewhere; ln -s elsewhere vodrelay; touch elsewhere-beside; {FILES}");
    let (code, left, told) = purged(&fill);
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(left, ["./elsewhere", "./elsewhere-beside"]);
}

#[test]
fn a_purge_without_a_journal_ends_well() {
    assert_eq!(purged("mkdir beside"), (Some(0), vec!["./beside".to_owned()], String::new()));
}
