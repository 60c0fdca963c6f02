//! The book: mdBook builds it, every page is in its table of contents, and its commands do what the pages say.
//!
//! A block that begins with "```sh,run" is run: all blocks of a page in one shell, in an empty folder, beside a `taskgate dev` and a
//! migrated database at `DATABASE_URL`. A line `# prints TEXT` says what its block must print.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use super::{Document, documents};
use crate::dev::Dev;
use crate::harness::celery::root;
use crate::harness::postgres;

/// Pages of `docs` that are not chapters: decisions are listed in their own index, and the Korean page only links to the English ones.
fn is_chapter(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let is_decision = name.starts_with("docs/adr/") && !name.ends_with("README.md");
    name.starts_with("docs/") && !is_decision && !["docs/SUMMARY.md", "docs/README.ko.md"].contains(&name.as_ref())
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let link = Regex::new(r"\]\(([^)]+)\)").expect("an expression");
    let summary = Document::read("docs/SUMMARY.md").text;
    let listed: BTreeSet<_> = link.captures_iter(&summary).map(|found| format!("docs/{}", &found[1])).collect();
    let pages: BTreeSet<_> = documents()
        .into_iter()
        .filter(|document| is_chapter(&document.path))
        .map(|document| document.path.to_string_lossy().into_owned())
        .collect();
    assert_eq!(pages, listed, "docs/SUMMARY.md lists other pages than there are");
}

#[test]
fn mdbook_builds_the_book() {
    let folder = tempfile::tempdir().expect("a folder");
    let built = Command::new(root().join(".venv/packaging/bin/mdbook"))
        .arg("build")
        .arg(root().join("docs"))
        .arg("--dest-dir")
        .arg(folder.path())
        .output()
        .expect("run tests/setup.sh first");
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success() && !said.contains("WARN"), "{said}");
    for page in ["index.html", "start.html", "tutorials/fastapi.html", "reference/configuration.html"] {
        assert!(folder.path().join(page).exists(), "{page} is missing");
    }
}

/// The blocks of a page that are run.
fn blocks(document: &Document) -> Vec<String> {
    let parts = document.text.split("\n```sh,run\n").skip(1);
    parts.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// Runs the blocks of one page; returns what each printed.
fn run(document: &Document, base: &str) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_taskgate"));
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("set -eu\n{}", blocks(document).join("\necho ====\n")).replace("http://127.0.0.1:8000", base);
    let search =
        format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").expect("a PATH"));
    let done = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", search)
        .env("TASKGATE_URL", base)
        .env("DATABASE_URL", postgres::cluster().migrated_database())
        .output()
        .expect("bash starts");
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    let name = document.path.display();
    assert!(done.status.success(), "{name}\n{output}\n{}", String::from_utf8_lossy(&done.stderr));
    output.split("====\n").map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_book_do_what_their_pages_say() {
    let dev = Dev::start();
    let pages: Vec<_> = documents().into_iter().filter(|document| !blocks(document).is_empty()).collect();
    assert!(pages.len() >= 7, "pages without commands");
    for page in pages {
        let base = dev.http.base.clone();
        let (page, printed) = tokio::task::spawn_blocking(move || {
            let printed = run(&page, &base);
            (page, printed)
        })
        .await
        .expect("no command hangs");
        for (block, output) in blocks(&page).iter().zip(&printed) {
            for expected in block.lines().filter_map(|line| line.strip_prefix("# prints ")) {
                assert!(output.contains(expected), "{}: {expected} is missing in\n{output}", page.path.display());
            }
        }
    }
}
