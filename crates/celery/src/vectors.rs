//! Messages recorded from real Celery, for the tests of this folder.

use std::path::PathBuf;

use serde_json::Value;

/// Versions recorded so far.
pub const VERSIONS: [&str; 2] = ["celery-5.7", "celery-5.4"];

/// One vector of Celery 5.7.
pub fn load(name: &str) -> Value {
    let path = folder("celery-5.7").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// All vectors of all versions, `(version/name, vector)`.
pub fn all() -> Vec<(String, Value)> {
    let mut vectors = Vec::new();
    for version in VERSIONS {
        let Ok(entries) = std::fs::read_dir(folder(version)) else { continue };
        for path in
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        {
            let name = format!("{version}/{}", path.file_stem().unwrap().to_string_lossy());
            let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            vectors.push((name, value));
        }
    }
    assert!(vectors.len() > 150, "the vectors are part of the repository");
    vectors
}

/// Every payload of a command of this name: the last argument of `LPUSH`, `RPUSH`, `PUBLISH`, `SETEX` …
pub fn payloads(vector: &Value, command: &str, key: impl Fn(&str) -> bool) -> Vec<String> {
    let Some(commands) = vector["commands"].as_array() else { return Vec::new() };
    let words = |entry: &Value| -> Vec<String> {
        entry["cmd"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
            .collect()
    };
    commands
        .iter()
        .map(words)
        .filter(|cmd| cmd[0].eq_ignore_ascii_case(command) && cmd.len() > 2 && key(&cmd[1]))
        .map(|mut cmd| cmd.pop().unwrap())
        .collect()
}

/// The task messages that were pushed to queues.
pub fn messages(vector: &Value) -> Vec<String> {
    let mut found = payloads(vector, "LPUSH", |key| !key.contains("pidbox"));
    found.extend(payloads(vector, "RPUSH", |_| true));
    found.retain(|text| serde_json::from_str::<Value>(text).is_ok_and(|value| value["headers"]["task"].is_string()));
    found
}

fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(version)
}
