//! Name patterns such as `heavy_tasks.*`: `*` matches any text, every other character matches itself.

/// A name or a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it contains no `*`, so that it matches only one name.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Matches a name. The worst-case time is the product of the lengths; both are bounded by configuration and name limits.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).matches(name)
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("tasks.*", "tasks.add"));
        assert!(matches("tasks.*", "tasks."));
        assert!(matches("*", "anything"));
        assert!(matches("*.report.*", "a.report.daily"));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert!(!matches("tasks.*", "task.add"));
        assert!(!matches("a*a", "a"));
    }

    #[test]
    fn without_a_star_only_the_name_itself_matches() {
        assert!(matches("tasks.add", "tasks.add"));
        assert!(!matches("tasks.add", "tasks.add2"));
    }
}
