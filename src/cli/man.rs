//! `man`: the manual pages, for those who make packages. The commands' come from the same definitions as `--help`, the
//! configuration's from the example that shows every key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::exit::{Exit, Failure};

const EXAMPLE: &str = include_str!("../../config.example.toml");
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
    let mut page = Vec::new();
    configuration(EXAMPLE).to_writer(&mut page)?;
    fs::write(folder.join("vodrelay.toml.5"), page)
}

/// A page for a command, and one for each of its subcommands.
fn command(folder: &Path, command: &clap::Command) -> io::Result<()> {
    let man = Man::new(command.clone()).source(SOURCE).manual("vodrelay");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut end = Roff::new();
    see_also(&mut end, [bold("vodrelay"), roman("(1), "), bold("vodrelay.toml"), roman("(5)")]);
    end.to_writer(&mut page)?;
    fs::write(folder.join(man.get_filename()), page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        self::command(folder, sub)?;
    }
    Ok(())
}

fn see_also<const N: usize>(page: &mut Roff, pages: [Inline; N]) {
    page.control("SH", ["SEE ALSO"]);
    page.text(pages);
}

/// The page of the configuration file. In the example, comments come before the keys that they are about; comments without a
/// key speak for themselves.
fn configuration(example: &str) -> Roff {
    let mut page = Roff::new();
    page.control("TH", ["vodrelay.toml", "5", "", SOURCE, "vodrelay"]);
    // Names are to be copied whole.
    page.control("nh", []);
    page.control("SH", ["NAME"]);
    page.text([roman("vodrelay.toml - the configuration of vodrelay")]);
    page.control("SH", ["DESCRIPTION"]);
    let file =
        [roman("The file is "), bold(crate::config::DEFAULT_PATH), roman(" unless --config names another.")];
    page.text(file);
    let mut comments = Vec::new();
    let mut keys = Vec::new();
    // The title says less than the name above does. A last empty line ends the last block.
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
    see_also(&mut page, [bold("vodrelay"), roman("(1), "), bold("vodrelay-check"), roman("(1)")]);
    page
}

/// Keys and what is said about them, or a paragraph.
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
        // What is indented is a list.
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
        for name in
            ["vodrelay.1", "vodrelay-run.1", "vodrelay-events.1", "vodrelay-events-list.1", "vodrelay.toml.5"]
        {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help") || name.contains("-man")), "{names:?}");
    }

    #[test]
    fn every_key_is_in_the_page_of_the_configuration() {
        let page = configuration(EXAMPLE).render();
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
