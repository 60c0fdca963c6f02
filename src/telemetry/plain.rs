//! Keeps each log event on one line: text from others (names of workers, errors, paths) can neither start a new line nor move the
//! cursor of a terminal. Control characters, line separators and text-direction marks are escaped.

use std::borrow::Cow;

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// The text with its invisible characters escaped.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_hidden(char) { plain.extend(char.escape_default()) } else { plain.push(char) }
    }
    Cow::Owned(plain)
}

fn is_hidden(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Fields of text logs: the message as it is, the others as `name=value`.
pub fn fields() -> impl for<'writer> FormatFields<'writer> {
    debug_fn(|writer: &mut Writer<'_>, field, value| {
        let text = format!("{value:?}");
        let text = one_line(&text);
        match field.name() {
            // The `Debug` of a message that is a string, not a format, adds quotes.
            "message" => match serde_json::from_str::<String>(&text) {
                Ok(inner) => write!(writer, "{}", one_line(&inner)),
                Err(_) => write!(writer, "{text}"),
            },
            name => write!(writer, "{name}={text}"),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::info;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_begins_a_line_of_their_own() {
        let written = Written::default();
        let writer = written.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
        let subscriber = builder.fmt_fields(fields()).finish();
        let worker = "celery@x\n2030-01-01T00:00:00Z  INFO forged \u{1b}[2J\u{9b}31m\u{7}\u{2028}\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            info!(worker.hostname = %worker, reason = worker, count = 3, "lost {worker}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.ends_with('\n') && !text.trim_end().chars().any(is_hidden), "{text:?}");
        assert!(text.contains("lost celery@x\\n2030") && text.contains("count=3"), "{text}");
    }

    #[test]
    fn plain_text_stays() {
        assert_eq!(one_line("봉사 공지사항 → ok"), "봉사 공지사항 → ok");
        assert_eq!(one_line("a\tb"), "a\\tb");
    }
}
