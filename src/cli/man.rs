//! `man`: the manual pages, for makers of packages. The commands' pages come from the same definitions as
//! `--help`, the configuration's page from the example with every key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::exit::{Exit, Failure};

const EXAMPLE: &str = include_str!("../../config.example.toml");
const SIGNATURE_EXAMPLE: &str = include_str!("../../signature.example.toml");
const SOURCE: &str = concat!("vodrelay ", env!("CARGO_PKG_VERSION"));

/// Write the manual pages into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder; it is made when it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    pages(&args.out).map_err(|error| {
        let what = format!("the manual pages cannot be written to {}: {error}", args.out.display());
        Failure::new(Exit::Failure, what).next("name a folder that can be written with --out")
    })?;
    Ok(Exit::Done)
}

fn pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut program = super::Cli::command().disable_help_subcommand(true);
    program.build();
    command(folder, &program)?;
    for (name, of, path, example) in [
        ("vodrelay.toml", "vodrelay", crate::config::DEFAULT_PATH, EXAMPLE),
        (
            "vodrelay-signature.toml",
            "vodrelay's signature server",
            crate::config::signature::DEFAULT_PATH,
            SIGNATURE_EXAMPLE,
        ),
    ] {
        let mut page = Vec::new();
        configuration(name, of, path, example).to_writer(&mut page)?;
        fs::write(folder.join(format!("{name}.5")), page)?;
    }
    Ok(())
}

/// A page for a command, and one for each of its subcommands.
fn command(folder: &Path, command: &clap::Command) -> io::Result<()> {
    let man = Man::new(command.clone()).source(SOURCE).manual("vodrelay");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut end = Roff::new();
    for (title, entries) in sections(&man.get_filename()) {
        section(&mut end, title, entries);
    }
    see_also(&mut end, [bold("vodrelay"), roman("(1), "), bold("vodrelay.toml"), roman("(5)")]);
    end.to_writer(&mut page)?;
    fs::write(folder.join(man.get_filename()), page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        self::command(folder, sub)?;
    }
    Ok(())
}

/// The title of a section, and its entries: a name with its text.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

/// The sections that the command line's definitions lack. The first page has the sections of all commands.
fn sections(page: &str) -> &'static [Section] {
    match page {
        "vodrelay.1" => &[("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES), ("SIGNALS", SIGNALS)],
        "vodrelay-run.1" => &[("SIGNALS", SIGNALS)],
        "vodrelay-emulate.1" => &[
            ("ENVIRONMENT", &[KEY_VARIABLES]),
            ("SIGNALS", &[("SIGTERM, SIGINT", "The emulator ends, and prints how many events it had.")]),
        ],
        "vodrelay-signature-make.1" | "vodrelay-signature-explain.1" => &[("ENVIRONMENT", &[KEY_VARIABLES])],
        "vodrelay-signature-serve.1" => &[("FILES", SIGNATURE_FILES), ("SIGNALS", SIGNATURE_SIGNALS)],
        "vodrelay.toml.5" => &[("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)],
        "vodrelay-signature.toml.5" => &[("FILES", SIGNATURE_FILES)],
        _ => &[],
    }
}

const KEY_VARIABLES: (&str, &str) = (
    "TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY",
    "The key for the cloud's API. A relay with vod.credentials auto or env uses it; the emulator accepts it; signature make signs \
     with it.",
);

const ENVIRONMENT: &[(&str, &str)] = &[
    ("VODRELAY_CONFIG", "The configuration file, when --config does not name one."),
    (
        "VODRELAY_SECTION__KEY",
        "The value of a key, in place of the one in the file: VODRELAY_AMQP__URLS for urls under [amqp]. Commas separate the \
         values of a list.",
    ),
    ("VODRELAY_AMQP__PASSWORD", "The broker's password, which is not a key of the file."),
    KEY_VARIABLES,
    (
        "TENCENTCLOUD_TOKEN, TENCENTCLOUD_SESSION_TOKEN, TENCENTCLOUD_SECURITY_TOKEN",
        "The token of a temporary key; the first variable that is set counts.",
    ),
    ("TENCENTCLOUD_CREDENTIALS_FILE", "The credentials file, in place of the usual ones."),
    (
        "CREDENTIALS_DIRECTORY",
        "Set by the service manager: the folder with secret_id, secret_key, token and amqp_password.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Set by the service manager: the relay reports its state and its progress there.",
    ),
    (
        "JOURNAL_STREAM",
        "Set by the service manager: with log.format = \"auto\", the log then goes to systemd's journal, with its fields.",
    ),
    ("NO_COLOR", "If not empty, output has no colours."),
    ("COLUMNS", "The width of tables that do not go to a terminal."),
];

const FILES: &[(&str, &str)] = &[
    (crate::config::DEFAULT_PATH, "The configuration."),
    (
        "/etc/vodrelay/secret_id, /etc/vodrelay/secret_key, /etc/vodrelay/amqp_password",
        "The credentials that the package's unit hands to the service.",
    ),
    (
        "~/.tencentcloud/credentials, /etc/tencentcloud/credentials",
        "The cloud's key under [default], for vod.credentials = \"auto\" or \"file\".",
    ),
    (
        "/var/lib/vodrelay/journal.db",
        "The journal. journal.db-wal and journal.db-shm belong to it and must not be removed. journal.db.lock keeps a second \
         relay away.",
    ),
    ("/var/lib/vodrelay/backups", "Copies of the journal."),
    ("/run/vodrelay/status.sock", "The socket that vodrelay status asks."),
];

const SIGNATURE_FILES: &[(&str, &str)] = &[
    (crate::config::signature::DEFAULT_PATH, "The configuration."),
    (
        "/etc/vodrelay/signature/secret_id, /etc/vodrelay/signature/secret_key",
        "The key that signs, which the package's unit hands to the service. The callers' tokens are beside it.",
    ),
];

const SIGNATURE_SIGNALS: &[(&str, &str)] = &[
    ("SIGTERM, SIGINT", "The server answers the requests that are under way, and ends."),
    (
        "SIGHUP",
        "The server reads the file, the tokens and the key again. What is wrong changes nothing. The log names keys that need a \
         restart.",
    ),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "The relay drains: it pulls nothing more and finishes what is in flight within 35 seconds. The last line of the log says \
         what is left. A second signal ends the process at once; nothing is lost.",
    ),
    (
        "SIGHUP",
        "The relay reads the configuration and the credentials again. It takes over the keys that can change at work, and names the \
         others in the log. A wrong configuration is refused as a whole.",
    ),
];

fn section(page: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    page.control("SH", [title]);
    for (name, text) in entries {
        page.control("TP", []);
        page.text([bold(*name)]);
        page.text([roman(*text)]);
    }
}

fn see_also<const N: usize>(page: &mut Roff, pages: [Inline; N]) {
    page.control("SH", ["SEE ALSO"]);
    page.text(pages);
}

/// The page of a configuration file. In the example, comments stand before their keys. A comment without a
/// key is a paragraph.
fn configuration(name: &str, of: &str, path: &str, example: &str) -> Roff {
    let mut page = Roff::new();
    page.control("TH", [name, "5", "", SOURCE, "vodrelay"]);
    // No hyphenation: people copy the names.
    page.control("nh", []);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - the configuration of {of}"))]);
    page.control("SH", ["DESCRIPTION"]);
    let file = [roman("The file is "), bold(path), roman(" unless the command line names another.")];
    page.text(file);
    let mut comments = Vec::new();
    let mut keys = Vec::new();
    // The title of the example says less than the name above. A last empty line ends the last block.
    for line in example.lines().skip(1).chain([""]) {
        let comment = line.strip_prefix('#').map(|text| text.strip_prefix(' ').unwrap_or(text));
        let is_key = comment.is_none() && line.contains('=');
        if !is_key && (!keys.is_empty() || line.is_empty() || comment == Some("")) {
            block(&mut page, &std::mem::take(&mut keys), &std::mem::take(&mut comments));
        }
        match comment {
            Some("") => {}
            Some(text) => comments.push(text),
            None if line.starts_with('[') => {
                page.control("SH", [line]);
            }
            None if is_key => keys.push(line),
            None => {}
        }
    }
    for (title, entries) in sections(&format!("{name}.5")) {
        section(&mut page, title, entries);
    }
    see_also(&mut page, [bold("vodrelay"), roman("(1), "), bold("vodrelay-check"), roman("(1)")]);
    page
}

/// Keys with their text, or a paragraph.
fn block(page: &mut Roff, keys: &[&str], comments: &[&str]) {
    match keys {
        [] if comments.is_empty() => return,
        [] => {
            page.control("PP", []);
        }
        [first, others @ ..] => {
            page.control("TP", []);
            page.text([bold(*first)]);
            for key in others {
                page.control("TQ", []);
                page.text([bold(*key)]);
            }
        }
    }
    for text in comments {
        // Indented text is a list.
        if text.starts_with(' ') {
            page.control("br", []);
        }
        page.text([roman(text.trim_start())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_help_shows_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        pages(&folder.path().join("man")).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path().join("man"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in [
            "vodrelay.1",
            "vodrelay-run.1",
            "vodrelay-events.1",
            "vodrelay-events-list.1",
            "vodrelay-signature-serve.1",
            "vodrelay.toml.5",
            "vodrelay-signature.toml.5",
        ] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help") || name.contains("-man")), "{names:?}");
    }

    #[test]
    fn pages_name_the_environment_the_files_and_the_signals() {
        let folder = tempfile::tempdir().unwrap();
        pages(folder.path()).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for (name, titles) in [
            ("vodrelay.1", &["ENVIRONMENT", "FILES", "SIGNALS"][..]),
            ("vodrelay-run.1", &["SIGNALS"]),
            ("vodrelay-emulate.1", &["ENVIRONMENT", "SIGNALS"]),
            ("vodrelay.toml.5", &["ENVIRONMENT", "FILES"]),
            ("vodrelay-signature-serve.1", &["FILES", "SIGNALS"]),
            ("vodrelay-signature.toml.5", &["FILES"]),
        ] {
            let page = page(name);
            for title in titles {
                let at = page
                    .find(&format!(".SH {title}\n"))
                    .unwrap_or_else(|| panic!("{name}: no {title} in\n{page}"));
                assert!(at < page.find(".SH \"SEE ALSO\"").unwrap(), "{name}: {title}");
            }
        }
        // The defaults of the configuration are those of the page.
        let config = crate::config::Config::default();
        let named = |path: &Path| FILES.iter().any(|(name, _)| Path::new(name) == path);
        assert!(named(&config.journal.path) && named(config.status.socket.as_deref().unwrap()));
    }

    #[test]
    fn every_key_is_in_the_page_of_the_configuration() {
        let page = configuration("vodrelay.toml", "vodrelay", "/x", EXAMPLE).render();
        let keys: Vec<_> = EXAMPLE
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = "))
            .collect();
        assert!(keys.len() > 20);
        for (key, _) in keys {
            assert!(page.contains(&format!("\\fB{key} = ")), "{key} is not in\n{page}");
        }
    }

    #[test]
    fn comments_stay_with_their_keys() {
        let page = configuration(
            "a.toml",
            "a",
            "/a.toml",
            "# title\n#\n# About all.\n\n[a]\n# Two.\n#   x: one\nb = 1\nc = 2\n# Alone.\n\n# Last.\nd = \"\"\n",
        );
        let at = |text: &str| {
            page.render().find(text).unwrap_or_else(|| panic!("{text} is not in\n{}", page.render()))
        };
        assert!(at("About all.") < at(".SH [a]"));
        assert!(at(".TP\n\\fBb = 1") < at(".TQ\n\\fBc = 2"));
        assert!(at("\\fBc = 2") < at("Two.\n.br\nx: one"));
        assert!(at("x: one") < at(".PP\nAlone."));
        assert!(at("Alone.") < at(".TP\n\\fBd = "));
        assert!(at("\\fBd = ") < at("Last."));
    }
}
