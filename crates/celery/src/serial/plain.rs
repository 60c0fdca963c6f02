//! Reads plain data from a pickle without running it: Celery before 5.7 pickles values that it stores in a database, whatever the
//! serializer is. For a fleet that uses JSON these are numbers, strings, lists and dictionaries.
//!
//! Only the opcodes that build such values are supported. Any other opcode (a class, a call, another pickle) makes the result `None`.
//! Memory, depth and output are bounded, and the result never contains itself.

use super::{push_bytes, push_key, push_not_finite};
use crate::{bounds, json};

/// Maximum number of values in one pickle, and in the text that is built from it.
const MOST: usize = 1_000_000;
/// Maximum depth of nesting.
const DEPTH: usize = 100;

/// A value, whose parts are indexes into the arena: a pickle may fill a list after another value refers to it.
enum Value {
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<usize>),
    Dictionary(Vec<(usize, usize)>),
}

/// The value as JSON text; `None` when it is not a pickle of plain data.
pub fn to_json(bytes: &[u8]) -> Option<String> {
    let mut machine =
        Machine { rest: bytes, arena: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: Vec::new() };
    let root = machine.run()?;
    let (mut out, mut left) = (String::new(), MOST);
    machine.write(root, DEPTH, &mut out, &mut left)?;
    Some(out)
}

struct Machine<'a> {
    rest: &'a [u8],
    arena: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// By number; `None` where nothing was put.
    memo: Vec<Option<usize>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Option<usize> {
        loop {
            let [opcode, rest @ ..] = self.rest else { return None };
            self.rest = rest;
            match *opcode {
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.stack.pop(),
                opcode => self.step(opcode)?,
            }
            if self.arena.len() > MOST || self.memo.len() > MOST {
                return None;
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::Null),
            0x88 => self.push(Value::Boolean(true)),
            0x89 => self.push(Value::Boolean(false)),
            b'J' | b'K' | b'M' | 0x8a | b'G' => self.number(opcode)?,
            b'X' | 0x8c | 0x8d => {
                let text = self.counted(opcode)?;
                self.push(Value::Text(std::str::from_utf8(text).ok()?.to_owned()));
            }
            b'B' | b'C' | 0x8e => {
                let bytes = self.counted(opcode)?.to_vec();
                self.push(Value::Bytes(bytes));
            }
            b']' | b')' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dictionary(Vec::new())),
            b't' | 0x85..=0x87 => self.tuple(opcode)?,
            b'a' | b'e' => self.append(opcode)?,
            b's' | b'u' => self.set(opcode)?,
            b'q' | b'r' | 0x94 => self.remember(opcode)?,
            b'h' | b'j' => {
                let number = self.number_of(if opcode == b'h' { 1 } else { 4 })?;
                let value = (*self.memo.get(usize::try_from(number).ok()?)?)?;
                self.stack.push(value);
            }
            _ => return None,
        }
        Some(())
    }

    fn number(&mut self, opcode: u8) -> Option<()> {
        let value = match opcode {
            b'J' => Value::Integer(i32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            b'K' => Value::Integer(self.number_of(1)?.into()),
            b'M' => Value::Integer(self.number_of(2)?.into()),
            b'G' => Value::Float(f64::from_be_bytes(self.take(8)?.try_into().ok()?)),
            _ => {
                let length = usize::try_from(self.number_of(1)?).ok()?;
                Value::Integer(signed(self.take(length)?)?)
            }
        };
        self.push(value);
        Some(())
    }

    /// Bytes after their length, whose own size depends on the opcode.
    fn counted(&mut self, opcode: u8) -> Option<&'a [u8]> {
        let width = match opcode {
            0x8c | b'C' => 1,
            b'X' | b'B' => 4,
            _ => 8,
        };
        let length = usize::try_from(self.number_of(width)?).ok()?;
        self.take(length)
    }

    fn tuple(&mut self, opcode: u8) -> Option<()> {
        let parts = match opcode {
            b't' => self.since_mark()?,
            opcode => self.stack.split_off(self.stack.len().checked_sub(usize::from(opcode - 0x84))?),
        };
        self.push(Value::List(parts));
        Some(())
    }

    fn append(&mut self, opcode: u8) -> Option<()> {
        let parts = if opcode == b'a' { vec![self.stack.pop()?] } else { self.since_mark()? };
        let Value::List(list) = self.arena.get_mut(*self.stack.last()?)? else { return None };
        list.extend(parts);
        Some(())
    }

    fn set(&mut self, opcode: u8) -> Option<()> {
        let parts =
            if opcode == b's' { self.stack.split_off(self.stack.len().checked_sub(2)?) } else { self.since_mark()? };
        let Value::Dictionary(members) = self.arena.get_mut(*self.stack.last()?)? else { return None };
        members.extend(parts.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        parts.len().is_multiple_of(2).then_some(())
    }

    fn remember(&mut self, opcode: u8) -> Option<()> {
        let number = match opcode {
            b'q' => usize::try_from(self.number_of(1)?).ok()?,
            b'r' => usize::try_from(self.number_of(4)?).ok()?,
            _ => self.memo.len(),
        };
        let value = *self.stack.last()?;
        if number > MOST {
            return None;
        }
        if number >= self.memo.len() {
            self.memo.resize(number + 1, None);
        }
        self.memo[number] = Some(value);
        Some(())
    }

    fn since_mark(&mut self) -> Option<Vec<usize>> {
        let height = self.marks.pop()?;
        (height <= self.stack.len()).then(|| self.stack.split_off(height))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.arena.len());
        self.arena.push(value);
    }

    /// Little-endian, without a sign.
    fn number_of(&mut self, width: usize) -> Option<u32> {
        let bytes = self.take(width)?;
        let number =
            bytes.iter().rev().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()))?;
        u32::try_from(number).ok()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// What refers to itself ends at the depth; what is mentioned over and over ends at the size or at the number of values.
    fn write(&self, place: usize, depth: usize, out: &mut String, left: &mut usize) -> Option<()> {
        if depth == 0 || out.len() > bounds::MAX_BYTES {
            return None;
        }
        *left = left.checked_sub(1)?;
        match self.arena.get(place)? {
            Value::Null => out.push_str("null"),
            Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Integer(number) => out.push_str(&number.to_string()),
            Value::Float(number) if number.is_finite() => out.push_str(&format!("{number:?}")),
            Value::Float(number) => push_not_finite(*number, out),
            Value::Text(text) => json::push_string(out, text),
            Value::Bytes(bytes) => push_bytes(bytes, out),
            Value::List(parts) => {
                out.push('[');
                for (n, part) in parts.iter().enumerate() {
                    out.push_str(if n > 0 { ", " } else { "" });
                    self.write(*part, depth - 1, out, left)?;
                }
                out.push(']');
            }
            Value::Dictionary(members) => {
                out.push('{');
                for (n, (key, value)) in members.iter().enumerate() {
                    out.push_str(if n > 0 { ", " } else { "" });
                    let mut written = String::new();
                    self.write(*key, depth - 1, &mut written, left)?;
                    push_key(&written, out);
                    out.push_str(": ");
                    self.write(*value, depth - 1, out, left)?;
                }
                out.push('}');
            }
        }
        Some(())
    }
}

/// Little-endian, with a sign.
fn signed(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.last().is_some_and(|byte| byte & 0x80 > 0) { 0xff } else { 0 };
    let mut wide = [fill; 16];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_data_of_every_protocol_is_read() {
        // pickle.dumps({"a": [1, 300, -5, 2**40, 1.5], "b": (None, True), 3: "é"}, protocol), for 2 and 5.
        let second = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01M,\x01J\xfb\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\
            G?\xf8\x00\x00\x00\x00\x00\x00eX\x01\x00\x00\x00bq\x03N\x88\x86q\x04K\x03X\x02\x00\x00\x00\xc3\xa9q\x05u.";
        let fifth = b"\x80\x05\x95;\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01M,\x01J\xfb\xff\xff\xff\
            \x8a\x06\x00\x00\x00\x00\x00\x01G?\xf8\x00\x00\x00\x00\x00\x00e\x8c\x01b\x94N\x88\x86\x94K\x03\x8c\x02\xc3\xa9\x94u.";
        for bytes in [&second[..], fifth] {
            let text = to_json(bytes).unwrap();
            assert_eq!(text, "{\"a\": [1, 300, -5, 1099511627776, 1.5], \"b\": [null, true], \"3\": \"\\u00e9\"}");
        }
        assert_eq!(to_json(b"\x80\x04K\x07.").as_deref(), Some("7"));
    }

    #[test]
    fn what_would_run_anything_has_no_value() {
        // A call of os.system, an exception, a set, a persistent id.
        for bytes in [
            &b"\x80\x04cos\nsystem\n\x8c\x02id\x85R."[..],
            b"\x80\x04\x8c\x08builtins\x94\x8c\nValueError\x94\x93\x94\x8c\x01x\x85\x94R\x94.",
            b"\x80\x04\x8f\x94.",
            b"\x80\x02X\x01\x00\x00\x00aQ.",
        ] {
            assert_eq!(to_json(bytes), None);
        }
    }

    #[test]
    fn damaged_and_endless_pickles_end() {
        // A list that contains itself, a mark too few, a memo that is empty, a cut.
        for bytes in [
            &b"\x80\x04]\x94h\x00a."[..],
            b"\x80\x04e.",
            b"\x80\x04h\x07.",
            b"\x80\x04X\xff\xff\xff\xff.",
            b"",
            b"\x80",
        ] {
            assert_eq!(to_json(bytes), None);
        }
        let mut doubling = b"\x80\x04]\x94K\x01a".to_vec();
        for n in 0..60_u8 {
            doubling.extend([b']', 0x94, b'h', n, b'a', b'h', n, b'a']);
        }
        doubling.push(b'.');
        assert_eq!(to_json(&doubling), None, "two to the sixty");
    }
}
