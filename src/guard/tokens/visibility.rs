//! Which tasks a caller may submit, see and control: all, or only some task names.

use std::sync::Arc;

use crate::catalog::Pattern;
use crate::guard::namespace;
use ledger::{Group, Task};

/// Cheap to clone. The default sees everything.
#[derive(Debug, Clone, Default)]
pub struct Visibility {
    patterns: Option<Arc<[Pattern]>>,
    /// The namespace of the caller's keys; `None` for a caller that may use any.
    namespace: Option<Arc<str>>,
}

impl Visibility {
    /// No patterns means no limit.
    pub fn of(patterns: &[String]) -> Self {
        if patterns.is_empty() {
            return Self::default();
        }
        Self { patterns: Some(patterns.iter().map(Pattern::new).collect()), namespace: None }
    }

    /// The same visibility for a caller of this namespace.
    #[must_use]
    pub fn within(self, namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(Arc::from), ..self }
    }

    /// The namespace of the caller's keys.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The namespace of a limited caller's schedule names; `None` for a caller that uses the common names.
    fn of_names(&self) -> Option<&str> {
        self.namespace().filter(|_| self.is_limited())
    }

    /// The stored form of a name from the caller.
    pub fn own_name(&self, name: &str) -> String {
        namespace::key(self.of_names(), name)
    }

    /// A stored name in the form that the caller uses. Names without a namespace are unchanged.
    pub fn shown_name<'a>(&self, name: &'a str) -> &'a str {
        namespace::word(self.of_names(), name).unwrap_or(name)
    }

    /// Whether a name is in the caller's namespace or in none.
    pub fn meets_name(&self, name: &str) -> bool {
        self.of_names().is_none_or(|own| !name.starts_with('@') || namespace::word(Some(own), name).is_some())
    }

    pub fn is_limited(&self) -> bool {
        self.patterns.is_some()
    }

    /// The patterns, for a filter of the ledger; empty if not limited.
    pub fn patterns(&self) -> Vec<String> {
        self.patterns.iter().flat_map(|patterns| patterns.iter()).map(|pattern| pattern.as_str().to_owned()).collect()
    }

    /// A limited caller does not see a task whose name is still unknown.
    pub fn sees(&self, name: Option<&str>) -> bool {
        match &self.patterns {
            None => true,
            Some(patterns) => name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name))),
        }
    }

    pub fn sees_task(&self, task: &Task) -> bool {
        self.sees(task.name.as_deref())
    }

    /// A caller sees the whole group or none of it.
    pub fn sees_group(&self, group: &Group) -> bool {
        group.members.iter().all(|member| self.sees(member.name.as_deref()))
            && (!self.is_limited() || !group.members.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_patterns_everything_is_seen() {
        assert!(Visibility::of(&[]).sees(None) && Visibility::default().sees(Some("a")));
    }

    #[test]
    fn with_patterns_only_what_one_of_them_matches_is_seen() {
        let visibility = Visibility::of(&["tasks.crawl.*".to_owned(), "tasks.add".to_owned()]);
        assert!(visibility.sees(Some("tasks.crawl.page")) && visibility.sees(Some("tasks.add")));
        assert!(!visibility.sees(Some("tasks.addition")) && !visibility.sees(None));
    }
}
