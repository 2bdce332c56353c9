//! The numbers of open files, which can run out: whatever fails then has nothing to do with what it was about.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// What to do when the process (EMFILE) or the host (ENFILE) has as many files open as it may.
pub const NEXT_STEP: &str = "too many files are open: raise LimitNOFILE= of the unit (or `ulimit -n`), and see what holds them in /proc/PID/fd";

/// Whether no file could be opened, by an error and its causes.
pub fn is_missing(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let errno = Errno::from_io_error(io);
            if errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE)) {
                return true;
            }
            // An I/O error that was made of another one hides it from `source`.
            if let Some(inner) = io.get_ref() {
                cause = Some(inner);
                continue;
            }
        }
        cause = error.source();
    }
    false
}

/// Whether no file can be opened now: for errors of libraries that do not tell, such as those of the resolver and of SQLite.
pub fn are_used_up() -> bool {
    std::fs::File::open("/dev/null").is_err_and(|error| is_missing(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_it_however_deep_it_is() {
        let full = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert!(is_missing(&full));
        assert!(is_missing(&io::Error::other(io::Error::other(full))));
        assert!(is_missing(&io::Error::from_raw_os_error(Errno::NFILE.raw_os_error())));
        assert!(!is_missing(&io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(!are_used_up());
    }
}
