//! Unpickling would run code, so it is never done. But a pickled result record begins with its state, which can be read by comparing
//! a few fixed bytes and reading two strings; no object is built.

/// Opcodes that stand around strings.
const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const EMPTY_DICT: u8 = b'}';
const MARK: u8 = b'(';
const PUT: u8 = b'q';
const LONG_PUT: u8 = b'r';
const MEMOIZE: u8 = 0x94;
const UNICODE: u8 = b'X';
const SHORT_UNICODE: u8 = 0x8c;

/// Whether the bytes begin like a pickle of protocol 2 or later.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [PROTO, 2..=5, ..]) && bytes.last() == Some(&b'.')
}

/// The state of a record `{"status": state, …}`; `None` when the bytes begin otherwise.
pub fn status(bytes: &[u8]) -> Option<&str> {
    let mut cursor = Cursor { rest: bytes.get(2..)? };
    cursor.skip();
    cursor.expect(EMPTY_DICT)?;
    cursor.skip();
    cursor.expect(MARK)?;
    (cursor.string()? == "status").then_some(())?;
    cursor.string()
}

/// The string that a record has under `name`. The search starts at the end, where Celery writes its own fields.
pub fn text<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    let short = [&[SHORT_UNICODE, u8::try_from(name.len()).ok()?], name.as_bytes()].concat();
    let long = [&[UNICODE, u8::try_from(name.len()).ok()?, 0, 0, 0], name.as_bytes()].concat();
    let key = if bytes.windows(short.len()).any(|part| part == short) { short } else { long };
    let at = bytes.windows(key.len()).rposition(|part| part == key)?;
    let mut cursor = Cursor { rest: &bytes[at..] };
    cursor.string()?;
    cursor.string()
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn expect(&mut self, opcode: u8) -> Option<()> {
        let rest = self.rest.strip_prefix(&[opcode])?;
        self.rest = rest;
        Some(())
    }

    /// Skips opcodes that only manage memory.
    fn skip(&mut self) {
        while let Some(length) = match self.rest.first() {
            Some(&FRAME) => Some(9),
            Some(&PUT) => Some(2),
            Some(&LONG_PUT) => Some(5),
            Some(&MEMOIZE) => Some(1),
            _ => None,
        } {
            self.rest = self.rest.get(length..).unwrap_or_default();
        }
    }

    fn string(&mut self) -> Option<&'a str> {
        self.skip();
        let (length, rest) = match self.rest {
            [SHORT_UNICODE, length, rest @ ..] => (usize::from(*length), rest),
            [UNICODE, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            _ => return None,
        };
        let (text, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        self.skip();
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps({"status": "FAILURE", "result": 1, "traceback": "boom"}, protocol)`.
    const SECOND: &[u8] =
        b"\x80\x02}q\x00(X\x06\x00\x00\x00statusq\x01X\x07\x00\x00\x00FAILUREq\x02X\x06\x00\x00\x00resultq\x03K\x01X\
        \x09\x00\x00\x00tracebackq\x04X\x04\x00\x00\x00boomq\x05u.";
    const FOURTH: &[u8] = b"\x80\x04\x953\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x06status\x94\x8c\x07FAILURE\x94\x8c\x06result\x94K\x01\x8c\
        \x09traceback\x94\x8c\x04boom\x94u.";

    #[test]
    fn the_state_of_a_record_is_read_from_its_beginning() {
        for record in [SECOND, FOURTH] {
            assert!(is_pickle(record));
            assert_eq!((status(record), text(record, "traceback")), (Some("FAILURE"), Some("boom")));
            assert_eq!(text(record, "worker"), None);
        }
    }

    #[test]
    fn other_bytes_say_nothing() {
        for bytes in [&b""[..], b"\x80", b"\x80\x04.", b"\x80\x02]q\x00.", &SECOND[..20]] {
            assert_eq!(status(bytes), None, "{bytes:?}");
        }
        assert!(!is_pickle(b"\x81\xa6status\xa7SUCCESS"));
    }
}
