//! Binds a message's arguments to a handler's typed parameters, because a Celery client may pass each by position or by name.
//!
//! A handler's arguments are a struct whose fields, in their order, are the parameters; `#[serde(default)]` and `Option` make one
//! optional. A tuple takes positional arguments only, `()` none, [`serde::de::IgnoredAny`] any. A call that does not fit gets the
//! same `TypeError` text that Python raises for it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::Failure;
use super::parameters::Parameters;
use celery::json::Fields;

/// Reads `args` (a JSON array) and `kwargs` (a JSON object) as a `T`. `function` is the name used in error messages.
pub(crate) fn bind<T: DeserializeOwned>(function: &str, args: &RawValue, kwargs: &RawValue) -> Result<T, Failure> {
    let read = Call::read(args, kwargs);
    read.and_then(|call| T::deserialize(call.clone()).map_err(|problem| problem.in_words::<T>(function, &call)))
        .map_err(|text| Failure::new("builtins", "TypeError", &text))
}

/// Why a call does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    Missing(String),
    TooMany {
        taken: usize,
        given: usize,
    },
    Twice(String),
    Unexpected(String),
    /// A value of the wrong type.
    Value {
        name: String,
        problem: String,
    },
    Other(String),
}

impl Problem {
    /// Python's text for the error.
    fn in_words<T: DeserializeOwned>(self, function: &str, call: &Call<'_>) -> String {
        match self {
            Self::Missing(name) => {
                let required = Parameters::of::<T>().required.into_iter();
                let absent = required.filter(|(position, name)| !call.gives(name, *position));
                let mut names: Vec<String> = absent.map(|(_, name)| name).collect();
                if names.is_empty() {
                    names.push(name);
                }
                let s = if names.len() == 1 { "" } else { "s" };
                format!("{function}() missing {} required positional argument{s}: {}", names.len(), listed(&names))
            }
            Self::TooMany { taken, given } => {
                let least = Parameters::of::<T>().least(taken);
                let were = if given == 1 { "was" } else { "were" };
                let s = if taken == 1 { "" } else { "s" };
                let takes = if least < taken { format!("from {least} to {taken}") } else { taken.to_string() };
                format!("{function}() takes {takes} positional argument{s} but {given} {were} given")
            }
            Self::Twice(name) => format!("{function}() got multiple values for argument '{name}'"),
            Self::Unexpected(name) => format!("{function}() got an unexpected keyword argument '{name}'"),
            Self::Value { name, problem } => format!("{function}() argument '{name}': {problem}"),
            Self::Other(problem) => format!("{function}() {problem}"),
        }
    }
}

/// `'a'`, `'a' and 'b'`, `'a', 'b', and 'c'`.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match &quoted[..] {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field.to_owned())
    }

    fn unknown_field(field: &str, _expected: &'static [&'static str]) -> Self {
        Self::Unexpected(field.to_owned())
    }
}

/// The arguments of one call, as a serde data source.
#[derive(Clone)]
struct Call<'a> {
    positional: Vec<&'a RawValue>,
    keyword: BTreeMap<String, &'a RawValue>,
}

impl<'a> Call<'a> {
    fn read(args: &'a RawValue, kwargs: &'a RawValue) -> Result<Self, String> {
        let positional = serde_json::from_str(args.get()).map_err(|error| error.to_string())?;
        let keyword = Fields::parse(kwargs.get()).map_err(|error| error.to_string())?;
        Ok(Self { positional, keyword: keyword.iter().map(|(name, value)| (name.to_owned(), value)).collect() })
    }

    /// Whether the call has a value for the parameter `name` at `position`.
    fn gives(&self, name: &str, position: usize) -> bool {
        position < self.positional.len() || self.keyword.contains_key(name)
    }

    fn refuse_keywords(&self) -> Result<(), Problem> {
        self.keyword.keys().next().map_or(Ok(()), |name| Err(Problem::Unexpected(name.clone())))
    }

    fn positional_only(&self, taken: usize) -> Result<(), Problem> {
        self.refuse_keywords()?;
        let given = self.positional.len();
        if given > taken { Err(Problem::TooMany { taken, given }) } else { Ok(()) }
    }
}

impl<'de> Deserializer<'de> for Call<'_> {
    type Error = Problem;

    /// For any other type: all positional arguments as a list.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.refuse_keywords()?;
        visitor.visit_seq(Positional { values: self.positional.into_iter(), index: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let given = self.positional.len();
        if given > fields.len() {
            return Err(Problem::TooMany { taken: fields.len(), given });
        }
        if let Some(twice) = fields[..given].iter().find(|field| self.keyword.contains_key(**field)) {
            return Err(Problem::Twice((*twice).to_owned()));
        }
        if let Some(name) = self.keyword.keys().find(|name| !fields.contains(&name.as_str())) {
            return Err(Problem::Unexpected(name.clone()));
        }
        let mut named = self.keyword;
        named.extend(fields.iter().zip(self.positional).map(|(field, value)| ((*field).to_owned(), value)));
        visitor.visit_map(Named { rest: named.into_iter(), current: None })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if !self.positional.is_empty() {
            return Err(Problem::TooMany { taken: 0, given: self.positional.len() });
        }
        visitor.visit_map(Named { rest: self.keyword.into_iter(), current: None })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Problem> {
        self.positional_only(len)?;
        if let Some(missing) = (self.positional.len()..len).next() {
            return Err(Problem::Missing(format!("arg{}", missing + 1)));
        }
        visitor.visit_seq(Positional { values: self.positional.into_iter(), index: 0 })
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.positional_only(0)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit_struct seq tuple_struct
        enum identifier
    }
}

struct Positional<'a> {
    values: std::vec::IntoIter<&'a RawValue>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Positional<'_> {
    type Error = Problem;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Problem> {
        let Some(value) = self.values.next() else { return Ok(None) };
        self.index += 1;
        read(seed, value, || format!("arg{}", self.index)).map(Some)
    }
}

struct Named<'a> {
    rest: std::collections::btree_map::IntoIter<String, &'a RawValue>,
    current: Option<(String, &'a RawValue)>,
}

impl<'de> MapAccess<'de> for Named<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        self.current = self.rest.next();
        let Some((name, _)) = &self.current else { return Ok(None) };
        seed.deserialize(de::value::StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Problem> {
        let (name, value) = self.current.take().expect("serde asks for a key first");
        read(seed, value, || name)
    }
}

/// One value, from its JSON text.
fn read<'de, S: DeserializeSeed<'de>>(
    seed: S,
    value: &RawValue,
    name: impl FnOnce() -> String,
) -> Result<S::Value, Problem> {
    let plain = super::rich::plain(value);
    let mut source = serde_json::Deserializer::from_reader(plain.get().as_bytes());
    seed.deserialize(&mut source).map_err(|error| {
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
        Problem::Value { name: name(), problem }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Add {
        x: i64,
        y: i64,
        #[serde(default)]
        scale: Option<i64>,
    }

    fn call<T: DeserializeOwned>(args: &str, kwargs: &str) -> Result<T, String> {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        bind("add", &raw(args), &raw(kwargs)).map_err(|failure| failure.exception.text())
    }

    #[test]
    fn arguments_are_taken_by_position_and_by_name() {
        let expected = Add { x: 1, y: 2, scale: None };
        assert_eq!(call::<Add>("[1, 2]", "{}"), Ok(expected));
        assert_eq!(call::<Add>("[1]", r#"{"y": 2, "scale": 3}"#), Ok(Add { x: 1, y: 2, scale: Some(3) }));
        assert_eq!(call::<(i64, String)>(r#"[1, "a"]"#, "{}"), Ok((1, "a".to_owned())));
        assert_eq!(call::<Vec<i64>>("[1, 2, 3]", "{}"), Ok(vec![1, 2, 3]));
        assert_eq!(call::<()>("[]", "{}"), Ok(()));
        assert!(call::<de::IgnoredAny>("[1]", r#"{"a": 2}"#).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_told_in_pythons_words() {
        let words = |args, kwargs| call::<Add>(args, kwargs).unwrap_err();
        assert_eq!(words("[]", "{}"), "add() missing 2 required positional arguments: 'x' and 'y'");
        assert_eq!(words("[1]", "{}"), "add() missing 1 required positional argument: 'y'");
        assert_eq!(words("[]", r#"{"y": 1}"#), "add() missing 1 required positional argument: 'x'");
        assert_eq!(words("[1, 2, 3, 4]", "{}"), "add() takes from 2 to 3 positional arguments but 4 were given");
        assert_eq!(words("[1, 2]", r#"{"z": 1}"#), "add() got an unexpected keyword argument 'z'");
        assert_eq!(words("[1, 2]", r#"{"x": 1}"#), "add() got multiple values for argument 'x'");
        assert_eq!(call::<()>("[1]", "{}").unwrap_err(), "add() takes 0 positional arguments but 1 was given");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        let problem = call::<Add>(r#"[1, "two"]"#, "{}").unwrap_err();
        assert_eq!(problem, "add() argument 'y': invalid type: string \"two\", expected i64");
    }

    #[test]
    fn python_s_dates_and_decimals_arrive_as_their_text() {
        let date = r#"[{"__type__": "datetime", "__value__": "2026-11-20T00:00:00"}]"#;
        assert_eq!(call::<(String,)>(date, "{}"), Ok(("2026-11-20T00:00:00".to_owned(),)));
    }
}
