//! Converts headers between JSON, which the rest of this program uses, and AMQP's typed tables, in the same way as py-amqp.
//!
//! Whole numbers are written as 64-bit integers and fractions as doubles: Python reads both as from JSON. Types that JSON does not have
//! (timestamps, byte arrays, decimals) are read as the nearest text or number. Nothing here fails.

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::{Map, Number, Value};

/// Converts a JSON object to a table. Anything else gives an empty table.
pub fn from_json(text: &str) -> FieldTable {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => table(members),
        _ => FieldTable::default(),
    }
}

/// A table as JSON text.
pub fn to_json(table: &FieldTable) -> String {
    Value::Object(object(table)).to_string()
}

/// Bytes of a table on the wire, its own length included.
pub fn size(table: &FieldTable) -> usize {
    4 + table.into_iter().map(|(name, value)| 1 + name.as_str().len() + value_size(value)).sum::<usize>()
}

/// The size with the type byte.
fn value_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Timestamp(_) | AMQPValue::Double(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(value_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => size(table),
    }
}

fn table(members: Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in members {
        // A name must be a short string on the wire.
        if name.len() <= usize::from(u8::MAX) {
            table.insert(name.into(), written(value));
        }
    }
    table
}

fn written(value: Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => AMQPValue::LongLongInt(whole),
            None => AMQPValue::Double(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => AMQPValue::LongString(text.into()),
        Value::Array(values) => AMQPValue::FieldArray(values.into_iter().map(written).collect::<Vec<_>>().into()),
        Value::Object(members) => AMQPValue::FieldTable(table(members)),
    }
}

fn object(table: &FieldTable) -> Map<String, Value> {
    table.into_iter().map(|(name, value)| (name.as_str().to_owned(), read(value))).collect()
}

fn read(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(value) => Value::Bool(*value),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::Float(number) => fraction((*number).into()),
        AMQPValue::Double(number) => fraction(*number),
        AMQPValue::DecimalValue(decimal) => fraction(f64::from(decimal.value) / 10_f64.powi(decimal.scale.into())),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::FieldArray(values) => array(values),
        AMQPValue::FieldTable(table) => Value::Object(object(table)),
    }
}

fn array(values: &FieldArray) -> Value {
    Value::Array(values.as_slice().iter().map(read).collect())
}

fn fraction(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        let text = r#"{"task":"fx.add","retries":0,"eta":null,"timelimit":[null,60],"stamps":{"a":["b"]},"big":9007199254740993,"part":1.5,"yes":true,"text":"é☃"}"#;
        let back: Value = serde_json::from_str(&to_json(&from_json(text))).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_json_has_no_word_for_is_read_as_the_nearest() {
        let mut table = FieldTable::default();
        table.insert("at".into(), AMQPValue::Timestamp(7));
        table.insert("raw".into(), AMQPValue::LongString(vec![b'a', 0xff].into()));
        table.insert("none".into(), AMQPValue::Double(f64::NAN));
        assert_eq!(to_json(&table), "{\"at\":7,\"none\":null,\"raw\":\"a\u{fffd}\"}");
    }

    #[test]
    fn the_size_of_a_table_is_counted_as_it_is_written() {
        assert_eq!(size(&from_json("{}")), 4);
        assert_eq!(size(&from_json(r#"{"ab":"xyz"}"#)), 4 + (1 + 2) + (1 + 4 + 3));
        assert_eq!(size(&from_json(r#"{"a":[1,null,true],"b":{"c":1.5}}"#)), 4 + (2 + 5 + 9 + 1 + 2) + (2 + 5 + 2 + 9));
    }

    #[test]
    fn what_is_no_object_gives_no_headers() {
        assert_eq!(from_json("[1]"), FieldTable::default());
        assert_eq!(from_json("{"), FieldTable::default());
    }
}
