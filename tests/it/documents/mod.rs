//! Documents stay true: their links work, the files that they name exist, and their lists are complete.

mod book;
mod commands;
mod links;
mod lists;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::celery::root;

/// Folders without documents of ours.
const SKIPPED: [&str; 8] =
    ["target", ".git", ".venv", "node_modules", "corpus", "vendor", "taskgate-data", ".pytest_cache"];

struct Document {
    /// Relative to the project.
    path: PathBuf,
    text: String,
}

impl Document {
    fn read(path: &str) -> Self {
        Self { path: path.into(), text: fs::read_to_string(root().join(path)).expect(path) }
    }

    fn folder(&self) -> PathBuf {
        root().join(self.path.parent().expect("a file is in a folder"))
    }

    /// Without fenced code blocks: what is in them is no link and no heading.
    fn prose(&self) -> String {
        let mut is_code = false;
        let lines = self.text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            is_code ^= fence;
            !is_code && !fence
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Every Markdown file of the project.
fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort();
    let relative = |path: PathBuf| path.strip_prefix(root()).expect("below it").to_owned();
    found
        .into_iter()
        .map(|path| Document { text: fs::read_to_string(&path).expect("UTF-8"), path: relative(path) })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !SKIPPED.contains(&name.as_str()) {
                collect(&path, found);
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}
