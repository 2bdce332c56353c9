//! `signature explain`: what a signature grants, until when, who made it, and what is odd about it.

use std::io::{self, Read as _, Write};

use serde::Serialize;
use tencent_vod::Credentials;
use tencentcloud_signing::upload::{Finding, Signature};
use vodrelay_core::clock::WallTime;

use super::KeySource;
use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, printable, printable_json};
use crate::clock::Now as _;

/// More than any signature has: contexts of four bytes a character, encoded, and in base64.
const MAX_BYTES: u64 = 64 * 1024;

/// Say what a signature grants, until when, and what is odd about it
///
/// It is verified when the key is at hand. Ends with 1 when the cloud would refuse the signature, by its documents: it has
/// expired, breaks a rule, or was not made with the key. Whether a one-time signature is used up only the cloud knows.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The signature; without it, standard input is read, and no list of processes shows it
    #[arg(value_name = "SIGNATURE")]
    signature: Option<String>,
    /// Where the key comes from; auto verifies nothing when no key is found
    #[arg(long, value_name = "SOURCE", value_enum, default_value = "auto")]
    credentials: KeySource,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Whether the key at hand has made the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verified", content = "why")]
enum Verified {
    /// It has.
    Yes(String),
    /// It has not.
    No(String),
    /// There is no key to tell by.
    Unknown(String),
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let text = match &args.signature {
        Some(text) if text != "-" => text.clone(),
        _ => read()?,
    };
    let signature = Signature::parse(&text).map_err(|error| {
        Failure::new(Exit::Failure, format!("this is no upload signature: {error}"))
            .next("give it as it was made, without quotes and whole")
    })?;
    let verified = verify(&signature, args.credentials)?;
    let now = WallTime::now();
    let findings = signature.findings(seconds(now));
    let refused = matches!(verified, Verified::No(_)) || findings.iter().any(Finding::refused);
    let mut out = io::stdout().lock();
    let printed = if args.json {
        printable_json(&json(&signature, &verified, &findings, refused)) + "\n"
    } else {
        Screen::of_stdout().wrapped_lines(&shown(&signature, &verified, &findings, refused, now), 18)
    };
    out.write_all(printed.as_bytes()).and_then(|()| out.flush()).map_err(Failure::stdout)?;
    Ok(if refused { Exit::Failure } else { Exit::Done })
}

fn seconds(time: WallTime) -> i64 {
    time.0 / 1_000
}

fn read() -> Result<String, Failure> {
    let unreadable =
        |error: io::Error| Failure::new(Exit::Failure, format!("standard input cannot be read: {error}"));
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::new(Exit::Failure, "standard input is longer than any signature"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn verify(signature: &Signature, source: KeySource) -> Result<Verified, Failure> {
    // A host of the cloud has a role, whose pair cannot sign: it is not asked for.
    let sources = match source {
        KeySource::Auto => vec![KeySource::Systemd, KeySource::Env, KeySource::File],
        named => return Ok(compare(signature, &named.read()?)),
    };
    let found = sources.into_iter().find_map(|source| source.read().ok());
    Ok(match found {
        Some(credentials) => compare(signature, &credentials),
        None => Verified::Unknown("no key is at hand; --credentials names its place".to_owned()),
    })
}

fn compare(signature: &Signature, credentials: &Credentials) -> Verified {
    let Credentials { secret_id, secret_key, origin, .. } = credentials;
    match signature.parameter("secretId") {
        Some(id) if id == *secret_id => {
            if signature.verify(secret_key.expose()) {
                Verified::Yes(format!("made with the key of {secret_id} ({origin})"))
            } else {
                Verified::No(format!("not made with the key of {secret_id} ({origin}), or changed since"))
            }
        }
        _ => Verified::Unknown(format!("the key at hand is another one: {secret_id} ({origin})")),
    }
}

fn shown(
    signature: &Signature,
    verified: &Verified,
    findings: &[Finding],
    refused: bool,
    now: WallTime,
) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, value) in signature.parameters() {
        let mut value = printable(&value);
        if name == "currentTimeStamp" || name == "expireTime" {
            value = with_time(&value, now);
        }
        lines.push((printable(&name), value));
    }
    let (word, why) = match verified {
        Verified::Yes(why) => ("yes", why),
        Verified::No(why) => ("NO", why),
        Verified::Unknown(why) => ("not known", why),
    };
    lines.push(("verified".to_owned(), format!("{word}: {}", printable(why))));
    lines.push(("use".to_owned(), use_of(signature)));
    for finding in findings {
        let name = if finding.refused() { "WRONG" } else { "odd" };
        lines.push((name.to_owned(), printable(&finding.to_string())));
    }
    let verdict = match (refused, verified) {
        (true, _) => "the cloud refuses it",
        (false, Verified::Yes(_)) => "good, by the cloud's documents",
        (false, _) => "good by the cloud's documents, if its maker has the key",
    };
    lines.push(("verdict".to_owned(), verdict.to_owned()));
    lines.iter().fold(String::new(), |text, (name, value)| text + &format!("{name:<18}{value}") + "\n")
}

/// What its holder can do.
fn use_of(signature: &Signature) -> String {
    let often = match signature.parameter("oneTimeValid").as_deref() {
        Some("1") => "one upload",
        _ => "any number of uploads of any size",
    };
    let then = match signature.parameter("procedure") {
        Some(procedure) => format!(", and then the task flow {}", printable(&procedure)),
        None => String::new(),
    };
    format!("{often}{then}")
}

/// A number of seconds with the time that it means.
fn with_time(value: &str, now: WallTime) -> String {
    let Ok(given) = value.parse::<i64>() else { return value.to_owned() };
    let time = given.checked_mul(1_000).and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let Some(time) = time else { return value.to_owned() };
    let away = given.abs_diff(seconds(now));
    let away = humantime::format_duration(std::time::Duration::from_secs(away));
    let relative = if given > seconds(now) { format!("in {away}") } else { format!("{away} ago") };
    format!("{value} ({time}, {relative})")
}

fn json(signature: &Signature, verified: &Verified, findings: &[Finding], refused: bool) -> String {
    #[derive(Serialize)]
    struct ExplainedObject<'a> {
        parameters: Vec<Parameter>,
        #[serde(flatten)]
        verified: &'a Verified,
        findings: Vec<FindingObject>,
        refused: bool,
    }
    // A list, because a parameter can stand twice, and what is odd must not be lost.
    #[derive(Serialize)]
    struct Parameter {
        name: String,
        value: String,
    }
    #[derive(Serialize)]
    struct FindingObject {
        message: String,
        refused: bool,
    }
    let object = ExplainedObject {
        parameters: signature
            .parameters()
            .into_iter()
            .map(|(name, value)| Parameter { name: name.into_owned(), value: value.into_owned() })
            .collect(),
        verified,
        findings: findings
            .iter()
            .map(|finding| FindingObject { message: finding.to_string(), refused: finding.refused() })
            .collect(),
        refused,
    };
    serde_json::to_string(&object).expect("a struct of texts is JSON")
}

#[cfg(test)]
mod tests {
    use tencentcloud_signing::Secret;
    use tencentcloud_signing::upload::Grant;

    use super::*;

    const NOW: WallTime = WallTime(1_800_000_000_000);

    fn credentials(id: &str, key: &str) -> Credentials {
        Credentials {
            secret_id: id.to_owned(),
            secret_key: Secret::new(key),
            token: None,
            expires_at: None,
            origin: "the test".to_owned(),
        }
    }

    fn explained(grant: &Grant, key: &str) -> String {
        let signature = Signature::parse(&grant.sign("hush-hush").unwrap()).unwrap();
        let verified = compare(&signature, &credentials("AKIDexample", key));
        let findings = signature.findings(seconds(NOW));
        let refused = matches!(verified, Verified::No(_)) || findings.iter().any(Finding::refused);
        shown(&signature, &verified, &findings, refused, NOW)
            + &json(&signature, &verified, &findings, refused)
    }

    #[test]
    fn what_a_signature_grants_is_said_and_the_key_is_not() {
        let grant = Grant {
            one_time_valid: Some(true),
            procedure: Some("Transcode\u{1b}[2J".to_owned()),
            ..Grant::new("AKIDexample", 1_800_000_000 - 60, 1_800_000_000 + 540, u32::MAX)
        };
        let text = explained(&grant, "hush-hush");
        for words in [
            "expireTime        1800000540 (2027-01-15T08:09:00Z, in 9m)\n",
            "currentTimeStamp  1799999940 (2027-01-15T07:59:00Z, 1m ago)\n",
            "verified          yes: made with the key of AKIDexample (the test)\n",
            "use               one upload, and then the task flow Transcode\\u{1b}[2J\n",
            "verdict           good, by the cloud's documents\n",
            "\"verified\":\"yes\"",
            "\"refused\":false",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!text.contains("hush") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn what_the_cloud_refuses_is_called_wrong() {
        let expired = Grant::new("AKIDexample", 1_800_000_000 - 700, 1_800_000_000 - 100, u32::MAX);
        let text = explained(&expired, "hush-hush");
        assert!(
            text.contains("WRONG             it expired 100 s ago") && text.contains("\"refused\":true"),
            "{text}"
        );
        let other = Grant::new("AKIDexample", 1_800_000_000, 1_800_000_600, u32::MAX);
        let text = explained(&other, "another key");
        assert!(
            text.contains("NO: not made with the key") && text.contains("the cloud refuses it"),
            "{text}"
        );
        let foreign = Grant::new("AKIDother", 1_800_000_000, 1_800_000_600, u32::MAX);
        let text = explained(&foreign, "hush-hush");
        assert!(text.contains("not known: the key at hand is another one"), "{text}");
    }
}
