//! The events that are relayed.

use tencent_vod_emulator::events::upload_story;

/// What events look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// About so many bytes each.
    Bytes(usize),
    /// Those of `trigger upload`: uploads and the ends of procedures, in turn.
    Upload,
}

pub(crate) const ONE_KB: Kind = Kind::Bytes(1024);

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bytes(bytes) if bytes >= 1 << 20 => format!("{} MB", bytes >> 20),
            Self::Bytes(bytes) => format!("{} KB", bytes >> 10),
            Self::Upload => "upload".to_owned(),
        }
    }

    /// So many events from this number on, all different.
    pub(crate) fn events(self, first: u64, count: u64) -> impl Iterator<Item = String> {
        (first..first + count).map(move |number| self.event(number))
    }

    fn event(self, number: u64) -> String {
        match self {
            Self::Bytes(bytes) => padded(number, bytes),
            Self::Upload => {
                let [uploaded, processed] = upload_story(number / 2);
                if number.is_multiple_of(2) { uploaded } else { processed }
            }
        }
    }
}

/// Events of [`padded`] that happened in the same second.
const A_SECOND: u64 = 100;

/// An upload of so many bytes. Its number is in it, to be read by [`number`].
fn padded(number: u64, bytes: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(number);
    let second = 1_767_225_600 + (number / A_SECOND % 31_000_000).cast_signed();
    let time = jiff::Timestamp::from_second(second).expect("a second of 2026 or soon after");
    let mut event = format!(
        r#"{{"EventType":"NewFileUpload","Number":{number},"FileUploadEvent":{{"FileId":"{:019}","ProcedureTaskId":"{:016x}","MediaBasicInfo":{{"Name":"film {number}","CreateTime":"{time}","Type":"mp4","SourceInfo":{{"SourceContext":""#,
        rng.u64(..1 << 62),
        rng.u64(..),
    );
    const END: &str = r#""}}}}"#;
    while event.len() + END.len() < bytes {
        event.push(rng.alphanumeric());
    }
    event + END
}

/// The number of an event of [`Kind::Bytes`], also with its handle in it.
pub(crate) fn number(body: &[u8]) -> u64 {
    const BEFORE: &[u8] = br#","Number":"#;
    let at = body.windows(BEFORE.len()).position(|window| window == BEFORE).expect("the event has a number");
    let digits = body[at + BEFORE.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
