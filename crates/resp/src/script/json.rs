//! `cjson.encode` and `cjson.decode` as scripts know them.
//!
//! A table is an array if all its keys are positive integers, else an object; an empty table is `{}`. All numbers are
//! doubles, written with 14 digits. JSON's null is `cjson.null`.

use mlua::{Lua, MultiValue, Table, Value};

use super::host::raise_at_caller;
use crate::number::format_general;

/// lua-cjson's default.
const MAX_DEPTH: usize = 1000;
const SPARSE_SAFE: usize = 10;
const SPARSE_RATIO: usize = 2;
const DIGITS: usize = 14;

pub fn encode(lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    let mut args = args.into_iter();
    let (Some(value), None) = (args.next(), args.next()) else {
        return Err(raise_at_caller(lua, "bad argument #1 to 'encode' (expected 1 argument)"));
    };
    let mut out = Vec::new();
    write(&value, 0, &mut out).map_err(|problem| raise_at_caller(lua, &problem))?;
    lua.create_string(out).map(Value::String)
}

fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::Integer(n) => write_number(*n as f64, out)?,
        Value::Number(n) => write_number(*n, out)?,
        Value::String(text) => write_string(&text.as_bytes(), out),
        Value::Table(table) => write_table(table, depth + 1, out)?,
        other => return Err(format!("Cannot serialise {}: type not supported", other.type_name())),
    }
    Ok(())
}

fn write_number(n: f64, out: &mut Vec<u8>) -> Result<(), String> {
    if !n.is_finite() {
        return Err("Cannot serialise number: must not be NaN or Inf".to_owned());
    }
    out.extend_from_slice(format_general(n, DIGITS).as_bytes());
    Ok(())
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            plain => out.push(plain),
        }
    }
    out.push(b'"');
}

fn write_table(table: &Table, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("Cannot serialise, excessive nesting ({depth})"));
    }
    match array_length(table)? {
        Some(length) if length > 0 => write_array(table, length, depth, out),
        _ => write_object(table, depth, out),
    }
}

/// Highest index if all keys are positive integers.
fn array_length(table: &Table) -> Result<Option<usize>, String> {
    let (mut highest, mut items) = (0, 0);
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        let Value::Integer(index @ 1..) = key else { return Ok(None) };
        highest = highest.max(usize::try_from(index).unwrap_or(usize::MAX));
        items += 1;
    }
    if highest > SPARSE_SAFE && highest > items * SPARSE_RATIO {
        return Err("Cannot serialise table: excessively sparse array".to_owned());
    }
    Ok(Some(highest))
}

fn write_array(table: &Table, length: usize, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    for index in 1..=length {
        out.push(if index == 1 { b'[' } else { b',' });
        let item = table.raw_get::<Value>(index).map_err(|error| error.to_string())?;
        write(&item, depth, out)?;
    }
    out.push(b']');
    Ok(())
}

fn write_object(table: &Table, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'{');
    let mut first = true;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        match key {
            Value::String(text) => write_string(&text.as_bytes(), out),
            Value::Integer(n) => out.extend_from_slice(format!("\"{}\"", format_general(n as f64, DIGITS)).as_bytes()),
            Value::Number(n) => out.extend_from_slice(format!("\"{}\"", format_general(n, DIGITS)).as_bytes()),
            key => return Err(format!("Cannot serialise {}: table key must be a number or string", key.type_name())),
        }
        out.push(b':');
        write(&value, depth, out)?;
    }
    out.push(b'}');
    Ok(())
}

pub fn decode(lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    let mut args = args.into_iter();
    let (Some(value), None) = (args.next(), args.next()) else {
        return Err(raise_at_caller(lua, "bad argument #1 to 'decode' (expected 1 argument)"));
    };
    let Some(text) = lua.coerce_string(value)? else {
        return Err(raise_at_caller(lua, "bad argument #1 to 'decode' (string expected)"));
    };
    let text = text.as_bytes().to_vec();
    let mut reader = Reader { lua, text: &text, at: 0 };
    match reader.document() {
        Ok(value) => Ok(value),
        Err(Problem::Text(problem)) => Err(raise_at_caller(lua, &problem)),
        Err(Problem::Lua(error)) => Err(error),
    }
}

enum Problem {
    Text(String),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Problem {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

struct Reader<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Value, Problem> {
        let value = self.value(0)?;
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.expected("the end"));
        }
        Ok(value)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// lua-cjson's name for the token at this position.
    fn token(&self) -> &'static str {
        match self.peek() {
            None => "T_END",
            Some(b'{') => "T_OBJ_BEGIN",
            Some(b'}') => "T_OBJ_END",
            Some(b'[') => "T_ARR_BEGIN",
            Some(b']') => "T_ARR_END",
            Some(b':') => "T_COLON",
            Some(b',') => "T_COMMA",
            Some(b'"') => "T_STRING",
            Some(b'-' | b'0'..=b'9') => "T_NUMBER",
            Some(b't' | b'f') if self.word_is("true") || self.word_is("false") => "T_BOOLEAN",
            Some(b'n') if self.word_is("null") => "T_NULL",
            Some(_) => "invalid token",
        }
    }

    fn word_is(&self, word: &str) -> bool {
        self.text[self.at..].starts_with(word.as_bytes())
    }

    fn expected(&self, what: &str) -> Problem {
        Problem::Text(format!("Expected {what} but found {} at character {}", self.token(), self.at + 1))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Problem> {
        self.skip_space();
        if depth > MAX_DEPTH {
            return Err(Problem::Text(format!("Found too many nested data structures ({depth})")));
        }
        for (word, value) in [("true", Value::Boolean(true)), ("false", Value::Boolean(false)), ("null", Value::NULL)] {
            if self.word_is(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.expected("value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Problem> {
        self.at += 1;
        let table = self.lua.create_table()?;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Table(table));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("object key string"));
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.expected("colon"));
            }
            self.at += 1;
            table.raw_set(key, self.value(depth)?)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Table(table));
                }
                _ => return Err(self.expected("comma or object end")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Problem> {
        self.at += 1;
        let table = self.lua.create_table()?;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Table(table));
        }
        for index in 1.. {
            table.raw_set(index, self.value(depth)?)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.expected("comma or array end")),
            }
        }
        self.at += 1;
        Ok(Value::Table(table))
    }

    fn number(&mut self) -> Result<Value, Problem> {
        let rest = &self.text[self.at..];
        let length =
            rest.iter().take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        let parsed = std::str::from_utf8(&rest[..length]).ok().and_then(|text| text.parse::<f64>().ok());
        match parsed {
            Some(n) => {
                self.at += length;
                Ok(Value::Number(n))
            }
            None => Err(Problem::Text(format!("Expected value but found invalid number at character {}", self.at + 1))),
        }
    }

    fn string(&mut self) -> Result<Value, Problem> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            match self.peek() {
                None => {
                    return Err(Problem::Text(format!(
                        "Expected value but found unexpected end of string at character {}",
                        self.at + 1
                    )));
                }
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Value::String(self.lua.create_string(out)?));
                }
                Some(b'\\') => self.escape(&mut out)?,
                Some(byte) => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let invalid =
            || Problem::Text(format!("Expected value but found invalid escape code at character {}", self.at + 1));
        let plain = match self.text.get(self.at + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode(out),
            _ => return Err(invalid()),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    fn unicode(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let invalid =
            Problem::Text(format!("Expected value but found invalid unicode escape code at character {}", self.at + 1));
        let Some(first) = self.hex(self.at + 2) else { return Err(invalid) };
        let (code, length) = match first {
            0xD800..0xDC00 => match (self.text.get(self.at + 6..self.at + 8), self.hex(self.at + 8)) {
                (Some(b"\\u"), Some(low @ 0xDC00..0xE000)) => (0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00), 12),
                _ => return Err(invalid),
            },
            code => (code, 6),
        };
        let Some(character) = char::from_u32(code) else { return Err(invalid) };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += length;
        Ok(())
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}
