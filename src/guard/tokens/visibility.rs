//! Which tasks a caller may submit, see and control: all, or only some names.

use std::sync::Arc;

use crate::catalog::Pattern;
use ledger::{Group, Task};

/// Cheap to clone. The default sees everything.
#[derive(Debug, Clone, Default)]
pub struct Visibility(Option<Arc<[Pattern]>>);

impl Visibility {
    /// No patterns means no limit.
    pub fn of(patterns: &[String]) -> Self {
        if patterns.is_empty() {
            return Self(None);
        }
        Self(Some(patterns.iter().map(Pattern::new).collect()))
    }

    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// The patterns for a filter of the ledger; empty without a limit.
    pub fn patterns(&self) -> Vec<String> {
        self.0.iter().flat_map(|patterns| patterns.iter()).map(|pattern| pattern.as_str().to_owned()).collect()
    }

    /// A limited caller does not see a task whose name is still unknown.
    pub fn sees(&self, name: Option<&str>) -> bool {
        match &self.0 {
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
