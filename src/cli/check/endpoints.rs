//! The listeners of the relay: HTTP and the status socket.

use std::net::SocketAddr;
use std::path::Path;

use vodrelay_core::error_code::ErrorCode;

use super::lines::CheckLine;
use crate::config::Config;
use crate::ops::http::{self, Taken};
use crate::ops::status;

/// A line for each. A relay that runs on the same journal already has them, which is not a failure.
pub(super) async fn check(config: Config) -> Vec<CheckLine> {
    let holder = crate::journal::probe::in_use_by(&config.journal.path).ok().flatten();
    let mut lines = Vec::new();
    if let Some(address) = config.http.listen {
        lines.push(listener(address, holder.as_deref()).await);
    }
    if let Some(path) = &config.status.socket {
        lines.push(socket(path, &config.journal.path).await);
    }
    lines
}

async fn listener(address: SocketAddr, holder: Option<&str>) -> CheckLine {
    const PART: &str = "http";
    match (http::probe(address).await, holder) {
        (Ok(Taken::No), _) => CheckLine::ok(PART, format!("{address} can be listened on")),
        (Ok(Taken::ByRelay), Some(pid)) => {
            CheckLine::ok(PART, format!("{address} is a relay's, and process {pid} runs on this journal"))
        }
        (Ok(Taken::ByRelay), None) => CheckLine::away(
            PART,
            format!(
                "{address} is a relay's, and none runs on this journal: give each relay an address of its own (http.listen), or set \
                 http.listen = \"\""
            ),
        )
        .error_code(ErrorCode::ListenerFailed),
        // The same exit code as `run`: an address may be free later, or appear with its network.
        (Err(error), _) => CheckLine::away(PART, error.to_string()).error_code(ErrorCode::ListenerFailed),
    }
}

/// The relay works without the status socket, so a failure is a warning, as in the log of `run`.
async fn socket(path: &Path, journal: &Path) -> CheckLine {
    const PART: &str = "status";
    let shown = path.display();
    match status::probe(path).await {
        Ok(None) => CheckLine::ok(PART, format!("{shown} can be made")),
        Ok(Some(document)) if is_of(&document, journal) => {
            CheckLine::ok(PART, format!("{shown}: the relay that runs on this journal answers"))
        }
        Ok(Some(_)) => CheckLine::warn(
            PART,
            format!(
                "{shown}: a relay on another journal answers, and this one would have no status socket; give each a path of its own \
                 (status.socket)"
            ),
        )
        .error_code(ErrorCode::ListenerFailed),
        Err(_) if comes_with(path, journal) => {
            CheckLine::ok(PART, format!("{shown} can be made; `vodrelay run` makes its folder, with the journal's"))
        }
        Err(error) => {
            CheckLine::warn(PART, format!("{error}; the systemd unit makes /run/vodrelay when the service starts"))
                .error_code(ErrorCode::ListenerFailed)
        }
    }
}

/// Whether the socket's folder is missing and will be created for the journal, which happens before the
/// socket.
fn comes_with(socket: &Path, journal: &Path) -> bool {
    let folder =
        |path: &Path| std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
    let (Some(socket), Some(journal)) = (folder(socket), folder(journal)) else { return false };
    !socket.exists() && journal.starts_with(socket)
}

/// Whether a status document is of the relay on this journal.
fn is_of(document: &str, journal: &Path) -> bool {
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    let theirs = document.pointer("/about/journal");
    theirs.and_then(serde_json::Value::as_str).is_some_and(|theirs| Path::new(theirs) == journal)
}
