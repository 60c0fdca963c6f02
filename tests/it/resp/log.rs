//! Reads the command logs of `tests/vectors/resp/`; its README explains the notation.

/// One line of a log.
#[derive(Debug, Clone)]
pub struct Line {
    pub number: usize,
    pub text: String,
    pub connection: u8,
    pub action: Action,
}

#[derive(Debug, Clone)]
pub enum Action {
    Begin,
    Command { words: Vec<Vec<u8>>, compare: Compare },
    Send(Vec<Vec<u8>>),
    Read,
    Until { reply: String, words: Vec<Vec<u8>> },
    Raw(Vec<u8>),
    Eof,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Bytes,
    Unordered,
    Near,
    Shape,
}

pub fn parse(text: &str) -> Vec<Line> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(n, line)| parse_line(n, line)).collect()
}

fn parse_line(number: usize, text: &str) -> Line {
    let (connection, rest) = match text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        Some((connection, rest)) => (connection.parse().expect("a connection is a number"), rest),
        None => (1, text),
    };
    Line { number, text: text.to_owned(), connection, action: parse_action(rest) }
}

fn parse_action(text: &str) -> Action {
    let command = |text: &str, compare| Action::Command { words: words(text), compare };
    if text.starts_with("==") {
        return Action::Begin;
    }
    match text.split_once(' ') {
        None if text == "<" => Action::Read,
        None if text == "eof" => Action::Eof,
        Some((">", rest)) => Action::Send(words(rest)),
        Some(("~", rest)) => command(rest, Compare::Unordered),
        Some(("%", rest)) => command(rest, Compare::Near),
        Some(("?", rest)) => command(rest, Compare::Shape),
        Some(("raw", rest)) => Action::Raw(words(rest).remove(0)),
        Some(("until", rest)) => {
            let (reply, rest) = rest.split_once(' ').expect("until REPLY COMMAND");
            Action::Until { reply: reply.to_owned(), words: words(rest) }
        }
        _ => command(text, Compare::Bytes),
    }
}

/// Splits at spaces; `"…"` has the escapes of Redis, `'…'` none.
fn words(text: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start().as_bytes();
    while let Some(&first) = rest.first() {
        let (word, used) = match first {
            b'"' => double_quoted(&rest[1..]),
            b'\'' => {
                let end = rest[1..].iter().position(|byte| *byte == b'\'').expect("a closing quote");
                (rest[1..=end].to_vec(), end + 2)
            }
            _ => {
                let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
                (rest[..end].to_vec(), end)
            }
        };
        words.push(word);
        rest = rest[used..].trim_ascii_start();
    }
    words
}

/// The word, and the bytes used with the opening quote.
fn double_quoted(text: &[u8]) -> (Vec<u8>, usize) {
    let (mut word, mut at) = (Vec::new(), 0);
    loop {
        match &text[at..] {
            [b'"', ..] => return (word, at + 2),
            [b'\\', b'x', high, low, ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("hexadecimal digits");
                word.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                });
                at += 2;
            }
            [byte, ..] => {
                word.push(*byte);
                at += 1;
            }
            [] => panic!("a closing quote is missing"),
        }
    }
}
