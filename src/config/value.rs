//! One value from the file or the environment, and the parsers for it.
//!
//! A parser's error names the problem and the right form, in one line. It never repeats a value that may hold
//! a secret: text after a stray `?` or `,` in a password looks like a parameter or a scheme.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tencent_vod_event::SubAppId;
use toml::de::{DeTable, DeValue};
use url::{Host, Url};

use crate::cron::Cron;
use crate::output::amqp::Address;
use crate::routing_key::{PLACEHOLDERS, RoutingKeyTemplate, TemplateError};

/// A value as it was given.
pub(super) enum RawValue<'a> {
    /// TOML, typed by its syntax.
    Toml(&'a DeValue<'a>),
    /// An environment variable: bare text that stands for any type.
    Env(&'a str),
}

type Parsed<T> = Result<T, String>;

impl RawValue<'_> {
    /// Text, which may be empty.
    pub(super) fn text(&self) -> Parsed<String> {
        match self {
            // It would become part of a password, and no editor shows it.
            Self::Env(text) if text.ends_with(['\n', '\r']) => Err(
                "ends with a line break, which would be part of the value; remove it (`printf %s` writes none)".to_owned(),
            ),
            Self::Env(text) => Ok((*text).to_owned()),
            Self::Toml(DeValue::String(text)) => Ok(text.clone().into_owned()),
            Self::Toml(other) => Err(format!("must be text in quotes, not {}", with_article(other))),
        }
    }

    /// Text that is not empty.
    pub(super) fn name(&self) -> Parsed<String> {
        let text = self.text()?;
        if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
    }

    /// Text, or `None` when it is empty.
    pub(super) fn optional(&self) -> Parsed<Option<String>> {
        self.text().map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    /// The name of an exchange or a queue. AMQP 0-9-1 allows 255 bytes.
    pub(super) fn amqp_name(&self) -> Parsed<String> {
        let text = self.text()?;
        if text.len() > 255 {
            return Err(format!("has {} bytes; AMQP allows 255", text.len()));
        }
        if text.contains(char::is_control) {
            return Err("has a control character; remove it".to_owned());
        }
        Ok(text)
    }

    /// A file's path.
    pub(super) fn path(&self) -> Parsed<PathBuf> {
        plain_path(self.name()?)
    }

    /// A file's path, or `None`.
    pub(super) fn optional_path(&self) -> Parsed<Option<PathBuf>> {
        self.optional()?.map(plain_path).transpose()
    }

    /// A region, which travels in a header.
    pub(super) fn region(&self) -> Parsed<Option<String>> {
        let region = self.optional()?;
        match region.as_deref().is_none_or(|region| region.bytes().all(|byte| byte.is_ascii_graphic())) {
            true => Ok(region),
            false => {
                Err("has a character that no region has; a region looks like \"ap-guangzhou\"".to_owned())
            }
        }
    }

    /// A whole number, `least` or more.
    pub(super) fn number<T: TryFrom<u64>>(&self, least: u64) -> Parsed<T> {
        let number = self.integer()?;
        if number < least {
            return Err(format!("is {number}, and must be {least} or more"));
        }
        T::try_from(number).map_err(|_| format!("is {number}, which is too large"))
    }

    /// A whole number between two bounds, which may be negative.
    pub(super) fn signed<T: TryFrom<i64>>(&self, least: i64, most: i64) -> Parsed<T> {
        let wrong = || format!("must be a whole number from {least} to {most}");
        let number = match self {
            Self::Env(text) => text.trim().parse().ok(),
            Self::Toml(DeValue::Integer(integer)) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Self::Toml(_) => None,
        };
        let number: i64 = number.filter(|number| (least..=most).contains(number)).ok_or_else(wrong)?;
        T::try_from(number).map_err(|_| wrong())
    }

    pub(super) fn integer(&self) -> Parsed<u64> {
        let (digits, radix) = match self {
            Self::Env(text) => (text.trim(), 10),
            Self::Toml(DeValue::Integer(integer)) => (integer.as_str(), integer.radix()),
            Self::Toml(other) => return Err(format!("must be a whole number, not {}", with_article(other))),
        };
        u64::from_str_radix(digits, radix).map_err(|_| {
            format!("must be a whole number from 0 to {}, not {}", u64::MAX, told(digits).escape_debug())
        })
    }

    /// A time with its unit, `least` or more.
    pub(super) fn duration(&self, least: Duration) -> Parsed<Duration> {
        const NO_UNIT: &str = "has no unit; a duration needs a unit, for example \"30s\"";
        let text = match self {
            Self::Toml(DeValue::Integer(_) | DeValue::Float(_)) => return Err(NO_UNIT.to_owned()),
            _ => self.text()?,
        };
        let text = text.trim();
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Err(NO_UNIT.to_owned());
        }
        let duration = humantime::parse_duration(text).map_err(|_| {
            format!("cannot be {:?}; a duration looks like \"30s\", \"200ms\" or \"30d\"", told(text))
        })?;
        if duration < least {
            return Err(format!("is {}, and must be {} or more", shown(duration), shown(least)));
        }
        Ok(duration)
    }

    /// A schedule, or `None` for never.
    pub(super) fn cron(&self, example: &str) -> Parsed<Option<Cron>> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Cron::parse(&text).map(Some).map_err(|error| {
            format!("{error}; it reads like {example:?} (second, minute, hour, day, month, weekday; UTC), and \"\" turns the job off")
        })
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Parsed<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words = || words.iter().map(|(word, _)| *word);
            match nearest(&text, words()) {
                Some(word) => format!("cannot be {:?}; did you mean {word:?}?", told(&text)),
                None => format!("cannot be {:?}; it is one of {}", told(&text), quoted(words())),
            }
        })
    }

    /// An address to listen on, or `None`.
    pub(super) fn optional_socket_address(&self) -> Parsed<Option<SocketAddr>> {
        if self.text()?.is_empty() { Ok(None) } else { self.socket_address().map(Some) }
    }

    /// An address to listen at.
    pub(super) fn socket_address(&self) -> Parsed<SocketAddr> {
        let text = self.text()?;
        text.parse().map_err(|_| {
            format!("cannot be {:?}; write an IP address with its port, like \"127.0.0.1:9464\"", told(&text))
        })
    }

    /// An address to call, or `None`. It may hold a token, so no error repeats it.
    pub(super) fn optional_url(&self) -> Parsed<Option<Url>> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let url = self.url()?;
        let loopback = is_loopback(&url)
            .ok_or_else(|| "has no host; write it like \"https://alarm.example/token\"".to_owned())?;
        match url.scheme() {
            "https" => Ok(Some(url)),
            "http" if loopback => Ok(Some(url)),
            _ => Err("must begin with https://; http:// is for loopback hosts only".to_owned()),
        }
    }

    /// The API's address.
    pub(super) fn endpoint(&self) -> Parsed<Url> {
        let url = self.url()?;
        let loopback = is_loopback(&url)
            .ok_or_else(|| "has no host; write it like \"https://vod.tencentcloudapi.com\"".to_owned())?;
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => {
                return Err(
                    "must begin with https://: http:// is for loopback hosts only, because it shows every event to the network"
                        .to_owned(),
                );
            }
            other => return Err(format!("must begin with https://, not {other}://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "must not hold a user or a password; credentials have sources of their own, see vod.credentials".to_owned()
            );
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("must end with the host or its port: the API has no path and no query".to_owned());
        }
        Ok(url)
    }

    /// The brokers' addresses, at least one.
    pub(super) fn amqp_urls(&self) -> Parsed<Vec<Address>> {
        let urls = self.list("URL", |item| {
            let url = item.url()?;
            if url.scheme() != "amqp" && url.scheme() != "amqps" {
                return Err("must begin with amqp:// or amqps://".to_owned());
            }
            if url.host_str().is_none_or(str::is_empty) {
                return Err("has no host; write it like \"amqp://127.0.0.1:5672/%2f\"".to_owned());
            }
            if url.query().is_some() {
                return Err(
                    "has parameters after a question mark, which are not supported; remove them, and write ? in a password as %3f"
                        .to_owned(),
                );
            }
            if url.fragment().is_some() {
                return Err(
                    "has a fragment; write # in a user, a password or a virtual host as %23".to_owned()
                );
            }
            if url.path().matches('/').count() > 1 {
                return Err("has a path of several parts; write / in a virtual host's name as %2f".to_owned());
            }
            let virtual_host = url.path().strip_prefix('/').unwrap_or_default();
            for (what, text) in [
                ("user", url.username()),
                ("password", url.password().unwrap_or_default()),
                ("virtual host", virtual_host),
            ] {
                let text = percent_encoding::percent_decode_str(text)
                    .decode_utf8()
                    .map_err(|_| format!("has a {what} that is not UTF-8; write its bytes in UTF-8"))?;
                // The login separates user and password by a zero byte.
                if text.contains('\0') {
                    return Err(format!("has a zero byte (%00) in its {what}; remove it"));
                }
                if what == "virtual host" && text.len() > 255 {
                    return Err(format!("has a virtual host of {} bytes; AMQP allows 255", text.len()));
                }
            }
            Ok(Address::of(&url))
        })?;
        if urls.is_empty() { Err("must name at least one broker".to_owned()) } else { Ok(urls) }
    }

    /// A URL. An error does not repeat its text, which may hold a password.
    fn url(&self) -> Parsed<Url> {
        let text = self.name()?;
        let no_host = || "has no host; a URL looks like scheme://host:port/".to_owned();
        Url::parse(&text).map_err(|error| match error {
            url::ParseError::EmptyHost => no_host(),
            url::ParseError::RelativeUrlWithoutBase => {
                "has no scheme; a URL looks like scheme://host:port/".to_owned()
            }
            error => format!(
                "is not a URL: {error}; special characters in a user or a password are written like %2f"
            ),
        })
    }

    /// Sub-applications, none twice.
    pub(super) fn sub_app_ids(&self) -> Parsed<Vec<SubAppId>> {
        let ids = self.list("id", |item| item.integer().map(SubAppId))?;
        let twice = ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(id));
        if let Some((_, id)) = twice {
            return Err(format!("names {id} twice; name every sub-application once"));
        }
        if ids.len() > 1 && ids.contains(&SubAppId(0)) {
            // Under both names its events would be pulled twice, and each event would have two message ids.
            return Err(
                "names 0 beside others; 0 is the account's default application: write the id that it has in the console"
                    .to_owned(),
            );
        }
        Ok(ids)
    }

    /// A list; in the environment, values between commas or a TOML array.
    pub(super) fn list<T>(&self, what: &str, parse: impl Fn(&RawValue<'_>) -> Parsed<T>) -> Parsed<Vec<T>> {
        let parse_all = |items: &mut dyn Iterator<Item = RawValue<'_>>| {
            let parsed = items
                .enumerate()
                .map(|(at, item)| parse(&item).map_err(|message| format!("{what} {} {message}", at + 1)));
            parsed.collect()
        };
        match self {
            Self::Toml(DeValue::Array(items)) => {
                parse_all(&mut items.iter().map(|item| RawValue::Toml(item.get_ref())))
            }
            Self::Toml(other) => Err(format!("must be a list in brackets, not {}", with_article(other))),
            Self::Env(text) if text.trim_start().starts_with('[') => {
                let document = format!("list = {}", text.trim());
                let table = DeTable::parse(&document).map_err(|error| {
                    format!("is not a list: {}; write values between commas", error.message())
                })?;
                match table.get_ref().get("list").map(|list| list.get_ref()) {
                    Some(DeValue::Array(items)) => {
                        parse_all(&mut items.iter().map(|item| RawValue::Toml(item.get_ref())))
                    }
                    _ => Err("is not a list; write values between commas".to_owned()),
                }
            }
            Self::Env(text) if text.trim().is_empty() => Ok(Vec::new()),
            Self::Env(text) if text.split(',').any(|item| item.trim().is_empty()) => {
                Err("has a comma with nothing before or behind it; remove the comma".to_owned())
            }
            Self::Env(text) => parse_all(&mut text.split(',').map(|item| RawValue::Env(item.trim()))),
        }
    }

    /// A pattern for routing keys.
    pub(super) fn binding_key(&self) -> Parsed<String> {
        self.name()?;
        let text = self.amqp_name()?;
        if text.contains(['{', '}']) {
            return Err(
                "has a placeholder; a binding key matches with * for one word and # for any number of them, like \"media.*\""
                    .to_owned(),
            );
        }
        Ok(text)
    }

    /// A routing key with known placeholders.
    pub(super) fn routing_key(&self) -> Parsed<RoutingKeyTemplate> {
        self.name()?.parse().map_err(|error: TemplateError| match &error {
            TemplateError::UnknownPlaceholder(name) => {
                let what = format!("has the unknown placeholder {{{}}}", told(name));
                unknown(&what, name, &PLACEHOLDERS, |name| format!("{{{name}}}"))
            }
            _ => error.to_string(),
        })
    }

    /// A level, or directives that look like levels: `tracing` takes a mistyped level for a target's name.
    pub(super) fn log_level(&self) -> Parsed<String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let text = self.name()?;
        for directive in text.split(',').map(str::trim) {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            if !LEVELS.contains(&level) {
                let message = format!("has the unknown level {:?}", told(level));
                return Err(unknown(&message, level, &LEVELS, |level| format!("{level:?}")));
            }
        }
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) => Ok(text),
            Err(error) => Err(format!(
                "is not a filter ({}); write it like \"info\" or \"info,vodrelay::vod=debug\"",
                told(&error.to_string())
            )),
        }
    }
}

/// A plain path: not a URI, and without anything that a shell or SQLite interprets.
fn plain_path(path: String) -> Parsed<PathBuf> {
    if path.to_ascii_lowercase().starts_with("file:") {
        return Err("is a URI; write the path alone, like \"/var/lib/vodrelay/journal.db\"".to_owned());
    }
    if path.starts_with(":memory:") {
        return Err("names no file; write a path on a local disk".to_owned());
    }
    if path == "~" || path.starts_with("~/") {
        return Err("begins with ~, which only a shell understands; write the whole path".to_owned());
    }
    if path.contains('\0') {
        return Err("has a NUL character, which no path can hold; remove it".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// A value as an error repeats it. A value with an @ may be a broker's URL under the wrong key, with its
/// password.
pub(super) fn told(text: &str) -> &str {
    if text.contains('@') { "…" } else { text }
}

/// The words of a list that equal `given` except for a typing error.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let distance = |word: &str| strsim::damerau_levenshtein(&given, &word.to_lowercase());
    let (distance, word) = known.map(|word| (distance(word), word)).min()?;
    // With a third of the letters wrong it is another word.
    (distance <= word.len().div_ceil(3)).then_some(word)
}

/// `what`, and then the nearest known word, or all of them.
pub(super) fn unknown(what: &str, given: &str, known: &[&str], show: impl Fn(&str) -> String) -> String {
    match nearest(given, known.iter().copied()) {
        Some(word) => format!("{what}; did you mean {}?", show(word)),
        None => {
            let all: Vec<String> = known.iter().map(|word| show(word)).collect();
            format!("{what}; known are {}", all.join(", "))
        }
    }
}

fn quoted<T: Display>(words: impl Iterator<Item = T>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// A duration in the form of the file; `humantime` would print "4days".
pub(super) fn shown(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match duration.as_secs() {
        seconds if seconds >= DAY && seconds % DAY == 0 => format!("{}d", seconds / DAY),
        _ => humantime::format_duration(duration).to_string(),
    }
}

fn with_article(value: &DeValue<'_>) -> String {
    match value.type_str() {
        kind @ ("integer" | "array") => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// Whether traffic to it stays on this host; `None` without a host.
fn is_loopback(url: &Url) -> Option<bool> {
    Some(match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    })
}
