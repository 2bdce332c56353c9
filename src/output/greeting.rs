//! The first bytes from the other side of a connection. They show what really listens there.

use std::sync::{Arc, Mutex, PoisonError};

/// More than any greeting of RabbitMQ.
const MOST: usize = 16 << 10;

/// The first bytes of the other side.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeting(Arc<Mutex<Vec<u8>>>);

/// The kind of the other side, by its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// It has sent nothing.
    Nobody,
    /// AMQP 0-9-1, with the login mechanisms that it offers, if it sent them.
    Amqp {
        mechanisms: Option<String>,
    },
    /// AMQP of another version, which it requests.
    OtherAmqp(String),
    Http,
    Tls,
    /// Something else, by its first characters.
    Unknown(String),
}

impl Greeting {
    /// The largest frame that the broker takes, from its `connection.tune`; `None` without that, or without a
    /// limit.
    pub(super) fn frame_max(&self) -> Option<u32> {
        self.tune().filter(|size| *size > 0)
    }

    /// Whether the broker has accepted the login: it then sends `connection.tune`.
    pub(super) fn is_logged_in(&self) -> bool {
        self.tune().is_some()
    }

    /// The size of frames in `connection.tune`; 0 is no limit.
    fn tune(&self) -> Option<u32> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = heard.as_slice();
        // Type, channel and size; the payload; the end's mark.
        while let Some(size) = rest.get(3..7).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes) {
            let end = 7 + usize::try_from(size).ok()?;
            let payload = rest.get(7..end)?;
            // Class 10, method 30, the number of channels, and this.
            if let [0, 10, 0, 30, _, _, size @ ..] = payload {
                return size.first_chunk().copied().map(u32::from_be_bytes);
            }
            rest = rest.get(end + 1..)?;
        }
        None
    }

    /// Takes bytes that were read; returns whether it needs more.
    pub(super) fn take(&self, bytes: &[u8]) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST - heard.len();
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
        heard.len() < MOST
    }

    pub(super) fn speaker(&self) -> Speaker {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.as_slice() {
            [] => Speaker::Nobody,
            [1, 0, 0, ..] => Speaker::Amqp { mechanisms: mechanisms(&heard) },
            [b'A', b'M', b'Q', b'P', id, major, minor, revision, ..] => {
                let version = match (*id, *major) {
                    (0 | 2 | 3, 1) => format!("AMQP {major}.{minor}"),
                    (1, 1) => format!("AMQP {minor}-{revision}"),
                    _ => format!("AMQP {major}-{minor}-{revision}"),
                };
                Speaker::OtherAmqp(version)
            }
            [b'H', b'T', b'T', b'P', b'/', ..] => Speaker::Http,
            [0x15 | 0x16, 3, ..] => Speaker::Tls,
            other => {
                let beginning = String::from_utf8_lossy(&other[..other.len().min(24)]);
                Speaker::Unknown(beginning.trim().escape_debug().to_string())
            }
        }
    }
}

/// The mechanisms in `connection.start`, the first frame of RabbitMQ (AMQP 0-9-1, 1.4.2.1).
fn mechanisms(heard: &[u8]) -> Option<String> {
    /// Type, channel and size of the frame; class, method and the two numbers of the version.
    const BEFORE: usize = 7 + 4 + 2;
    let (head, rest) = heard.split_at_checked(BEFORE)?;
    if head[7..11] != [0, 10, 0, 10] {
        return None;
    }
    let long = |bytes: &[u8]| {
        let (length, rest) = bytes.split_first_chunk::<4>().map(|(length, rest)| (*length, rest.to_vec()))?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        rest.split_at_checked(length).map(|(this, after)| (this.to_vec(), after.to_vec()))
    };
    let (_properties, rest) = long(rest)?;
    let (mechanisms, _) = long(&rest)?;
    String::from_utf8(mechanisms).ok().filter(|names| !names.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(bytes: &[u8]) -> Speaker {
        let heard = Greeting::default();
        // However it arrives.
        for byte in bytes {
            assert!(heard.take(&[*byte]));
        }
        heard.speaker()
    }

    #[test]
    fn what_answers_is_known_by_its_first_words() {
        assert_eq!(speaker(b""), Speaker::Nobody);
        assert_eq!(speaker(b"HTTP/1.1 400 Bad Request\r\n"), Speaker::Http);
        assert_eq!(speaker(&[0x15, 3, 3, 0, 2, 2, 70]), Speaker::Tls);
        assert_eq!(speaker(b"AMQP\x03\x01\x00\x00"), Speaker::OtherAmqp("AMQP 1.0".to_owned()));
        assert_eq!(speaker(b"AMQP\x00\x00\x09\x00"), Speaker::OtherAmqp("AMQP 0-9-0".to_owned()));
        assert_eq!(speaker(b"SSH-2.0-OpenSSH_9.2\r\n"), Speaker::Unknown("SSH-2.0-OpenSSH_9.2".to_owned()));
        let mut start = vec![1, 0, 0, 0, 0, 0, 60, 0, 10, 0, 10, 0, 9, 0, 0, 0, 2, b'x', b'y', 0, 0, 0, 17];
        start.extend_from_slice(b"EXTERNAL AMQPLAIN");
        let offered = Some("EXTERNAL AMQPLAIN".to_owned());
        assert_eq!(speaker(&start), Speaker::Amqp { mechanisms: offered });
        for cut in 3..start.len() {
            assert_eq!(speaker(&start[..cut]), Speaker::Amqp { mechanisms: None }, "{cut}");
        }
    }

    #[test]
    fn the_size_of_frames_is_in_the_second_frame() {
        let start = [1, 0, 0, 0, 0, 0, 5, 0, 10, 0, 10, 9, 0xce];
        let tune = |size: [u8; 4]| {
            [&[1, 0, 0, 0, 0, 0, 12, 0, 10, 0, 30, 7, 255][..], &size, &[0, 60, 0xce]].concat()
        };
        let frame_max = |bytes: &[u8]| {
            let heard = Greeting::default();
            heard.take(bytes);
            heard.frame_max()
        };
        let all = [&start[..], &tune([0, 0, 16, 0])].concat();
        assert_eq!(frame_max(&all), Some(4096));
        assert_eq!(frame_max(&[&start[..], &tune([0; 4])].concat()), None);
        let heard = Greeting::default();
        heard.take(&start);
        assert!(!heard.is_logged_in());
        heard.take(&tune([0; 4]));
        assert!(heard.is_logged_in(), "without a limit of frames too");
        for cut in 0..all.len() - 4 {
            assert_eq!(frame_max(&all[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn no_more_is_kept_than_a_greeting() {
        let heard = Greeting::default();
        assert!(!heard.take(&vec![1; 2 * MOST]));
        assert!(!heard.take(b"more"));
        assert_eq!(heard.0.lock().unwrap().len(), MOST);
    }
}
