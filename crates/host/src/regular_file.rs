//! Reads a named file: a regular one, and not larger than sensible.
//!
//! A FIFO may have no writer, and a device no end: a read would wait for ever or use all memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Reads the file at `path` of at most `max_bytes`. Blocks on the disk, and on nothing else.
///
/// # Errors
///
/// The system's error, or one that says what the file is instead.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    if is_nothing(path) {
        return Ok(Vec::new());
    }
    if let Some(kind) = other_kind(path) {
        let message = format!("it is a {kind}, and must be a regular file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    // Another file may be there by now, and opening a FIFO waits for a writer.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("it is larger than {max_bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Whether it is `/dev/null`, which people name for an empty file. It is the third device of the first kind
/// on every Linux.
fn is_nothing(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == rustix::fs::makedev(1, 3))
}

/// The kind of thing at `path`, if it exists and is not a file.
pub fn other_kind(path: &Path) -> Option<&'static str> {
    let kind = fs::metadata(path).ok()?.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("folder")
    } else if kind.is_fifo() {
        Some("FIFO")
    } else if kind.is_socket() {
        Some("socket")
    } else {
        Some("device")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// The result of `read`, which must not take long.
    fn told(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
        let (sender, receiver) = mpsc::channel();
        let path = path.to_owned();
        std::thread::spawn(move || sender.send(read(&path, max_bytes).map_err(|error| error.to_string())));
        receiver.recv_timeout(Duration::from_secs(30)).expect("it does not wait")
    }

    #[test]
    fn what_has_no_end_or_may_have_no_writer_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, kind) in [
            (fifo.as_path(), "FIFO"),
            (&socket, "socket"),
            (folder.path(), "folder"),
            (Path::new("/dev/zero"), "device"),
        ] {
            assert_eq!(told(path, 100), Err(format!("it is a {kind}, and must be a regular file")));
        }
        let missing = told(&folder.path().join("missing"), 100).unwrap_err();
        assert_eq!(missing, "No such file or directory (os error 2)");
    }

    #[test]
    fn the_null_device_is_an_empty_file() {
        assert_eq!(told(Path::new("/dev/null"), 100), Ok(Vec::new()));
    }

    #[test]
    fn a_file_of_the_largest_size_is_read_whole_and_no_larger_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7; 100]).unwrap();
        assert_eq!(told(&path, 100), Ok(vec![7; 100]));
        assert_eq!(told(&path, 99), Err("it is larger than 99 bytes".to_owned()));
        // The system's size is unreliable: files of /proc have none.
        assert!(!told(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }
}
