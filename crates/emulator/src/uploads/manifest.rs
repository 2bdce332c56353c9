//! The files in a manifest: HLS playlists by line, DASH by attributes and base URLs.

use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};

/// The files in a manifest, in its order, each once. `None` if the text is not a manifest.
pub(super) fn segments(content: &str, manifest_type: &str) -> Option<Vec<String>> {
    let mut named = match manifest_type {
        "m3u8" => playlist(content)?,
        _ => dash(content)?,
    };
    let mut seen = std::collections::BTreeSet::new();
    // Files on other hosts are not uploaded.
    named.retain(|name| !name.is_empty() && !name.contains("://") && seen.insert(name.clone()));
    Some(named)
}

fn playlist(content: &str) -> Option<Vec<String>> {
    let mut lines = content.trim_start_matches('\u{feff}').lines().map(str::trim);
    if lines.next() != Some("#EXTM3U") {
        return None;
    }
    let mut named = Vec::new();
    for line in lines {
        if !line.starts_with('#') {
            named.push(line.to_owned());
        } else if let Some((_, after)) = line.split_once("URI=\"")
            && let Some((uri, _)) = after.split_once('"')
        {
            named.push(uri.to_owned());
        }
    }
    Some(named)
}

fn dash(content: &str) -> Option<Vec<String>> {
    let mut reader = Reader::from_str(content);
    let mut named = Vec::new();
    let (mut is_manifest, mut in_base_url) = (false, false);
    loop {
        match reader.read_event().ok()? {
            Event::Eof => break,
            Event::Start(start) | Event::Empty(start) => {
                let name = start.local_name();
                is_manifest |= name.as_ref() == "MPD";
                in_base_url = name.as_ref() == "BaseURL";
                for attribute in start.attributes() {
                    let attribute = attribute.ok()?;
                    let names_a_file =
                        matches!(attribute.key.as_ref(), "media" | "initialization" | "sourceURL");
                    let value = attribute.value.as_ref();
                    // A template stands for many files and is not a name.
                    if names_a_file && !value.contains('$') {
                        named.push(quick_xml::escape::unescape(value).ok()?.into_owned());
                    }
                }
            }
            Event::Text(text) if in_base_url => {
                named.push(text.xml_content(XmlVersion::Implicit1_0).trim().to_owned());
            }
            Event::End(_) => in_base_url = false,
            _ => {}
        }
    }
    is_manifest.then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playlist_names_segments_keys_maps_and_other_playlists() {
        let playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-KEY:METHOD=AES-128,URI=\"keys/k 1.bin\"\n\
            #EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:10,\nseg 0.ts\n#EXTINF:10,\n../up/seg1.ts\n#EXTINF:9,\nseg 0.ts\n\
            https://elsewhere.example/x.ts\n\n#EXT-X-ENDLIST\n";
        let named = segments(playlist, "m3u8").unwrap();
        assert_eq!(named, ["keys/k 1.bin", "init.mp4", "seg 0.ts", "../up/seg1.ts"]);
        assert_eq!(segments("", "m3u8"), None);
        assert_eq!(segments("seg0.ts", "m3u8"), None);
    }

    #[test]
    fn a_dash_manifest_names_base_urls_and_segment_urls() {
        let manifest = r#"<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation id="1">
            <BaseURL>video/</BaseURL><SegmentList><Initialization sourceURL="init.mp4"/><SegmentURL media="a&amp;b.m4s"/>
            <SegmentURL media="a&amp;b.m4s"/></SegmentList><SegmentTemplate media="s-$Number$.m4s"/>
            </Representation></AdaptationSet></Period></MPD>"#;
        assert_eq!(segments(manifest, "mpd").unwrap(), ["video/", "init.mp4", "a&b.m4s"]);
        for wrong in ["<MPD", "<Other/>", "", "<MPD><a></b></MPD>"] {
            assert_eq!(segments(wrong, "mpd"), None, "{wrong}");
        }
    }
}
