//! Separates the keys of tenants: a key that a client chooses (`limits`, `unique`, `fair`) is stored as `@namespace/key`, so that tasks of
//! two namespaces never wait for each other, whatever keys they choose.
//!
//! Keys from the catalog, and from callers without a namespace, are stored unchanged. No key can leave its namespace: it always gets
//! the prefix, and a slash inside a namespace is escaped.

use celery::task::submission::Submission;

/// The prefix of a namespace's keys.
pub fn prefix(namespace: &str) -> String {
    format!("@{}/", namespace.replace('%', "%25").replace('/', "%2F"))
}

/// Adds the prefix, unless the key has it already because it was read back.
fn own(prefix: &str, word: &str) -> String {
    if word.starts_with(prefix) { word.to_owned() } else { format!("{prefix}{word}") }
}

/// Moves the keys of a client's submission into its namespace.
pub fn enter(submission: &mut Submission, namespace: Option<&str>) {
    let Some(prefix) = namespace.map(prefix) else { return };
    for limit in &mut submission.limits {
        limit.key = own(&prefix, &limit.key);
    }
    if let Some(unique) = &mut submission.unique {
        unique.key = own(&prefix, &unique.key);
    }
    if let Some(fair) = &mut submission.fair {
        fair.key = own(&prefix, &fair.key);
    }
}

/// The stored form of a key from a caller of this namespace.
pub fn key(namespace: Option<&str>, word: &str) -> String {
    namespace.map_or_else(|| word.to_owned(), |namespace| own(&prefix(namespace), word))
}

/// A stored key in the form that a caller of this namespace uses; `None` when it belongs to another namespace.
pub fn word<'a>(namespace: Option<&str>, key: &'a str) -> Option<&'a str> {
    namespace.map_or(Some(key), |namespace| key.strip_prefix(&prefix(namespace)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::signature::Limits;

    fn entered(namespace: Option<&str>, key: &str) -> (String, String) {
        let text =
            format!(r#"{{"task": "t", "unique": {{"key": "{key}"}}, "limits": [{{"key": "{key}", "max": 1}}]}}"#);
        let mut submission = Submission::parse(&text, Limits::default()).unwrap();
        enter(&mut submission, namespace);
        (submission.unique.unwrap().key, submission.limits[0].key.clone())
    }

    #[test]
    fn a_caller_sees_the_keys_of_the_own_namespace_as_words() {
        assert_eq!(key(Some("a"), "k"), "@a/k");
        assert_eq!(word(Some("a"), "@a/k"), Some("k"));
        assert_eq!(word(Some("a"), "@b/k"), None);
        assert_eq!(word(Some("a"), "k"), None, "the owner's");
        assert_eq!(word(None, "@b/k"), Some("@b/k"));
    }

    #[test]
    fn one_word_in_two_namespaces_is_two_keys() {
        assert_eq!(entered(Some("a"), "k"), ("@a/k".to_owned(), "@a/k".to_owned()));
        assert_ne!(entered(Some("a"), "b/k").0, entered(Some("a/b"), "k").0);
        assert_eq!(entered(Some("a"), "@b/k").0, "@a/@b/k", "nobody leaves their namespace");
        assert_eq!(entered(Some("a"), "@a/k").0, "@a/k");
        assert_eq!(entered(None, "k").0, "k");
    }
}
