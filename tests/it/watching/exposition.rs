//! A reader of Prometheus's text format that refuses what Prometheus would refuse.

use std::collections::{BTreeMap, BTreeSet};

/// What one scrape shows.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Kind by family: `counter`, `gauge`, `histogram`.
    pub kinds: BTreeMap<String, String>,
    pub helps: BTreeMap<String, String>,
    /// Value by series, `name{labels}`.
    pub series: BTreeMap<String, f64>,
}

impl Exposition {
    /// # Panics
    /// With the line, when it is not the format, or a series or family comes twice.
    pub fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(found.helps.insert(name.to_owned(), help.to_owned()).is_none(), "twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(found.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else {
                assert!(!line.starts_with('#'), "a comment: {line}");
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(found.series.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        found
    }

    /// All names that a query can ask for, `_bucket`, `_sum` and `_count` of histograms among them.
    pub fn names(&self) -> BTreeSet<&str> {
        self.series.keys().map(|series| name(series)).collect()
    }

    /// The family that a series belongs to.
    pub fn family<'a>(&self, series: &'a str) -> &'a str {
        let name = name(series);
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.filter(|base| self.kinds.get(*base).is_some_and(|kind| kind == "histogram")).unwrap_or(name)
    }

    /// Series of a family by their labels, for counters of the fleet.
    pub fn of<'a>(&'a self, family: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        let found = self.series.iter().filter(move |(series, _)| self.family(series) == family);
        found.map(|(series, value)| (series.as_str(), *value))
    }

    /// The value of a series, which must be there.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} is not among {:#?}", self.names()))
    }
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}
