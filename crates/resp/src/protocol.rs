//! Reads requests from a byte stream: arrays of bulk strings, or inline lines as typed into telnet.
//!
//! Incremental: a request may arrive byte by byte, and nothing is scanned twice. Malformed input ends the connection with
//! Redis's own error; sizes are checked before allocation, so a client cannot reserve memory by sending a large number.

use bytes::{Buf, Bytes, BytesMut};

use super::number::parse_int;

/// As Redis's `proto-max-bulk-len`.
pub const MAX_BULK: usize = 512 * 1024 * 1024;
/// As Redis's `client-query-buffer-limit`: all arguments of one request together.
const MAX_REQUEST: usize = 1024 * 1024 * 1024;
/// As Redis's `PROTO_INLINE_MAX_SIZE`.
const MAX_INLINE: usize = 64 * 1024;
/// The memory of an argument besides its bytes, so that a million empty ones are counted too.
const ARGUMENT_OVERHEAD: usize = 64;

/// Why a connection must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("too big inline request")]
    InlineTooBig,
    #[error("unbalanced quotes in request")]
    Quotes,
    #[error("too big mbulk count string")]
    CountTooBig,
    #[error("invalid multibulk length")]
    Count,
    #[error("expected '$', got '{0}'")]
    NotABulk(char),
    #[error("too big bulk count string")]
    LengthTooBig,
    #[error("invalid bulk length")]
    Length,
    #[error("request is larger than the query buffer limit")]
    RequestTooBig,
}

/// A request that is being read.
#[derive(Debug, Default)]
pub struct Parser {
    /// Arguments still to come; 0 between requests.
    missing: usize,
    /// Length of the argument being read, once known.
    length: Option<usize>,
    args: Vec<Bytes>,
    bytes: usize,
}

impl Parser {
    /// Takes the next complete request out of `input`; `Ok(None)` if there is none yet. Empty requests are skipped.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, Malformed> {
        loop {
            if self.missing == 0 {
                match input.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        if !self.read_count(input)? {
                            return Ok(None);
                        }
                    }
                    Some(_) => match read_inline(input)? {
                        None => return Ok(None),
                        Some(args) if args.is_empty() => {}
                        Some(args) => return Ok(Some(args)),
                    },
                }
                continue;
            }
            if !self.read_argument(input)? {
                return Ok(None);
            }
            if self.missing == 0 {
                self.bytes = 0;
                return Ok(Some(std::mem::take(&mut self.args)));
            }
        }
    }

    /// How many bytes the argument being read still needs, to size the next read.
    pub fn wanted(&self, available: usize) -> usize {
        self.length.map_or(0, |length| (length + 2).saturating_sub(available))
    }

    fn read_count(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        let Some(line) = take_line(input, Malformed::CountTooBig)? else { return Ok(false) };
        let count = parse_int(&line[1..]).filter(|n| *n <= i64::from(i32::MAX)).ok_or(Malformed::Count)?;
        self.missing = usize::try_from(count).unwrap_or(0);
        Ok(true)
    }

    fn read_argument(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        let length = match self.length {
            Some(length) => length,
            None => {
                match input.first() {
                    None => return Ok(false),
                    Some(b'$') => {}
                    Some(other) => {
                        // The line must be complete first, so that the answer does not depend on packet borders.
                        let other = char::from(*other);
                        return match take_line(input, Malformed::LengthTooBig)? {
                            None => Ok(false),
                            Some(_) => Err(Malformed::NotABulk(other)),
                        };
                    }
                }
                let Some(line) = take_line(input, Malformed::LengthTooBig)? else { return Ok(false) };
                let length = parse_int(&line[1..])
                    .and_then(|n| usize::try_from(n).ok())
                    .filter(|n| *n <= MAX_BULK)
                    .ok_or(Malformed::Length)?;
                self.bytes += length + ARGUMENT_OVERHEAD;
                if self.bytes > MAX_REQUEST {
                    return Err(Malformed::RequestTooBig);
                }
                self.length = Some(length);
                length
            }
        };
        if input.len() < length + 2 {
            return Ok(false);
        }
        self.args.push(Bytes::copy_from_slice(&input[..length]));
        input.advance(length + 2);
        self.length = None;
        self.missing -= 1;
        Ok(true)
    }
}

/// Takes a line without its `\r\n`. `\r` alone ends it, and the byte after it is not checked, as in Redis.
fn take_line(input: &mut BytesMut, too_big: Malformed) -> Result<Option<BytesMut>, Malformed> {
    let window = &input[..input.len().min(MAX_INLINE)];
    match window.iter().position(|&byte| byte == b'\r') {
        Some(end) if input.len() >= end + 2 => {
            let line = input.split_to(end);
            input.advance(2);
            Ok(Some(line))
        }
        Some(_) => Ok(None),
        None if input.len() >= MAX_INLINE => Err(too_big),
        None => Ok(None),
    }
}

fn read_inline(input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, Malformed> {
    let window = &input[..input.len().min(MAX_INLINE)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if input.len() >= MAX_INLINE { Err(Malformed::InlineTooBig) } else { Ok(None) };
    };
    let mut line = input.split_to(end);
    input.advance(1);
    if line.last() == Some(&b'\r') {
        line.truncate(end - 1);
    }
    split_words(&line).map(Some).ok_or(Malformed::Quotes)
}

/// Words of an inline request: `"…"` with escapes, `'…'` with `\'`. `None` for unbalanced quotes.
pub fn split_words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // NUL ends the line in Redis, whose inline requests are C strings.
        if rest.is_empty() || rest[0] == 0 {
            return Some(words);
        }
        let (word, after) = split_word(rest)?;
        words.push(Bytes::from(word));
        rest = after;
    }
}

fn split_word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | 0 => break,
            b'"' | b'\'' => {
                at = quoted(text, at + 1, byte, &mut word)?;
                return match text.get(at) {
                    None => Some((word, &[])),
                    Some(next) if next.is_ascii_whitespace() => Some((word, &text[at..])),
                    Some(_) => None,
                };
            }
            _ => word.push(byte),
        }
        at += 1;
    }
    Some((word, &text[at..]))
}

/// Reads up to the closing quote; returns the position after it.
fn quoted(text: &[u8], mut at: usize, quote: u8, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (&text[at..], quote) {
            ([], _) => return None,
            ([b'\\', b'x', high, low, ..], b'"') if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("hexadecimal digits are ASCII");
                word.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
                at += 4;
            }
            ([b'\\', escaped, ..], b'"') => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            ([b'\\', b'\'', ..], b'\'') => {
                word.push(b'\'');
                at += 2;
            }
            ([byte, ..], _) if *byte == quote => return Some(at + 1),
            ([byte, ..], _) => {
                word.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Vec<Bytes>>, Malformed> {
        let mut parser = Parser::default();
        let mut input = BytesMut::from(bytes);
        let mut requests = Vec::new();
        while let Some(request) = parser.next(&mut input)? {
            requests.push(request);
        }
        Ok(requests)
    }

    #[test]
    fn a_pipeline_is_read_request_by_request() {
        let requests = all(b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n*1\r\n$4\r\nPING\r\n").unwrap();
        assert_eq!(requests, vec![vec![Bytes::from("ECHO"), Bytes::from("a\r\n")], vec![Bytes::from("PING")]]);
    }

    #[test]
    fn a_request_may_arrive_byte_by_byte() {
        let mut parser = Parser::default();
        let mut input = BytesMut::new();
        let wire = b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n";
        for (at, byte) in wire.iter().enumerate() {
            input.extend_from_slice(&[*byte]);
            let request = parser.next(&mut input).unwrap();
            assert_eq!(request.is_some(), at + 1 == wire.len());
        }
    }

    #[test]
    fn inline_requests_know_quotes() {
        let requests = all(b"SET a \"x\\x41\\n y\"\r\n\r\n\nECHO 'it\\'s'\n").unwrap();
        assert_eq!(requests[0], vec!["SET", "a", "xA\n y"]);
        assert_eq!(requests[1], vec!["ECHO", "it's"]);
        assert_eq!(all(b"SET a \"x\r\n"), Err(Malformed::Quotes));
        assert_eq!(all(b"SET a \"x\"y\r\n"), Err(Malformed::Quotes));
    }

    #[test]
    fn malformed_input_is_named() {
        assert_eq!(all(b"*abc\r\n"), Err(Malformed::Count));
        assert_eq!(all(b"*99999999999\r\n"), Err(Malformed::Count));
        assert_eq!(all(b"*1\r\n:1\r\n"), Err(Malformed::NotABulk(':')));
        assert_eq!(all(b"*1\r\n$-1\r\n"), Err(Malformed::Length));
        assert_eq!(all(b"*1\r\n$999999999999\r\n"), Err(Malformed::Length));
        assert_eq!(all(&[b'a'; 70_000]), Err(Malformed::InlineTooBig));
        assert_eq!(all(b"*0\r\n*-5\r\n"), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = all(&bytes);
        }

        #[test]
        fn borders_between_packets_do_not_matter(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut wire = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                wire.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                wire.extend_from_slice(word);
                wire.extend_from_slice(b"\r\n");
            }
            let cut = cut.index(wire.len());
            let mut parser = Parser::default();
            let mut input = BytesMut::from(&wire[..cut]);
            prop_assert!(parser.next(&mut input).unwrap().is_none());
            input.extend_from_slice(&wire[cut..]);
            let request = parser.next(&mut input).unwrap().unwrap();
            prop_assert_eq!(request, words.into_iter().map(Bytes::from).collect::<Vec<_>>());
        }
    }
}
