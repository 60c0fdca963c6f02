//! Webhooks of a task: which changes to report, and to which URL.

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::spelling::nearest;

/// A webhook of a submission or of a catalog entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub url: String,
    /// `success`, `failure`, `retry`, a phase, a status, or `*` for every change. Default: success and failure.
    pub on: Vec<String>,
}

/// Longest URL.
const MAX_URL: usize = 2_048;
const MAX_WORD: usize = 64;
/// Values of `on` besides phases and states.
const WORDS: [&str; 5] = ["*", "success", "failure", "retry", INCIDENT];
/// Subscribes to incidents, which are not changes of tasks; `*` does not include them.
pub const INCIDENT: &str = "incident";

/// The default of `on`.
pub fn usual() -> Vec<String> {
    vec!["success".to_owned(), "failure".to_owned()]
}

/// Whether one of the values in `on` matches a change to this phase and status.
pub fn matches(on: &[String], phase: Phase, status: &str) -> bool {
    on.iter().any(|word| match word.as_str() {
        "*" => true,
        "success" => phase == Phase::Succeeded,
        "failure" => matches!(phase, Phase::Failed | Phase::Lost),
        "retry" => phase == Phase::Retrying,
        word => word == phase.as_str() || word == status,
    })
}

/// Checks a value of `on`. Custom states are allowed, but a probable misspelling of a known value is refused.
///
/// # Errors
/// What is wrong with it.
pub fn check_word(word: String) -> Result<String, String> {
    if !(1..=MAX_WORD).contains(&word.chars().count()) {
        return Err(format!("must have 1 to {MAX_WORD} characters"));
    }
    let known: Vec<&str> = Phase::ALL.iter().map(|phase| phase.as_str()).chain(WORDS).collect();
    let is_plain = word.chars().all(|char| char.is_ascii_lowercase());
    if !is_plain || known.contains(&word.as_str()) {
        return Ok(word);
    }
    match nearest(&word, known.iter().filter(|known| known.len() > 1)) {
        Some(near) => Err(format!("is no phase; did you mean {near}?")),
        None => Ok(word),
    }
}

/// Checks the URL of a webhook: http or https, with a host, without a password.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: String) -> Result<String, String> {
    if url.len() > MAX_URL {
        return Err(format!("must have at most {MAX_URL} characters"));
    }
    if url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err("must not have spaces or control characters".to_owned());
    }
    let uri = url.parse::<http::Uri>().map_err(|_| "must be an http or https URL".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err("must be an http or https URL".to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not hold a user name or a password: deliveries are signed instead".to_owned());
    }
    Ok(url)
}

/// The prefix of every secret.
pub const SECRET_PREFIX: &str = "whsec_";

/// Checks a secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret(secret: String) -> Result<String, String> {
    match key(&secret) {
        Some(bytes) if (24..=64).contains(&bytes.len()) => Ok(secret),
        _ => Err("must be whsec_ and 24 to 64 bytes in base64".to_owned()),
    }
}

/// The bytes of a secret; `None` when it does not have this form.
pub fn key(secret: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()
}

/// The bytes as a secret.
pub fn secret_of(key: &[u8]) -> String {
    use base64::Engine;
    format!("{SECRET_PREFIX}{}", base64::engine::general_purpose::STANDARD.encode(key))
}

/// Host and port of a checked URL, in lower case.
pub fn target(url: &str) -> String {
    let Ok(uri) = url.parse::<http::Uri>() else { return String::new() };
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    format!("{}:{port}", uri.host().unwrap_or_default().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_word_means_a_phase_a_state_or_a_kind_of_end() {
        assert!(matches(&on(&["failure"]), Phase::Lost, "FAILURE"));
        assert!(matches(&on(&["retry"]), Phase::Retrying, "RETRY"));
        assert!(matches(&on(&["running"]), Phase::Running, "PROGRESS"));
        assert!(matches(&on(&["x", "PROGRESS"]), Phase::Running, "PROGRESS"));
        assert!(matches(&on(&["*"]), Phase::Accepted, "PENDING"));
        assert!(!matches(&usual(), Phase::Revoked, "REVOKED"));
        assert!(!matches(&on(&["success"]), Phase::Running, "SUCCESSFULLY"));
    }

    #[test]
    fn a_misspelt_phase_is_refused_and_a_custom_state_is_not() {
        assert!(check_word("succeded".into()).unwrap_err().contains("succeeded"));
        for word in ["succeeded", "SUCCESS", "PROGRESS", "*", "crawling", "Step 2"] {
            assert!(check_word(word.into()).is_ok(), "{word}");
        }
        assert!(check_word(String::new()).is_err());
    }

    #[test]
    fn only_plain_http_urls_are_taken() {
        for url in ["http://h", "https://example.org:8443/hook?a=b", "http://[::1]:9/x"] {
            assert!(check_url(url.into()).is_ok(), "{url}");
        }
        for url in ["ftp://h/", "/hook", "http://", "https://user:pw@h/", "http://h/ x", "http://h\n/", "mailto:a@b"] {
            assert!(check_url(url.into()).is_err(), "{url}");
        }
        assert_eq!(target("https://Example.org/x"), "example.org:443");
        assert_eq!(target("http://[::1]:9/x"), "[::1]:9");
    }
}
