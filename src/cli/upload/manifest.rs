//! The segments of a playlist: which files belong to an `.m3u8` or `.mpd`.

use std::path::{Component, Path, PathBuf};

use tencent_vod::Client;
use tencent_vod_event::SubAppId;
use vodrelay_host::regular_file;

use crate::cli::exit::{Exit, Failure};

/// The largest playlist that is read: the API's bodies have at most 10 MB.
const MANIFEST_MAX_BYTES: u64 = 8 << 20;

/// The files beside a playlist, each with its path relative to it; none for other files.
pub(super) async fn segments(
    client: &Client,
    sub_app: SubAppId,
    path: &Path,
    kind: &str,
) -> Result<Vec<(PathBuf, String)>, Failure> {
    if !matches!(kind, "m3u8" | "mpd") {
        return Ok(Vec::new());
    }
    let text = regular_file::read(path, MANIFEST_MAX_BYTES)
        .map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", path.display())))?;
    let text = String::from_utf8(text).map_err(|_| {
        Failure::new(Exit::Usage, format!("{} is not UTF-8, as a playlist is", path.display()))
    })?;
    let named = client.parse_streaming_manifest(sub_app, &text, kind).await;
    let named = named.map_err(|error| Failure::new(Exit::Failure, error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for name in named {
        let name = inside(&name).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("{} names the segment {name:?}, which is not in its folder", path.display()),
            )
            .next("upload playlists whose segments are files in their folder or below it")
        })?;
        if !found.iter().any(|(_, known)| *known == name) {
            found.push((folder.join(&name), name));
        }
    }
    Ok(found)
}

/// A segment's name as a path below the playlist's folder; `None` when it leads out of it, or to another host.
fn inside(name: &str) -> Option<String> {
    let name = name.split(['?', '#']).next().unwrap_or_default();
    if name.is_empty() || name.contains("://") || name.contains('\\') || name.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_segment_leads_out_of_the_playlists_folder() {
        assert_eq!(inside("a/1.ts").as_deref(), Some("a/1.ts"));
        assert_eq!(inside("./1.ts?t=5").as_deref(), Some("1.ts"));
        for wrong in
            ["", "/etc/passwd", "../1.ts", "a/../../1.ts", "https://h/1.ts", "a\\..\\1.ts", "?x", "."]
        {
            assert_eq!(inside(wrong), None, "{wrong}");
        }
    }
}
