//! Finds the parameters of a handler's argument type by calling its `Deserialize` implementation, the only way that serde offers.
//!
//! Used only to word an error as Python does; for a type whose fields refuse every made-up value the error is less exact.

use std::collections::BTreeSet;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};

use super::arguments::Problem;

/// The parameters that must be given.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Position and name, in order.
    pub required: Vec<(usize, String)>,
}

impl Parameters {
    pub fn of<T: DeserializeOwned>() -> Self {
        let mut known = BTreeSet::new();
        let mut fields: &'static [&'static str] = &[];
        while let Err(Problem::Missing(name)) = T::deserialize(Probe { known: &known, fields: &mut fields }) {
            if !known.insert(name) {
                break;
            }
        }
        let required = fields.iter().enumerate().filter(|(_, name)| known.contains(**name));
        Self { required: required.map(|(position, name)| (position, (*name).to_owned())).collect() }
    }

    /// The least number of positional arguments, of `all`.
    pub fn least(&self, all: usize) -> usize {
        self.required.last().map_or(if all == 0 { 0 } else { self.required.len() }, |(position, _)| position + 1)
    }
}

/// A deserializer that offers made-up values for the fields known to be required.
struct Probe<'a> {
    known: &'a BTreeSet<String>,
    fields: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Problem> {
        Err(Problem::Other("has no named parameters".to_owned()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        *self.fields = fields;
        visitor.visit_map(MapDeserializer::new(self.known.iter().map(|name| (name.as_str(), Anything))))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// The simplest value of any requested type.
#[derive(Clone, Copy)]
struct Anything;

impl IntoDeserializer<'_, Problem> for Anything {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! simplest {
    ($($method:ident => $visit:ident($value:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Anything {
    type Error = Problem;

    simplest! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_i8(0);
        deserialize_i16 => visit_i16(0);
        deserialize_i32 => visit_i32(0);
        deserialize_i64 => visit_i64(0);
        deserialize_u8 => visit_u8(0);
        deserialize_u16 => visit_u16(0);
        deserialize_u32 => visit_u32(0);
        deserialize_u64 => visit_u64(0);
        deserialize_f32 => visit_f32(0.0);
        deserialize_f64 => visit_f64(0.0);
        deserialize_char => visit_char(' ');
        deserialize_str => visit_str("");
        deserialize_string => visit_str("");
        deserialize_bytes => visit_bytes(b"");
        deserialize_byte_buf => visit_bytes(b"");
        deserialize_identifier => visit_str("");
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_none()
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Anything>()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, Anything)>()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_seq(SeqDeserializer::new(std::iter::repeat_n(Anything, len)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_map(MapDeserializer::new(fields.iter().map(|name| (*name, Anything))))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let first = variants.first().ok_or_else(|| <Problem as de::Error>::custom("an enum without variants"))?;
        visitor.visit_enum(StrDeserializer::new(first))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! { i128 u128 unit unit_struct tuple_struct ignored_any }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn required_parameters_are_found_in_their_order() {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its shape is asked for")]
        struct Mail {
            to: Vec<String>,
            subject: String,
            cc: Option<String>,
            kind: Kind,
            #[serde(default)]
            tries: u32,
        }
        #[derive(Deserialize)]
        enum Kind {
            Plain,
        }
        let found = Parameters::of::<Mail>();
        assert_eq!(found.required, [(0, "to".to_owned()), (1, "subject".to_owned()), (3, "kind".to_owned())]);
        assert_eq!(found.least(5), 4);
        assert!(Parameters::of::<Vec<i64>>().required.is_empty());
    }
}
