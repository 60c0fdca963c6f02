//! Converts MessagePack to JSON text. Integers and nesting are preserved; bytes are written as kombu's JSON writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{DecodeError, bounds, json};

const DAMAGED: DecodeError = DecodeError::Serialized("msgpack");

/// # Errors
/// When it is not one complete value, is nested too deep, or its text would be larger than [`bounds::MAX_INFLATED_BYTES`].
pub(super) fn to_json(bytes: &[u8]) -> Result<String, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let mut out = String::with_capacity(bytes.len() * 2);
    reader.value(&mut out, 0)?;
    if reader.rest.is_empty() { Ok(out) } else { Err(DAMAGED) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), DecodeError> {
        if depth > bounds::MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        if out.len() > bounds::MAX_INFLATED_BYTES {
            return Err(DecodeError::TooLarge { actual: out.len(), limit: bounds::MAX_INFLATED_BYTES });
        }
        let kind = self.number(1)?;
        match kind {
            0x00..=0x7f => out.push_str(&kind.to_string()),
            0xe0..=0xff => out.push_str(&(i64::try_from(kind).unwrap_or(0) - 256).to_string()),
            0x80..=0x8f => self.map(kind & 0x0f, out, depth)?,
            0x90..=0x9f => self.list(kind & 0x0f, out, depth)?,
            0xa0..=0xbf => self.text(kind & 0x1f, out)?,
            0xc0 => out.push_str("null"),
            0xc2 => out.push_str("false"),
            0xc3 => out.push_str("true"),
            0xc4..=0xc6 => self.sized(1 << (kind - 0xc4)).and_then(|length| self.binary(length, out))?,
            0xc7..=0xc9 => {
                let length = self.sized(1 << (kind - 0xc7))?;
                self.extension(length, out)?;
            }
            0xca => push_float(f64::from(f32::from_bits(u32::try_from(self.number(4)?).map_err(|_| DAMAGED)?)), out),
            0xcb => push_float(f64::from_bits(self.number(8)?), out),
            0xcc..=0xcf => out.push_str(&self.number(1 << (kind - 0xcc))?.to_string()),
            0xd0..=0xd3 => out.push_str(&self.signed(1 << (kind - 0xd0))?.to_string()),
            0xd4..=0xd8 => self.extension(1 << (kind - 0xd4), out)?,
            0xd9..=0xdb => self.sized(1 << (kind - 0xd9)).and_then(|length| self.text(length, out))?,
            0xdc | 0xdd => self.sized(2 << (kind - 0xdc)).and_then(|length| self.list(length, out, depth))?,
            0xde | 0xdf => self.sized(2 << (kind - 0xde)).and_then(|length| self.map(length, out, depth))?,
            _ => return Err(DAMAGED),
        }
        Ok(())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| DAMAGED)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DAMAGED)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned big-endian number of `bytes` bytes.
    fn number(&mut self, bytes: u64) -> Result<u64, DecodeError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn sized(&mut self, bytes: u64) -> Result<u64, DecodeError> {
        self.number(bytes)
    }

    fn signed(&mut self, bytes: u64) -> Result<i64, DecodeError> {
        let unused = 64 - bytes * 8;
        Ok(self.number(bytes)?.cast_signed() << unused >> unused)
    }

    fn list(&mut self, length: u64, out: &mut String, depth: usize) -> Result<(), DecodeError> {
        out.push('[');
        for index in 0..length {
            out.push_str(if index > 0 { ", " } else { "" });
            self.value(out, depth + 1)?;
        }
        out.push(']');
        Ok(())
    }

    fn map(&mut self, length: u64, out: &mut String, depth: usize) -> Result<(), DecodeError> {
        out.push('{');
        for index in 0..length {
            out.push_str(if index > 0 { ", " } else { "" });
            let mut key = String::new();
            self.value(&mut key, depth + 1)?;
            super::push_key(&key, out);
            out.push_str(": ");
            self.value(out, depth + 1)?;
        }
        out.push('}');
        Ok(())
    }

    fn text(&mut self, length: u64, out: &mut String) -> Result<(), DecodeError> {
        json::push_string(out, std::str::from_utf8(self.take(length)?).map_err(|_| DAMAGED)?);
        Ok(())
    }

    fn binary(&mut self, length: u64, out: &mut String) -> Result<(), DecodeError> {
        super::push_bytes(self.take(length)?, out);
        Ok(())
    }

    /// An extension value, whose type only its writer knows.
    fn extension(&mut self, length: u64, out: &mut String) -> Result<(), DecodeError> {
        self.take(1)?;
        json::push_string(out, &STANDARD.encode(self.take(length)?));
        Ok(())
    }
}

fn push_float(number: f64, out: &mut String) {
    if number.is_finite() {
        out.push_str(&format!("{number:?}"));
    } else {
        super::push_not_finite(number, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        // packb({"a": [1, -1, 200, -200, 70000, -70000, 2**63, 1.5, None, True, False, "é", b"x", b"\xff"], 7: {}})
        let bytes =
            b"\x82\xa1a\x9e\x01\xff\xcc\xc8\xd1\xff\x38\xce\x00\x01\x11\x70\xd2\xff\xfe\xee\x90\xcf\x80\0\0\0\0\0\0\0\
            \xcb\x3f\xf8\0\0\0\0\0\0\xc0\xc3\xc2\xa2\xc3\xa9\xc4\x01x\xc4\x01\xff\x07\x80";
        let expected = "{\"a\": [1, -1, 200, -200, 70000, -70000, 9223372036854775808, 1.5, null, true, false, \"\\u00e9\", \
            {\"__type__\": \"bytes\", \"__value__\": \"x\"}, {\"__type__\": \"base64\", \"__value__\": \"/w==\"}], \"7\": {}}";
        assert_eq!(to_json(bytes).unwrap(), expected);
    }

    #[test]
    fn damaged_bytes_are_refused_without_harm() {
        for bytes in [
            &b""[..],
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xffx",
            b"\x81\xa1a",
            b"\xc1",
            b"\x01\x01",
            b"\xa1\xff",
        ] {
            assert_eq!(to_json(bytes).unwrap_err(), DAMAGED, "{bytes:?}");
        }
        assert_eq!(to_json(&vec![0x91; 10_000]).unwrap_err(), DecodeError::TooDeep);
    }
}
