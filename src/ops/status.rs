//! The status socket: a connection receives the relay's state as one JSON document. Nothing is read from it,
//! so it cannot change anything. Its mode says who may connect.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Its owner and its group may connect.
const MODE: u32 = 0o660;
/// How long the relay waits for a slow reader.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The largest number of readers at once. A document fits into a socket buffer, so the relay waits for no
/// reader.
const CONNECTIONS: usize = 16;
/// A document is some kilobytes. A sender of more is not a relay.
const DOCUMENT_MAX_BYTES: u64 = 4 << 20;

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot open the status socket {path} (status.socket): {source}; see that its folder exists and can be written, choose another place, or set status.socket = \"\""
)]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// Serves the newest document until `stop` is cancelled. Then the socket is removed, if it is still ours.
///
/// # Errors
///
/// [`SocketError`].
pub fn spawn(
    path: &Path,
    document: watch::Receiver<String>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, SocketError> {
    let failed = |source| SocketError { path: path.to_owned(), source };
    remove_stale(path).map_err(failed)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let ours = inode(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    let path = path.to_owned();
    Ok(tokio::spawn(async move {
        stop.run_until_cancelled(serve(&listener, &document)).await;
        // Later readers find no socket, which is right. The file there may belong to another process by now.
        if inode(&path).is_ok_and(|there| there == ours) {
            let _ = fs::remove_file(path);
        }
        drop(listener);
    }))
}

/// A killed process leaves its socket behind, without a listener. Any other file of this name is not ours.
fn remove_stale(path: &Path) -> io::Result<()> {
    if look(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Whether a socket without a listener is there; an error when something there is not ours.
fn look(path: &Path) -> io::Result<bool> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file has this name, and stays"));
    }
    match connect(path) {
        // A full queue of connections has an owner too.
        Ok(()) | Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there, and stays"))
        }
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Whether [`spawn`] can have this path, for `vodrelay check`. A socket of another name is made in the folder
/// and removed again. Rights do not show whether the file system can hold one, which those below `/proc` and
/// FAT cannot. When a relay answers there, its document is returned.
///
/// # Errors
///
/// [`SocketError`], as [`spawn`] would return it, unless a relay answers there.
pub async fn probe(path: &Path) -> Result<Option<String>, SocketError> {
    let failed = |source| SocketError { path: path.to_owned(), source };
    SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let stale = look(path).map_err(failed);
    match stale {
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
            return match ask(path).await {
                Ok(Some(document)) if document.starts_with('{') => Ok(Some(document)),
                _ => Err(error),
            };
        }
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, folder, may, rustix::fs::AtFlags::EACCESS)
        .map_err(|error| failed(error.into()))?;
    let trial = folder.join(format!(".vr-{}", std::process::id()));
    // Where the trial's name is too long for a socket and the real one is not, only the rights are known.
    if SocketAddrUnix::new(&trial).is_ok() {
        drop(std::os::unix::net::UnixListener::bind(&trial).map_err(failed)?);
        // A socket without a listener is only a name.
        let _ = fs::remove_file(&trial);
    }
    Ok(None)
}

/// Connects without waiting for the other side to take the connection.
fn connect(path: &Path) -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

async fn serve(listener: &UnixListener, document: &watch::Receiver<String>) {
    let served = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // With this many connections, a new one waits in the kernel for as long as a slow reader is waited
        // for.
        let Ok(place) = Arc::clone(&served).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let text = document.borrow().clone();
                tokio::spawn(async move {
                    let _place = place;
                    let told = async {
                        stream.write_all(text.as_bytes()).await?;
                        stream.shutdown().await
                    };
                    // A reader that left has what it wanted.
                    let _ = tokio::time::timeout(ANSWER_LIMIT, told).await;
                });
            }
            // Usually too many open files: only a pause helps.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Asks the relay that serves this socket. `None` when none does.
///
/// # Errors
///
/// When the socket exists and cannot be read, usually because permission is denied.
pub async fn ask(path: &Path) -> io::Result<Option<String>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    let mut stream = stream.take(DOCUMENT_MAX_BYTES);
    let read = stream.read_to_string(&mut text);
    tokio::time::timeout(ANSWER_LIMIT, read)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_connects_gets_the_newest_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.sock");
        assert_eq!(ask(&path).await.unwrap(), None);
        let (document, watched) = watch::channel("one".to_owned());
        let stop = CancellationToken::new();
        let task = spawn(&path, watched.clone(), stop.clone()).unwrap();
        assert_eq!(ask(&path).await.unwrap().as_deref(), Some("one"));
        document.send_replace("two".to_owned());
        assert_eq!(ask(&path).await.unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        stop.cancel();
        task.await.unwrap();
        assert!(!path.exists());
        // The socket of a killed process is free, and is taken over.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(ask(&path).await.unwrap(), None);
        let stop = CancellationToken::new();
        let task = spawn(&path, watched, stop.clone()).unwrap();
        assert_eq!(ask(&path).await.unwrap().as_deref(), Some("two"));
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.sock");
        let (_document, watched) = watch::channel("one".to_owned());
        let refused = |words: &str| {
            let error = spawn(&path, watched.clone(), CancellationToken::new()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        };
        fs::write(&path, "a file").unwrap();
        refused("another file has this name, and stays");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        refused("another file has this name");
        fs::remove_file(&path).unwrap();
        let stop = CancellationToken::new();
        let task = spawn(&path, watched.clone(), stop.clone()).unwrap();
        refused("another process answers there, and stays");
        assert_eq!(ask(&path).await.unwrap().as_deref(), Some("one"));
        // Another process has it by now.
        fs::remove_file(&path).unwrap();
        let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        stop.cancel();
        task.await.unwrap();
        assert!(path.exists());
        drop(theirs);
    }

    #[tokio::test]
    async fn a_folder_that_can_hold_no_socket_is_found_by_a_trial_that_leaves_nothing_behind() {
        // Root may write there, but no file can be created.
        for path in ["/proc/status.sock", "/proc/self/status.sock", "/sys/status.sock"] {
            let error = probe(Path::new(path)).await.unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("choose another place"), "{error}");
            let (_document, watched) = watch::channel(String::new());
            spawn(Path::new(path), watched, CancellationToken::new()).unwrap_err();
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(probe(&folder.path().join("status.sock")).await.unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_is_named() {
        let (_document, watched) = watch::channel(String::new());
        let error = spawn(Path::new("/nowhere/status.sock"), watched, CancellationToken::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/status.sock"), "{error}");
    }
}
