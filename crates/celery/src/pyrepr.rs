//! Values as Python prints them: `argsrepr` and `kwargsrepr` of messages, and the texts in events and errors.
//!
//! [`safe`] follows Celery's `saferepr` (depth 3, a limit in characters, only quotes are escaped), because people compare our texts
//! with those of Python clients. [`repr`] and [`str`] follow Python's own functions.

use serde_json::value::RawValue;

use super::json;

/// Celery's `argsrepr_maxsize`.
pub const MAX_CHARS: usize = 1024;

/// How a JSON array is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    List,
    Tuple,
}

/// `saferepr`: at most [`MAX_CHARS`] (then `, ...` and the closing brackets), containers deeper than 3 as `[...]`.
pub fn safe(value: &RawValue, top: Sequence) -> String {
    let mut printer = Printer {
        out: String::with_capacity(value.get().len().min(MAX_CHARS) + 8),
        left: MAX_CHARS,
        full: false,
        max_level: 3,
        exact: false,
    };
    printer.value(&mut Scanner(value.get()), top, 0);
    printer.out
}

/// Python's `repr`. Containers deeper than 64 are shown as `[...]`.
pub fn repr(value: &RawValue, top: Sequence) -> String {
    let mut printer = Printer { out: String::new(), left: usize::MAX, full: false, max_level: 64, exact: true };
    printer.value(&mut Scanner(value.get()), top, 0);
    printer.out
}

/// Python's `str`: a string is itself, everything else its `repr`.
pub fn str(value: &RawValue) -> String {
    json::text(value).unwrap_or_else(|| repr(value, Sequence::List))
}

/// Python's `repr` of a string.
pub fn quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if char == quote => out.extend(['\\', char]),
            _ if char.is_control() => write!(out, "\\x{:02x}", char as u32).expect("a String takes every write"),
            _ => out.push(char),
        }
    }
    out.push(quote);
    out
}

struct Printer {
    out: String,
    /// How many more characters may be written.
    left: usize,
    full: bool,
    max_level: usize,
    /// Strings as `repr` shows them; otherwise as `saferepr` does.
    exact: bool,
}

impl Printer {
    /// Writes a token, or marks the text as full. A token may exceed the limit; the next one is refused.
    fn token(&mut self, text: &str) {
        if self.full {
            return;
        }
        if self.left == 0 {
            self.out.push_str(", ...");
            self.full = true;
            return;
        }
        self.out.push_str(text);
        self.left = self.left.saturating_sub(text.chars().count());
    }

    fn value(&mut self, scanner: &mut Scanner<'_>, sequence: Sequence, level: usize) {
        match scanner.peek() {
            b'{' => self.container(scanner, "{", "}", level, Self::members),
            b'[' if sequence == Sequence::Tuple => self.container(scanner, "(", ")", level, Self::tuple),
            b'[' => self.container(scanner, "[", "]", level, Self::list),
            b'"' => self.string(scanner.string()),
            _ => match scanner.word() {
                "true" => self.token("True"),
                "false" => self.token("False"),
                "null" => self.token("None"),
                number => self.token(number),
            },
        }
    }

    fn container(
        &mut self,
        scanner: &mut Scanner<'_>,
        open: &str,
        close: &str,
        level: usize,
        inside: fn(&mut Self, &mut Scanner<'_>, usize),
    ) {
        if level >= self.max_level {
            scanner.skip_container();
            return self.token(&format!("{open}...{close}"));
        }
        self.token(open);
        scanner.advance();
        inside(self, scanner, level + 1);
        if self.full {
            self.out.push_str(close);
        } else {
            self.token(close);
            // A closing bracket is never the token that is dropped.
            if self.full {
                self.out.push_str(close);
            }
        }
    }

    fn list(&mut self, scanner: &mut Scanner<'_>, level: usize) {
        self.items(scanner, level);
    }

    fn tuple(&mut self, scanner: &mut Scanner<'_>, level: usize) {
        if self.items(scanner, level) == 1 {
            self.token(",");
        }
    }

    /// Writes the elements and moves past the closing bracket; returns their number.
    fn items(&mut self, scanner: &mut Scanner<'_>, level: usize) -> usize {
        let mut count = 0;
        while scanner.next_item(b']') {
            if self.full {
                break;
            }
            if count > 0 {
                self.token(", ");
            }
            self.value(scanner, Sequence::List, level);
            count += 1;
        }
        count
    }

    fn members(&mut self, scanner: &mut Scanner<'_>, level: usize) {
        let mut first = true;
        while scanner.next_item(b'}') {
            if self.full {
                break;
            }
            if !std::mem::take(&mut first) {
                self.token(", ");
            }
            self.string(scanner.string());
            scanner.colon();
            self.token(": ");
            self.value(scanner, Sequence::List, level);
        }
    }

    fn string(&mut self, raw: &str) {
        let text: String = serde_json::from_str(raw).unwrap_or_else(|_| raw.trim_matches('"').to_owned());
        if self.exact {
            return self.token(&quoted(&text));
        }
        let shown = match text.char_indices().nth(self.left) {
            Some((end, _)) => format!("{}...", text[..end].rsplit_once(' ').map_or(&text[..end], |(kept, _)| kept)),
            None => text,
        };
        self.token(&format!("'{}'", shown.replace('\'', "\\'")));
    }
}

/// Walks over text that is known to be JSON.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\n', '\r', '\t']);
    }

    fn peek(&mut self) -> u8 {
        self.blanks();
        self.0.as_bytes().first().copied().unwrap_or(b'n')
    }

    fn advance(&mut self) {
        self.0 = &self.0[1..];
    }

    /// Moves to the next element of a container; at its end it moves past the bracket and returns `false`.
    fn next_item(&mut self, close: u8) -> bool {
        let next = self.peek();
        if next == b',' {
            self.advance();
            self.blanks();
            return true;
        }
        if next == close || self.0.is_empty() {
            self.0 = self.0.get(1..).unwrap_or("");
            return false;
        }
        true
    }

    fn colon(&mut self) {
        if self.peek() == b':' {
            self.advance();
        }
    }

    /// A string with its quotes and escapes.
    fn string(&mut self) -> &'a str {
        self.blanks();
        let bytes = self.0.as_bytes();
        let mut at = 1;
        while at < bytes.len() && bytes[at] != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        let (string, rest) = self.0.split_at((at + 1).min(self.0.len()));
        self.0 = rest;
        string
    }

    fn word(&mut self) -> &'a str {
        let end = self.0.find([',', ']', '}', ' ', '\n', '\r', '\t', ':']).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    fn skip_container(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                b'"' => {
                    self.string();
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            let step = self.0.chars().next().map_or(0, char::len_utf8);
            self.0 = &self.0[step..];
            if depth == 0 || self.0.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::verbatim;

    fn args(text: &str) -> String {
        safe(&verbatim(text.to_owned()).unwrap(), Sequence::Tuple)
    }

    #[test]
    fn arguments_are_shown_as_python_shows_a_tuple() {
        assert_eq!(args("[2,3]"), "(2, 3)");
        assert_eq!(args("[]"), "()");
        assert_eq!(args(r#"["x"]"#), "('x',)");
        assert_eq!(args(" [ 1 , \"caf\\u00e9 \u{2603}\" ] "), "(1, 'café ☃')");
        assert_eq!(
            args(r#"[true, null, -1.5, "it's", 123456789012345678901234567890]"#),
            r"(True, None, -1.5, 'it\'s', 123456789012345678901234567890)"
        );
        assert_eq!(args(r#"{"a":[1,2,{"b":null}],"c":true}"#), "{'a': [1, 2, {'b': None}], 'c': True}");
    }

    #[test]
    fn containers_below_the_third_level_are_dots() {
        assert_eq!(args(r#"[[[["]"], 1], {"a": {"b": [1]}}]]"#), "([[[...], 1], {'a': {...}}],)");
    }

    #[test]
    fn long_texts_end_with_dots_and_their_brackets() {
        let long = args(&format!("[{}]", vec!["1234567"; 1000].join(", ")));
        assert!(long.ends_with(", ...)"), "{long}");
        assert!(long.chars().count() < 1050);
        let text = args(&format!("[\"{}\"]", "é".repeat(5000)));
        assert!(text.chars().count() < 1040 && text.ends_with("...',)") || text.ends_with("...', ...)"), "{text}");
    }

    #[test]
    fn repr_quotes_as_python_does() {
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("it's \"x\""), "'it\\'s \"x\"'");
        assert_eq!(quoted("a\n\\\u{1}é"), "'a\\n\\\\\\x01é'");
        assert_eq!(
            repr(&verbatim(r#"[42, {"why": ["a", 1]}]"#.to_owned()).unwrap(), Sequence::Tuple),
            "(42, {'why': ['a', 1]})"
        );
    }
}
