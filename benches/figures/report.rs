//! Figures, the goals beside them, and the two ways in which they are shown: a table, and JSON.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    name: String,
    /// Absent when the relay does not tell it.
    value: Option<f64>,
    unit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
}

impl Figure {
    /// A figure that is only told. The unit of a ratio is empty.
    pub(crate) fn new(name: impl Into<String>, value: impl Into<Option<f64>>, unit: &str) -> Self {
        Self { name: name.into(), value: value.into(), unit: unit.to_owned(), goal: None }
    }

    /// The same figure, and what it should be.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Whether it is what it should be. A figure that should be something, and is absent or not a number, is not.
    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.value.is_some_and(|value| goal.met_by(value)))
    }

    /// Whether it was measured, as far as it has to be.
    fn is_there(&self) -> bool {
        match self.value {
            Some(value) => value.is_finite(),
            None => self.goal.is_none(),
        }
    }
}

/// What one scenario found; nothing when it could not be measured.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Section {
    scenario: String,
    figures: Option<Vec<Figure>>,
}

/// Everything that was measured in one run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether this was a short run, whose figures say nothing.
    short: bool,
    /// Whether the program was built with optimisation, as it is shipped.
    optimised: bool,
    cores: usize,
    scenarios: Vec<Section>,
}

impl Report {
    pub(crate) fn new(short: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self { short, optimised: !cfg!(debug_assertions), cores, scenarios: Vec::new() }
    }

    pub(crate) fn add(&mut self, scenario: &str, figures: Vec<Figure>) {
        let names: HashSet<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names.len(), figures.len(), "the figures of {scenario} have names of their own");
        self.scenarios.push(Section { scenario: scenario.to_owned(), figures: Some(figures) });
    }

    /// The scenario could not be measured; its panic has said why.
    pub(crate) fn failed(&mut self, scenario: &str) {
        self.scenarios.push(Section { scenario: scenario.to_owned(), figures: None });
    }

    /// Whether everything was measured and, except in a short run, every goal was met.
    pub(crate) fn all_is_well(&self) -> bool {
        let well = |figure: &Figure| figure.is_there() && (self.short || figure.met() != Some(false));
        let sections = self.scenarios.iter();
        sections.map(|section| &section.figures).all(|figures| {
            figures.as_ref().is_some_and(|figures| !figures.is_empty() && figures.iter().all(well))
        })
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<[String; 4]> = vec![["figure", "measured", "", "goal"].map(str::to_owned)];
        for section in &self.scenarios {
            rows.push([section.scenario.to_uppercase(), String::new(), String::new(), String::new()]);
            let Some(figures) = &section.figures else {
                rows.push(["  could not be measured", "", "", "FAILED"].map(str::to_owned));
                continue;
            };
            rows.extend(figures.iter().map(|figure| self.row(figure)));
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [name, value, unit] = [0, 1, 2].map(width);
        let mut table = String::new();
        for [a, b, c, d] in &rows {
            let line = format!("{a:name$}  {b:>value$} {c:unit$}  {d}");
            writeln!(table, "{}", line.trim_end()).expect("a string takes everything");
        }
        if !self.optimised {
            table += "This program was built without optimisation: these are not the figures of what is shipped.\n";
        }
        table
    }

    fn row(&self, figure: &Figure) -> [String; 4] {
        let goal = match figure.goal {
            None => String::new(),
            Some(Goal::AtLeast(goal)) => format!(">= {goal}"),
            Some(Goal::AtMost(goal)) => format!("<= {goal}"),
        };
        let verdict = match figure.met() {
            Some(false) if !self.short => "  MISSED",
            _ => "",
        };
        let value = figure.value.map_or_else(|| "absent".to_owned(), shown);
        [format!("  {}", figure.name), value, figure.unit.clone(), goal + verdict]
    }

    /// Writes the JSON, and reads it back: whoever compares runs can rely on it.
    pub(crate) fn write(&self, path: &Path) {
        let json = serde_json::to_string_pretty(self).expect("figures can be written as JSON");
        std::fs::write(path, json + "\n")
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        let text = std::fs::read_to_string(path).expect("what was just written can be read");
        let read: Self = serde_json::from_str(&text).expect("what was just written is JSON");
        let count = |report: &Self| -> Vec<usize> {
            report.scenarios.iter().map(|section| section.figures.as_ref().map_or(0, Vec::len)).collect()
        };
        assert_eq!(count(&read), count(self), "every figure is in the JSON");
    }
}

/// With as many digits as say something.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "the median of nothing");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// The median of the ratios of the rounds: what slows the machine down for a while slows down both sides of a round.
pub(crate) fn median_ratio(values: &[f64], of: &[f64]) -> f64 {
    let ratios: Vec<f64> = values.iter().zip(of).map(|(value, of)| value / of).collect();
    median(&ratios)
}

/// The smallest value that so many percent of the values do not exceed.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    assert!(!values.is_empty(), "a percentile of nothing");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
