//! The state of the relay on one screen: the stages first, then the figures, then as many problems as fit.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::screen::Screen;

/// The lines that the shell's prompt and the line before it take.
const PROMPT: usize = 1;

/// The document as lines that fit the screen, no more of them than it has.
pub(super) fn for_people(document: &Value, screen: Screen) -> String {
    let document = StatusLines(document);
    let mut lines = document.stages();
    lines.extend(document.facts());
    let room = screen.height.map(|height| height.saturating_sub(lines.len() + PROMPT));
    lines.extend(document.problems(room));
    lines.iter().map(|line| screen.line(line)).collect::<Vec<_>>().join("\n")
}

struct StatusLines<'a>(&'a Value);

impl StatusLines<'_> {
    fn at(&self, path: &str) -> String {
        text(self.0.pointer(path).unwrap_or(&Value::Null))
    }

    fn seconds(&self, path: &str) -> String {
        self.0.pointer(path).and_then(Value::as_u64).map_or("-".into(), ago)
    }

    fn list(&self, path: &str) -> &[Value] {
        self.0.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn stages(&self) -> Vec<String> {
        let mut lines = vec![row(["STAGE", "STATE", "CODE", "LAST", "SINCE"])];
        for stage in self.list("/stages") {
            let state = match stage["state"].as_str() {
                Some("ready") => "ready",
                Some("unproven") => "unproven",
                // A version without names for the states.
                None if stage["ready"] == true => "ready",
                _ => "NOT READY",
            };
            let last = stage["age_s"].as_u64().map_or("-".into(), |age| format!("{} ago", ago(age)));
            let (name, code, since) =
                (text(&stage["stage"]), text(&stage["error_code"]), local(&stage["since"]));
            lines.push(row([&name, state, &code, &last, &since]));
            if !stage["message"].is_null() {
                lines.push(format!("         {}", text(&stage["message"])));
            }
        }
        lines
    }

    fn facts(&self) -> Vec<String> {
        let fact = |name: &str, value: String| format!("{name:<12}{value}");
        let in_doubt = match self.0.pointer("/journal/in_doubt").and_then(Value::as_u64) {
            Some(events) if events > 0 => format!("; in doubt in a copy: {events}"),
            _ => String::new(),
        };
        vec![
            fact("state", self.at("/state")),
            fact(
                "journal has",
                format!(
                    "{} received, {} published, {} confirmed, {} parked",
                    self.at("/journal/received"),
                    self.at("/journal/published"),
                    self.at("/journal/confirmed"),
                    self.at("/journal/parked"),
                ),
            ),
            fact(
                "oldest",
                format!(
                    "not published: {}; not confirmed: {}{in_doubt}",
                    self.seconds("/journal/oldest_unpublished_age_s"),
                    self.seconds("/journal/oldest_unconfirmed_age_s"),
                ),
            ),
            fact("cloud has", self.backlog()),
            fact(
                "this run",
                format!(
                    "{} deliveries ({} again), {} published, {} confirmed, {} parked",
                    self.at("/totals/deliveries"),
                    self.at("/totals/redelivered"),
                    self.at("/totals/published"),
                    self.at("/totals/confirmed"),
                    self.at("/totals/parked"),
                ),
            ),
            fact(
                "a second",
                format!(
                    "{} received, {} published, {} confirmed; lease left at least {} s",
                    self.at("/per_second/received"),
                    self.at("/per_second/published"),
                    self.at("/per_second/confirmed"),
                    self.at("/lease/smallest_left_s"),
                ),
            ),
            fact("broker", self.broker()),
            fact("config", self.config()),
            fact(
                "journal",
                format!("{} ({})", self.at("/about/journal"), bytes(&self.0["journal"]["bytes"])),
            ),
            fact(
                "relay",
                format!(
                    "vodrelay {}, process {}, up {}, confirms after {}",
                    self.at("/version"),
                    self.at("/pid"),
                    self.seconds("/uptime_s"),
                    self.at("/about/confirm_after"),
                ),
            ),
            fact("maintenance", self.maintenance()),
        ]
    }

    /// Where events go, and whether a broker is connected.
    fn broker(&self) -> String {
        let broker = match (self.at("/about/output").as_str(), self.at("/broker").as_str()) {
            ("stdout", _) => "standard output".to_owned(),
            (_, "-") => format!("not connected; exchange {}", self.at("/about/exchange")),
            (_, broker) => format!("{broker}, exchange {}", self.at("/about/exchange")),
        };
        let queue = match self.at("/about/queue").as_str() {
            "-" => String::new(),
            queue => format!(", queue {queue}"),
        };
        broker + &queue
    }

    /// What waits in the cloud.
    fn backlog(&self) -> String {
        match self.0.pointer("/backlog/events") {
            Some(events) if !events.is_null() => {
                format!("{} (counted {})", text(events), local(&self.0["backlog"]["counted"]))
            }
            _ => "not known".to_owned(),
        }
    }

    fn config(&self) -> String {
        match self.at("/about/config").as_str() {
            "-" => "no file: the defaults and the environment".to_owned(),
            file => file.to_owned(),
        }
    }

    fn maintenance(&self) -> String {
        let jobs = self.list("/maintenance");
        let name = |job: &Value| text(&job["job"]);
        let failed: Vec<String> = jobs
            .iter()
            .filter(|job| job["last_result"].as_str().is_some_and(|result| result != "ok"))
            .map(|job| format!("{} {}", name(job), text(&job["last_result"])))
            .collect();
        if !failed.is_empty() {
            return failed.join("; ");
        }
        let next = jobs.iter().filter(|job| job["next"].is_string()).min_by_key(|job| text(&job["next"]));
        let next = next.map_or("nothing is scheduled".to_owned(), |job| {
            format!("next: {} at {}", name(job), local(&job["next"]))
        });
        let last: Vec<String> = jobs
            .iter()
            .filter(|job| job["last_ended"].is_string())
            .map(|job| format!("{} {}", name(job), local(&job["last_ended"])))
            .collect();
        if last.is_empty() { next } else { format!("{next}; done: {}", last.join(", ")) }
    }

    /// Lasting problems first, then the newest. The others are counted when they do not fit.
    fn problems(&self, room: Option<usize>) -> Vec<String> {
        let mut problems: Vec<&Value> = self.list("/problems").iter().collect();
        if problems.is_empty() {
            return Vec::new();
        }
        problems.sort_by_key(|problem| std::cmp::Reverse(text(&problem["last"])));
        problems.sort_by_key(|problem| problem["over_since"].is_string());
        let room = room.unwrap_or(usize::MAX).max(2);
        let shown = if problems.len() < room { problems.len() } else { room - 1 };
        let hidden = problems.len() - shown;
        let more = if hidden == 0 { String::new() } else { format!(" ({hidden} more: --wide)") };
        let mut lines = vec![format!("PROBLEMS SINCE THE START{more}")];
        lines.extend(problems.into_iter().take(shown).map(|problem| {
            let when = match &problem["over_since"] {
                Value::String(_) => format!("over since {}", local(&problem["over_since"])),
                _ => format!("last {}", local(&problem["last"])),
            };
            format!(
                "{} {}x, {when}: {}",
                text(&problem["error_code"]),
                problem["times"],
                text(&problem["message"])
            )
        }));
        lines
    }
}

fn row(cells: [&str; 5]) -> String {
    let [stage, state, code, last, since] = cells;
    format!("{stage:<9}{state:<12}{code:<8}{last:>11}  {since}")
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Number(number) => {
            number.as_f64().filter(|n| n.fract() != 0.0).map_or(number.to_string(), |n| format!("{n:.1}"))
        }
        other => other.to_string(),
    }
}

/// A time of the document in the host's zone, to the second.
fn local(value: &Value) -> String {
    let text = text(value);
    match text.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%m-%d %H:%M:%S").to_string(),
        Err(_) => text,
    }
}

/// An age in its largest units.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn bytes(value: &Value) -> String {
    match value.as_f64() {
        Some(bytes) if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        Some(bytes) => format!("{:.1} MB", bytes / 1e6),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::screen;

    const USUAL: Screen = Screen { width: Some(80), height: Some(24) };

    #[test]
    fn the_stages_come_first_and_problems_say_whether_they_are_over() {
        let document = json!({
            "state": "idle; 0 events today", "ready": false, "uptime_s": 5, "pid": 7, "version": "1",
            "stages": [{"stage": "publish", "ready": false, "error_code": "VR-401", "message": "no \u{1b}[2J", "since": "t", "age_s": 3}],
            "about": {"output": "amqp", "exchange": "e", "queue": "q", "journal": "/j", "config": null, "confirm_after": "publish"},
            "broker": "mq1:5672", "backlog": {"events": 17, "counted": "t"},
            "journal": {"received": 1, "oldest_unpublished_age_s": 300, "bytes": 2_000_000},
            "problems": [
                {"error_code": "VR-304", "times": 1, "last": "a", "over_since": "b", "message": "w"},
                {"error_code": "VR-401", "times": 2, "last": "c", "message": "away"},
            ],
        });
        let text = for_people(&document, USUAL);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "STAGE    STATE       CODE           LAST  SINCE");
        assert_eq!(lines[1], "publish  NOT READY   VR-401      3 s ago  t");
        assert_eq!(lines[2], "         no \\u{1b}[2J");
        for line in [
            "state       idle; 0 events today",
            "oldest      not published: 5 min; not confirmed: -",
            "cloud has   17 (counted t)",
            "broker      mq1:5672, exchange e, queue q",
            "config      no file: the defaults and the environment",
            "journal     /j (2.0 MB)",
            "relay       vodrelay 1, process 7, up 5 s, confirms after publish",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        assert!(
            text.ends_with("PROBLEMS SINCE THE START\nVR-401 2x, last c: away\nVR-304 1x, over since b: w"),
            "{text}"
        );
    }

    #[test]
    fn a_stage_that_has_done_nothing_yet_is_shown_as_unproven() {
        let stage = |state: &str, ready: bool| json!({"stage": "confirm", "state": state, "ready": ready, "since": "t"});
        for (state, ready, shown) in
            [("unproven", true, "unproven"), ("ready", true, "ready"), ("not_ready", false, "NOT READY")]
        {
            let text = for_people(&json!({ "stages": [stage(state, ready)] }), USUAL);
            assert_eq!(text.lines().nth(1), Some(row(["confirm", shown, "-", "-", "t"]).as_str()), "{text}");
        }
    }

    #[test]
    fn whatever_is_wrong_all_of_it_is_on_one_screen() {
        let hostile = "\u{1b}[2J\0\u{202e}視\n".repeat(5_000);
        let stages: Vec<Value> = ["pull", "journal", "publish", "confirm"]
            .map(|stage| json!({"stage": stage, "ready": false, "error_code": "VR-401", "message": hostile, "since": hostile, "age_s": u64::MAX}))
            .into();
        let problems: Vec<Value> = (0..40)
            .map(|n| json!({"error_code": format!("VR-{n}"), "times": u64::MAX, "last": hostile, "message": hostile}))
            .collect();
        let jobs: Vec<Value> =
            (0..5).map(|n| json!({"job": format!("{n}"), "last_result": hostile, "next": hostile})).collect();
        let about = json!({"output": "amqp", "exchange": hostile, "queue": hostile, "journal": hostile, "config": hostile});
        let document = json!({
            "state": hostile, "stages": stages, "problems": problems, "maintenance": jobs, "about": about,
            "journal": {"received": u64::MAX, "published": u64::MAX, "confirmed": u64::MAX, "parked": u64::MAX},
            "broker": hostile,
        });
        let text = for_people(&document, USUAL);
        assert!(text.lines().count() < 24, "{text}");
        for line in text.lines() {
            assert!(screen::width(line) <= 80, "{line}");
            assert_eq!(line, screen::printable(line));
        }
        assert!(text.contains("(38 more: --wide)"), "{text}");
        let whole = for_people(&document, Screen::default());
        assert!(whole.lines().count() > 50 && whole.len() > 100_000);
    }
}
