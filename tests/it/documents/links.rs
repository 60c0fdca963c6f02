//! Follows every relative link and every path of a file that a document names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use super::{Document, documents};
use crate::harness::celery::root;

/// The target of a link in a document, unless it is `https://…`.
fn relative_links(document: &Document) -> Vec<String> {
    let markdown = Regex::new(r#"\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)"#).expect("an expression");
    let html = Regex::new(r#"(?:src|href)="([^"]+)""#).expect("an expression");
    let prose = document.prose();
    let found = markdown.captures_iter(&prose).chain(html.captures_iter(&prose));
    found.map(|link| link[1].to_owned()).filter(|link| !link.contains("://") && !link.starts_with("mailto:")).collect()
}

/// A heading's anchor as GitHub and mdBook build it: lower case, words joined by hyphens, without punctuation.
fn anchor(heading: &str) -> String {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").expect("an expression");
    let text = link.replace_all(heading, "$1").to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(path: &Path) -> BTreeSet<String> {
    let document = Document { path: path.to_owned(), text: fs::read_to_string(path).expect("it exists") };
    let prose = document.prose();
    prose
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// What is wrong with a link, if anything is.
fn fault(document: &Document, link: &str) -> Option<String> {
    let (path, place) = link.split_once('#').map_or((link, None), |(path, place)| (path, Some(place)));
    let target = if path.is_empty() { root().join(&document.path) } else { document.folder().join(path) };
    if !target.exists() {
        return Some(format!("{}: {link} leads nowhere", document.path.display()));
    }
    let place = place.filter(|_| target.extension().is_some_and(|ending| ending == "md"))?;
    (!anchors(&target).contains(place)).then(|| format!("{}: {link}: no such heading", document.path.display()))
}

#[test]
fn every_relative_link_leads_somewhere() {
    let documents = documents();
    let faults: Vec<_> = documents
        .iter()
        .flat_map(|document| relative_links(document).into_iter().filter_map(|link| fault(document, &link)))
        .collect();
    assert!(documents.len() > 30, "documents are missing");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Paths of files in a text, such as `src/edge/router.rs`.
fn named_paths(text: &str) -> Vec<String> {
    let path = Regex::new(
        r"(?m)(?:^|[\s`(\[])((?:src|crates|tests|benches|examples|deploy|fuzz|clients|migrations|dashboard|docs|\.ci|\.github)/[\w./-]*\w/?)",
    )
    .expect("an expression");
    path.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for document in documents() {
        for path in named_paths(&document.text) {
            // A crate's or a client's own document names its own files.
            if !root().join(&path).exists() && !document.folder().join(&path).exists() {
                missing.push(format!("{}: {path}", document.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
