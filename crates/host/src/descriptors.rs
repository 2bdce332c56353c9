//! The numbers of open files, which can run out. Errors then are not about their subject.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// The next step when the process (EMFILE) or the host (ENFILE) has reached its limit of open files.
pub const NEXT_STEP: &str = "too many files are open: raise LimitNOFILE= of the unit (or `ulimit -n`), and see what holds them in /proc/PID/fd";

/// Whether an error or one of its causes means that no file could be opened.
pub fn is_missing(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let errno = Errno::from_io_error(io);
            if errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE)) {
                return true;
            }
            // An I/O error made from another one hides it from `source`.
            if let Some(inner) = io.get_ref() {
                cause = Some(inner);
                continue;
            }
        }
        cause = error.source();
    }
    false
}

/// Whether no file can be opened now: for errors of libraries that do not say, such as the resolver and
/// SQLite.
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
