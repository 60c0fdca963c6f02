//! Every decoder of untrusted input in one shape: it takes bytes, and panics when a promise is broken.
//!
//! The fuzz targets in `fuzz/` and the bounded run below call the same functions. The promises: nothing panics, recurses or
//! allocates without bound; a value that was read can be written; what was written reads back as the same value.

use crate::catalog::{self, Catalog, Endpoint, Method, Pattern};
use crate::config::{Config, Role};
use crate::edge;
use celery::control::{Reply, ReplyTo, Request};
use celery::event::{self, Event};
use celery::result::{self, ResultMeta};
use celery::task::signature::Limits;
use celery::task::{Signature, Submission};
use celery::{Decoded, redelivered};
use schedule::cron::Cron;
use schedule::definition::Definition;

/// A decoder and its name, which its fuzz target and its folder in `fuzz/corpus` share.
pub struct Decoder {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

macro_rules! decoders {
    ($($name:ident),*) => {
        /// All of them.
        pub const ALL: &[Decoder] = &[$(Decoder { name: stringify!($name), run: $name }),*];
    };
}

decoders!(
    message,
    result_meta,
    saved_group,
    event,
    control_request,
    control_reply,
    submission,
    schedule,
    cron,
    cursor,
    query,
    template,
    config,
    resp_request
);

/// Runs the decoder of this name.
///
/// # Panics
/// When there is no decoder of this name, or a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let decoder = ALL.iter().find(|decoder| decoder.name == name).expect("a decoder of this name");
    (decoder.run)(bytes);
}

/// Limits for small canvases, which bound the work of one run.
const LIMITS: Limits = Limits { depth: 32, tasks: 1_000, json_types: &[] };

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// An element of a queue.
fn message(bytes: &[u8]) {
    if let Some(marked) = redelivered::mark(bytes) {
        assert!(is_json(&String::from_utf8_lossy(&marked)), "a marked message is JSON");
    }
    let Ok(decoded) = Decoded::decode(bytes) else { return };
    assert!(is_json(&decoded.headers) && is_json(&decoded.body), "what is kept is JSON");
    let (headers, body) = (decoded.message.headers(), decoded.message.body());
    assert!(is_json(&headers) && is_json(&body), "what is written is JSON");
    let again = celery::envelope(&headers, &body, &decoded.properties);
    let again = Decoded::decode(&again).expect("what was written can be read");
    assert_eq!((&again.message.id, &again.message.task), (&decoded.message.id, &decoded.message.task));
    assert_eq!(again.message.body(), body, "a second time is as the first");
}

/// A record of the result backend.
fn result_meta(bytes: &[u8]) {
    let Ok(meta) = ResultMeta::decode(bytes) else { return };
    let _ = meta.exception().map(|exception| (exception.text(), exception.repr()));
    let again = ResultMeta::decode(meta.encode().as_bytes()).expect("what was written can be read");
    assert_eq!((&again.status, again.result.get(), &again.task_id), (&meta.status, meta.result.get(), &meta.task_id));
    assert_eq!(again.children, meta.children);
}

fn saved_group(bytes: &[u8]) {
    let Ok(group) = result::decode_saved_group(bytes) else { return };
    let again = result::decode_saved_group(result::encode_saved_group(&group).as_bytes());
    assert_eq!(again.expect("what was written can be read"), group);
}

/// Events of workers.
fn event(bytes: &[u8]) {
    let Ok(events) = Event::decode(bytes) else { return };
    for event in &events {
        let mut out = String::new();
        event.encode(&mut out);
        assert!(is_json(&out), "{out}");
    }
    let again = Event::decode(&event::encode_tasks(&events, "celeryev", "tag")).expect("what was written can be read");
    assert_eq!(again.len(), events.len());
}

fn control_request(bytes: &[u8]) {
    let Ok(request) = Request::decode(bytes) else { return };
    let _ = request.is_for("celery@host");
    let again = Request::decode(&request.encode("celery.pidbox", None, "tag")).expect("what was written can be read");
    assert_eq!((&again.method, again.destination, again.reply), (&request.method, request.destination, request.reply));
}

fn control_reply(bytes: &[u8]) {
    let Ok(reply) = Reply::decode(bytes) else { return };
    let to = ReplyTo { ticket: "t".into(), exchange: "reply.celery.pidbox".into(), routing_key: "key".into() };
    let again = Reply::decode(&reply.encode(&to, "tag")).expect("what was written can be read");
    assert_eq!((again.ticket, again.node, again.value.get()), (reply.ticket, reply.node, reply.value.get()));
}

/// The body of `POST /v1/tasks`, as the edge reads it.
fn submission(bytes: &[u8]) {
    let Some(text) = edge::checked_json(bytes) else { return };
    for parse in [Submission::parse, Submission::parse_chain, Submission::parse_group, Submission::parse_chord] {
        if let Ok(found) = parse(&text, LIMITS) {
            same_signature(&found.signature);
        }
    }
}

fn same_signature(signature: &Signature) {
    let json = signature.to_json();
    let again = Submission::parse(&json, LIMITS).expect("what was written can be read");
    assert_eq!(again.signature.to_json(), json);
}

/// The body of `PUT /v1/schedules/{name}`.
fn schedule(bytes: &[u8]) {
    let Some(text) = edge::checked_json(bytes) else { return };
    if let Ok(definition) = Definition::parse(&text, LIMITS) {
        same_signature(&definition.submission.signature);
    }
}

fn cron(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(cron) = Cron::parse(text) {
        let start = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
        if let Some(next) = cron.next(start, &jiff::tz::TimeZone::UTC) {
            assert!(next > start, "{text}: time goes on");
        }
    }
}

fn cursor(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        edge::read_cursors(text);
    }
}

fn query(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        edge::read_queries(text);
    }
}

/// Templates, endpoints and patterns of the catalog.
fn template(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(value) = serde_json::from_str(text)
        && let Some(filled) = catalog::filled(&value, "\"x\"")
    {
        assert!(is_json(&filled), "{filled}");
    }
    if let Ok(endpoint) = Endpoint::parse(text, Method::Post) {
        assert!(!endpoint.shape().is_empty());
    }
    let _ = Pattern::new(text).matches(text);
}

fn config(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for role in [Role::Dev, Role::Serve] {
        if let Ok(config) = Config::parse(role, text) {
            let _ = Catalog::compile(&config);
        }
    }
}

/// What a client sends to dev's built-in Redis-protocol server.
fn resp_request(bytes: &[u8]) {
    resp::read_requests(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;

    /// The bounds of the run in the tests: this many mutations of each decoder's corpus, for at most this long. The fuzzers do more.
    const MUTATIONS: usize = 4_000;
    const LONGEST: Duration = Duration::from_secs(3);

    fn folder(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(folder("fuzz/corpus").join(name));
        let mut paths: Vec<PathBuf> = entries.unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// Pseudo-random numbers from a fixed seed, so that a failure can be repeated.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound.max(1) as u64) as usize
        }
    }

    const TOKENS: [&str; 16] = [
        "null",
        "{}",
        "[]",
        "\"\"",
        "-1",
        "1e999",
        "99999999999999999999",
        "\"\\ud800\"",
        "{{",
        "}",
        "*",
        "\0",
        ",",
        "\"",
        "[[[[[[[[",
        "é",
    ];

    fn mutated(numbers: &mut Numbers, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[numbers.below(corpus.len())].clone();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len() + 1);
            let end = (at + numbers.below(12)).min(bytes.len());
            match numbers.below(5) {
                0 => drop(bytes.splice(at..end, TOKENS[numbers.below(TOKENS.len())].bytes())),
                1 => drop(bytes.drain(at..end)),
                2 => bytes.insert(at, numbers.below(256) as u8),
                3 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
                _ => {
                    let other = &corpus[numbers.below(corpus.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
                }
            }
        }
        bytes
    }

    #[test]
    fn every_decoder_keeps_its_promises_on_its_corpus_and_what_is_like_it() {
        for decoder in ALL {
            let corpus = corpus(decoder.name);
            assert!(corpus.len() > 3, "{} has a corpus", decoder.name);
            for bytes in &corpus {
                (decoder.run)(bytes);
            }
            let (mut numbers, started) = (Numbers(0x9E37_79B9_7F4A_7C15), Instant::now());
            for _ in 0..MUTATIONS {
                let bytes = mutated(&mut numbers, &corpus);
                let outcome = std::panic::catch_unwind(|| (decoder.run)(&bytes));
                assert!(outcome.is_ok(), "{}: {:?}", decoder.name, String::from_utf8_lossy(&bytes));
                if started.elapsed() > LONGEST {
                    break;
                }
            }
        }
    }

    #[test]
    fn every_decoder_has_a_fuzz_target() {
        let manifest = std::fs::read_to_string(folder("fuzz/Cargo.toml")).unwrap();
        for decoder in ALL {
            let target = folder("fuzz/fuzz_targets").join(format!("{}.rs", decoder.name));
            let text = std::fs::read_to_string(&target).unwrap_or_default();
            assert!(text.contains(&format!("\"{}\"", decoder.name)), "{}", target.display());
            assert!(manifest.contains(&format!("name = \"{}\"", decoder.name)), "{}", decoder.name);
        }
    }
}
