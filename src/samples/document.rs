//! `tasks.process_document`: takes a document through five stages and reports the current stage.
//!
//! Every upload is the sample document that ships with the program. The embedding is a bag of hashed words: it needs no model, and
//! gives the same vector for the same text.

use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;
use scraper::{Html, Selector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::crawl::write_whole;
use taskgate_worker::{Context, PROGRESS, Registry, TaskError};

const SAMPLE: &str = include_str!("../../examples/celery-python/sample-document.html");
const STAGES: usize = 5;
const CHUNK_CHARACTERS: usize = 400;
const DIMENSIONS: usize = 64;

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+").expect("a pattern of this file"));

#[derive(Deserialize)]
struct Upload {
    /// Any value: an id may be a number or a text.
    upload_id: Value,
}

#[derive(Serialize)]
struct Processed {
    upload_id: Value,
    chunks: usize,
    characters: usize,
}

#[derive(Debug, Serialize)]
struct Embedded {
    text: String,
    vector: Vec<f64>,
}

pub(super) fn register(registry: &mut Registry, directory: PathBuf) {
    registry.task("tasks.process_document", move |context: Context, upload: Upload| {
        let directory = directory.clone();
        async move { process(&context, upload.upload_id, directory).await }
    });
}

async fn process(context: &Context, upload_id: Value, directory: PathBuf) -> Result<Processed, TaskError> {
    let stage = async |number: usize, name: &str| {
        context.update_state(PROGRESS, json!({"progress": number, "total": STAGES, "message": name})).await
    };
    stage(1, "download").await?;
    let html = SAMPLE;
    stage(2, "extract text").await?;
    let text = extract_text(html);
    stage(3, "chunk").await?;
    let chunks = chunk(&text);
    stage(4, "embed").await?;
    let embedded: Vec<Embedded> = chunks.into_iter().map(|text| Embedded { vector: vector(&text), text }).collect();
    stage(5, "store").await?;
    let file = directory.join(format!("{}.json", hex(&Sha256::digest(upload_id.to_string()))));
    write_whole(&file, &serde_json::to_vec(&json!({"upload_id": upload_id, "chunks": embedded}))?).await?;
    let characters = embedded.iter().map(|embedded| embedded.text.chars().count()).sum();
    Ok(Processed { upload_id, chunks: embedded.len(), characters })
}

/// The visible text of the page, with whitespace collapsed.
fn extract_text(html: &str) -> String {
    let document = Html::parse_document(html);
    let body = Selector::parse("body").expect("a selector of this file");
    let words: Vec<&str> =
        document.select(&body).flat_map(|body| body.text()).flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// Splits a text between words into pieces no longer than [`CHUNK_CHARACTERS`], unless a single word is longer.
fn chunk(text: &str) -> Vec<String> {
    let (mut chunks, mut current, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split_whitespace() {
        let added = word.chars().count();
        if length > 0 && length + 1 + added > CHUNK_CHARACTERS {
            chunks.push(std::mem::take(&mut current));
            length = 0;
        }
        if length > 0 {
            current.push(' ');
            length += 1;
        }
        current.push_str(word);
        length += added;
    }
    if length > 0 {
        chunks.push(current);
    }
    chunks
}

/// Counts of hashed words, as a vector of length one.
fn vector(text: &str) -> Vec<f64> {
    let mut counts = vec![0.0_f64; DIMENSIONS];
    for word in WORD.find_iter(&text.to_lowercase()) {
        counts[usize::from(Sha256::digest(word.as_str())[0]) % DIMENSIONS] += 1.0;
    }
    let length = counts.iter().map(|count| count * count).sum::<f64>().sqrt();
    if length > 0.0 {
        counts.iter_mut().for_each(|count| *count /= length);
    }
    counts
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_becomes_chunks_of_whole_words() {
        let text = extract_text(SAMPLE);
        assert!(text.starts_with("Guide to the campus notice boards") && !text.contains('<'));
        let chunks = chunk(&text);
        assert!(chunks.len() > 3 && chunks.iter().all(|chunk| chunk.chars().count() <= CHUNK_CHARACTERS));
        assert_eq!(chunks.join(" "), text);
    }

    #[test]
    fn equal_texts_have_equal_vectors_of_length_one() {
        let (first, second) = (vector("Notes about grants"), vector("notes ABOUT grants"));
        assert_eq!(first, second);
        assert!((first.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-9);
        assert_ne!(first, vector("something else entirely"));
        assert_eq!(vector("").iter().sum::<f64>(), 0.0);
    }
}
