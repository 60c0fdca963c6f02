//! Finds the line number of each key in a configuration file, for error messages.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// Line numbers by dotted key, list entries by index: `http.listen`, `tasks[0].endpoint`. Empty for a text that is not TOML.
pub(super) fn of(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        let mut walk = Walk { starts: starts(text), lines: &mut lines };
        walk.table("", table.get_ref());
    }
    lines
}

/// The byte offset at which each line begins.
fn starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Walk<'a> {
    starts: Vec<usize>,
    lines: &'a mut BTreeMap<String, usize>,
}

impl Walk<'_> {
    fn table(&mut self, place: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref();
            let place = if place.is_empty() { name.to_string() } else { format!("{place}.{name}") };
            self.note(&place, key.span().start);
            self.value(&place, value.get_ref());
        }
    }

    fn value(&mut self, place: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(place, table),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let place = format!("{place}[{index}]");
                    self.note(&place, element.span().start);
                    self.value(&place, element.get_ref());
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, place: &str, offset: usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        self.lines.insert(place.to_owned(), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_tables_lists_and_inline_tables_have_lines() {
        let lines = of(
            "auth = 'none'\n\n[http]\nlisten = 'x'\nsse.a = 1\n[[tasks]]\nname = 'a'\n[[tasks]]\nretry = { max = 1 }\n",
        );
        let line = |key: &str| lines.get(key).copied();
        assert_eq!((line("auth"), line("http"), line("http.listen")), (Some(1), Some(3), Some(4)));
        assert_eq!(
            (line("http.sse.a"), line("tasks[0].name"), line("tasks[1].retry.max")),
            (Some(5), Some(7), Some(9))
        );
        assert!(line("tasks[1]").is_some());
        assert!(of("[").is_empty());
    }
}
