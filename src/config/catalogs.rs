//! `catalogs`: files with entries of the catalog, as `python -m taskgate.export` writes them, read beside the configuration.
//!
//! Their entries come after the configuration's own, so messages about these keep their lines. An entry of the configuration replaces
//! the one of the same name in a file; two files with the same name are refused like two entries of the configuration.

use std::path::Path;

use toml::Value;

use super::source::{self, Said, Source};
use super::{Error, lines, typed, value};

/// Adds the entries of all files. `folder` is where relative paths begin.
///
/// # Errors
/// When a file cannot be read, or has something else than `[[tasks]]`.
pub(super) fn add(said: &mut Said, folder: &Path) -> Result<(), Error> {
    let Some(value) = said.table.get("catalogs").cloned() else { return Ok(()) };
    let files: value::Words = typed(said, "catalogs", value)?;
    let own = tasks(said).len();
    for file in files.0 {
        add_file(said, &folder.join(file), own)?;
    }
    Ok(())
}

fn tasks(said: &Said) -> &[Value] {
    said.table.get("tasks").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Adds the entries of a file, but for those whose names are among the first `own` entries.
fn add_file(said: &mut Said, path: &Path, own: usize) -> Result<(), Error> {
    let text = source::read(path)?;
    let mut table = source::parse(path, &text)?;
    let found = match table.remove("tasks") {
        Some(Value::Array(found)) => found,
        Some(_) => return Err(misplaced(path, "tasks", "must be a list: write [[tasks]]")),
        None => Vec::new(),
    };
    if let Some(key) = table.keys().next() {
        return Err(misplaced(path, key, "belongs into the configuration: a file of `catalogs` has [[tasks]] only"));
    }
    let places = lines::of(&text);
    for (index, entry) in found.into_iter().enumerate() {
        let is_same = |one: &Value| one.get("name").is_some() && one.get("name") == entry.get("name");
        if tasks(said).iter().take(own).any(is_same) {
            continue;
        }
        let (there, here) = (format!("tasks[{index}]"), format!("tasks[{}]", tasks(said).len()));
        for (key, line) in &places {
            let rest = key.strip_prefix(&there).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            if let Some(rest) = rest {
                said.lines.insert(format!("{here}{rest}"), *line);
            }
        }
        said.sources.insert(here, Source::File(path.to_owned()));
        if let Value::Array(all) = said.table.entry("tasks").or_insert_with(|| Value::Array(Vec::new())) {
            all.push(entry);
        }
    }
    Ok(())
}

fn misplaced(path: &Path, key: &str, message: &str) -> Error {
    Error::value(format!("{key} (in {})", path.display()), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Given, Role};

    const EXPORTED: &str = "[[tasks]]\nname = 'app.add'\nendpoint = 'POST /tasks/app.add'\n\n[[tasks]]\nname = 'app.send'\nqueue = 'mail'\n";

    fn load(configuration: &str, exported: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taskgate.toml");
        std::fs::write(&file, configuration).unwrap();
        std::fs::write(folder.path().join("catalog.toml"), exported).unwrap();
        Config::load(Role::Dev, &Given { file: Some(file), ..Given::default() })
    }

    #[test]
    fn entries_of_a_file_stand_behind_those_of_the_configuration_which_win() {
        let own = "catalogs = ['catalog.toml']\n[[tasks]]\nname = 'app.send'\nqueue = 'fast'\n";
        let config = load(own, EXPORTED).unwrap();
        let found: Vec<_> = config
            .tasks
            .iter()
            .map(|task| (task.name.0.as_str(), task.queue.as_ref().map(|name| name.0.as_str())))
            .collect();
        assert_eq!(found, [("app.send", Some("fast")), ("app.add", None)]);
    }

    #[test]
    fn a_fault_in_a_file_is_told_with_its_own_line() {
        let own = "catalogs = ['catalog.toml']\n[[tasks]]\nname = 'app.own'\n";
        let told = load(own, &EXPORTED.replace("queue", "quue")).unwrap_err().to_string();
        assert!(told.contains("catalog.toml, line 7") && told.contains("quue"), "{told}");
    }

    #[test]
    fn a_file_that_is_missing_or_says_more_is_refused() {
        let told = load("catalogs = ['other.toml']\n", "").unwrap_err().to_string();
        assert!(told.contains("other.toml"), "{told}");
        let told = load("catalogs = ['catalog.toml']\n", "auth = 'none'\n").unwrap_err().to_string();
        assert!(told.contains("auth (in ") && told.contains("[[tasks]] only"), "{told}");
        assert!(load("catalogs = ['catalog.toml']\n", "").unwrap().tasks.is_empty());
    }
}
