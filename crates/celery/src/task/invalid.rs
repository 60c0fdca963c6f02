//! Validation of client documents: reports all mistakes with their places, not only the first. Reading stops after [`MAX_FOUND`]
//! mistakes, so a large document full of mistakes costs as little as a short one.

use serde_json::value::RawValue;

use super::json::{self, Fields};
use crate::spelling::nearest;

/// One mistake and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// JSON pointer (RFC 6901); empty for the whole document.
    pub pointer: String,
    /// What is wrong, lower case, without full stop.
    pub detail: String,
}

/// Collects mistakes while a reader walks through a document.
#[derive(Debug, Default)]
pub struct Problems {
    path: String,
    pub found: Vec<Invalid>,
}

/// Reading stops after this many mistakes.
pub const MAX_FOUND: usize = 20;

impl Problems {
    /// Adds a mistake at the current place.
    pub fn add(&mut self, detail: impl Into<String>) {
        if !self.is_full() {
            self.found.push(Invalid { pointer: self.path.clone(), detail: detail.into() });
        }
    }

    /// Whether there are so many mistakes that reading should stop.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MAX_FOUND
    }

    /// Adds a mistake at a member of the current place.
    pub fn add_at(&mut self, member: &str, detail: impl Into<String>) {
        self.within(member, |problems| problems.add(detail));
    }

    /// Adds a mistake further down.
    pub fn add_below(&mut self, members: &[String], detail: impl Into<String>) {
        let places: Vec<usize> = members.iter().map(|member| self.enter(member)).collect();
        self.add(detail);
        places.into_iter().rev().for_each(|place| self.leave(place));
    }

    /// Reads a member or element: mistakes inside are reported under its name.
    pub fn within<T>(&mut self, member: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let place = self.enter(member);
        let read = read(self);
        self.leave(place);
        read
    }

    /// Enters a member or element; [`Problems::leave`] goes back to the place that this returns.
    pub fn enter(&mut self, member: &str) -> usize {
        let before = self.path.len();
        self.path.push('/');
        for char in member.chars() {
            match char {
                '~' => self.path.push_str("~0"),
                '/' => self.path.push_str("~1"),
                _ => self.path.push(char),
            }
        }
        before
    }

    pub fn leave(&mut self, place: usize) {
        self.path.truncate(place);
    }

    /// The current place.
    pub fn pointer(&self) -> &str {
        &self.path
    }

    /// An object, or a mistake.
    pub fn object<'a>(&mut self, value: &'a RawValue) -> Option<Fields<'a>> {
        let fields = Fields::parse(value.get()).ok();
        if fields.is_none() {
            self.add(format!("must be an object, not {}", kind(value)));
        }
        fields
    }

    /// An array, or a mistake.
    pub fn array<'a>(&mut self, value: &'a RawValue) -> Option<Vec<&'a RawValue>> {
        let elements = json::elements(value);
        if elements.is_none() {
            self.add(format!("must be an array, not {}", kind(value)));
        }
        elements
    }

    /// A text, or a mistake.
    pub fn text(&mut self, value: &RawValue) -> Option<String> {
        let text = json::text(value);
        if text.is_none() {
            self.add(format!("must be a string, not {}", kind(value)));
        }
        text
    }

    /// A text that `parse` accepts, or a mistake.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        value: &RawValue,
        parse: impl FnOnce(String) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(value)?;
        parse(text).map_err(|error| self.add(error.to_string())).ok()
    }

    /// `true` or `false`, or a mistake.
    pub fn boolean(&mut self, value: &RawValue) -> Option<bool> {
        let boolean = value.get().parse().ok();
        if boolean.is_none() {
            self.add(format!("must be true or false, not {}", kind(value)));
        }
        boolean
    }

    /// A finite number of at least `least`, or a mistake.
    pub fn number(&mut self, value: &RawValue, least: f64) -> Option<f64> {
        match json::number(value) {
            Some(number) if number >= least && number <= MAX_SECONDS => return Some(number),
            Some(number) if number > MAX_SECONDS => self.add(format!("must be at most {MAX_SECONDS}")),
            Some(_) => self.add(format!("must be at least {least}")),
            None => self.add(format!("must be a number, not {}", kind(value))),
        }
        None
    }

    /// A number above zero, or a mistake.
    pub fn positive(&mut self, value: &RawValue) -> Option<f64> {
        let number = self.number(value, 0.0)?;
        if number == 0.0 {
            self.add("must be greater than 0");
        }
        (number > 0.0).then_some(number)
    }

    /// A whole number inside a range, or a mistake.
    pub fn integer(&mut self, value: &RawValue, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let digits = value.get().trim_start_matches('-');
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            self.add(format!("must be a whole number, not {}", kind(value)));
            return None;
        }
        let integer = value.get().parse().ok().filter(|integer| range.contains(integer));
        if integer.is_none() {
            self.add(format!("must be between {} and {}", range.start(), range.end()));
        }
        integer
    }

    /// Reports every member that is not in `known`, with the most similar known name.
    pub fn refuse_unknown(&mut self, fields: &Fields<'_>, known: &[&str]) {
        for (name, _) in fields.iter().filter(|(name, _)| !known.contains(name)) {
            if self.is_full() {
                return;
            }
            let hint = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            self.add_at(name, format!("unknown field{hint}"));
        }
    }
}

/// About 31 years: longer than any sensible delay or limit, and safe to add to any time.
const MAX_SECONDS: f64 = 1e9;

/// The JSON type, for a sentence.
fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes()[0] {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped() {
        let mut problems = Problems::default();
        problems.within("a/b", |problems| problems.add_at("c~d", "wrong"));
        problems.add("whole");
        let pointers: Vec<_> = problems.found.iter().map(|invalid| invalid.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a~1b/c~0d", ""]);
    }

    #[test]
    fn after_twenty_mistakes_nobody_reads_on() {
        let members: Vec<String> = (0..1_000).map(|n| format!("\"unknown{n}\": {n}")).collect();
        let text = json::written(format!("{{{}}}", members.join(",")));
        let mut problems = Problems::default();
        let fields = problems.object(&text).unwrap();
        problems.refuse_unknown(&fields, &["known"]);
        assert!(problems.is_full() && problems.found.len() == MAX_FOUND);
    }
}
