//! The signature of a Python task, as a worker reports it: `{'x': <class 'int'>, 'y': typing.Optional[str], 'return': <class 'int'>}`.
//! Celery 5.4 reports `__annotations__`; a worker whose application calls `taskgate.tell_types()` reports `taskgate_hints`, which looks alike,
//! and `taskgate_signature`: which arguments there are, and which are required.
//!
//! Pure. An unknown hint allows any type: only values that a hint certainly forbids are refused. Types of positional arguments are not
//! checked.

use std::collections::BTreeSet;

use celery::task::json::Fields;
use serde_json::value::RawValue;

use super::Invalid;
use super::body::escape;
use super::parameters::Parameters;

/// The attribute of a task that has its parameters.
const SIGNATURE: &str = "taskgate_signature";
/// The attributes of a task that have its hints; a worker that has both tells the same twice.
const HINTS: [&str; 2] = ["taskgate_hints", "__annotations__"];
/// All attributes that say what a task takes.
pub const ATTRIBUTES: [&str; 3] = [SIGNATURE, HINTS[0], HINTS[1]];

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    Text,
    Array,
    Object,
}

/// What a worker has told of a task's signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// By parameter name, in order.
    hints: Vec<(String, Hint)>,
    /// `None` where the worker tells types only.
    parameters: Option<Parameters>,
}

/// The kinds that are allowed; `None` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hint {
    written: String,
    kinds: Option<BTreeSet<Kind>>,
}

impl Kind {
    fn of(value: &RawValue) -> Self {
        match value.get().as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ if value.get().bytes().any(|byte| b".eE".contains(&byte)) => Self::Number,
            _ => Self::Integer,
        }
    }

    /// JSON Schema's name of the kind.
    pub fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        let all = [Self::Null, Self::Boolean, Self::Integer, Self::Number, Self::Text, Self::Array, Self::Object];
        all.into_iter().find(|kind| kind.word() == word)
    }
}

impl Annotations {
    /// Parses a line of `inspect registered` with [`ATTRIBUTES`]: the task's name, and its signature if the worker tells it.
    pub fn told(line: &str) -> Option<(String, Self)> {
        let (name, rest) = line.split_once(" [")?;
        let told: Vec<&str> = parts(rest.strip_suffix(']')?, ' ');
        let value = |attribute: &str| told.iter().find_map(|part| part.strip_prefix(attribute)?.strip_prefix('='));
        let hints = HINTS.iter().find_map(|attribute| value(attribute)).map(hints);
        let parameters = value(SIGNATURE).map(Parameters::parse);
        if hints.is_none() && parameters.is_none() {
            return None;
        }
        Some((name.to_owned(), Self { hints: hints.unwrap_or(Some(Vec::new()))?, parameters: parameters.flatten() }))
    }

    pub fn is_empty(&self) -> bool {
        self.hints.is_empty() && self.parameters.is_none()
    }

    /// Whether the same calls fit both. A worker that tells no parameters is compared by its hints.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Parameters, &Parameters)| one == other;
        self.hints == other.hints && self.parameters.as_ref().zip(other.parameters.as_ref()).is_none_or(is_same)
    }

    /// The parameters that a call may pass by name, and whether it must pass them; `None` if the worker does not tell them.
    pub fn by_name(&self) -> Option<impl Iterator<Item = (&str, bool)>> {
        Some(self.parameters.as_ref()?.by_name())
    }

    /// The mistakes of a call that passes all its arguments by name; types are checked by [`check`](Self::check).
    pub fn check_names(&self, kwargs: &RawValue) -> Vec<Invalid> {
        let (Some(parameters), Ok(given)) = (&self.parameters, Fields::parse(kwargs.get())) else { return Vec::new() };
        parameters.check(&given)
    }

    /// How the call that a catalog entry makes does not fit, by the number of its positional arguments and the names of the others.
    pub fn against_call(&self, positions: usize, names: &[&str]) -> Vec<String> {
        self.parameters.as_ref().map_or_else(Vec::new, |parameters| parameters.against(positions, names))
    }

    /// Names of the parameters with their hints as written, and their kinds where these are known.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, Option<&BTreeSet<Kind>>)> {
        self.hints.iter().map(|(name, hint)| (name.as_str(), hint.written.as_str(), hint.kinds.as_ref()))
    }

    /// Names and kinds of the parameters whose kind is known.
    pub fn known(&self) -> impl Iterator<Item = (&str, &BTreeSet<Kind>)> {
        self.hints.iter().filter_map(|(name, hint)| Some((name.as_str(), hint.kinds.as_ref()?)))
    }

    /// The keyword arguments that the hints forbid.
    pub fn check(&self, kwargs: &RawValue) -> Vec<Invalid> {
        let Ok(given) = Fields::parse(kwargs.get()) else { return Vec::new() };
        let wrong = self.hints.iter().filter_map(|(name, hint)| {
            let (kinds, value) = (hint.kinds.as_ref()?, given.get(name)?);
            let kind = Kind::of(value);
            // Python checks no hint, and a parameter with a hint may have None as its default.
            let fits =
                kind == Kind::Null || kinds.contains(&kind) || (kind == Kind::Integer && kinds.contains(&Kind::Number));
            let detail = format!("must be {}: the worker's signature says {}", words(kinds), hint.written);
            (!fits).then(|| Invalid::new(format!("/kwargs/{}", escape(name)), detail))
        });
        wrong.collect()
    }

    /// Fields of a catalog entry's schema that contradict the hints, so that no value satisfies both.
    pub fn against(&self, schema: &serde_json::Value) -> Vec<String> {
        let differs = |(name, kinds): (&str, &BTreeSet<Kind>)| {
            let said = schema.get("properties")?.get(name)?.get("type")?;
            let said: BTreeSet<Kind> = match said {
                serde_json::Value::String(word) => Kind::of_word(word).into_iter().collect(),
                serde_json::Value::Array(words) => {
                    words.iter().filter_map(|word| Kind::of_word(word.as_str()?)).collect()
                }
                _ => return None,
            };
            let numbers = |kinds: &BTreeSet<Kind>| kinds.contains(&Kind::Integer) || kinds.contains(&Kind::Number);
            let meet = said.is_empty() || !said.is_disjoint(kinds) || (numbers(&said) && numbers(kinds));
            (!meet).then(|| format!("{name} is {} in the catalog and {} in the worker", words(&said), words(kinds)))
        };
        self.known().filter_map(differs).collect()
    }
}

/// Parses Python's `repr` of the dictionary.
fn hints(text: &str) -> Option<Vec<(String, Hint)>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut found = Vec::new();
    for pair in parts(inner, ',') {
        let (name, hint) = split_once(pair, ':')?;
        let name = name.trim().trim_matches(['\'', '"']).to_owned();
        if name != "return" {
            let written = bare(hint);
            found.push((name, Hint { kinds: kinds(&written), written }));
        }
    }
    Some(found)
}

fn words(kinds: &BTreeSet<Kind>) -> String {
    kinds.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(" or ")
}

/// `<class 'int'>` and `'int'` are `int`, `typing.Optional[int]` is `Optional[int]`.
fn bare(hint: &str) -> String {
    let hint = hint.trim();
    let hint = hint.strip_prefix("<class '").and_then(|rest| rest.strip_suffix("'>")).unwrap_or(hint);
    hint.trim_matches(['\'', '"']).replace("typing.", "").replace("collections.abc.", "")
}

/// `None` for any.
fn kinds(hint: &str) -> Option<BTreeSet<Kind>> {
    let hint = hint.trim();
    let mut found = BTreeSet::new();
    let alternatives = parts(hint, '|');
    if alternatives.len() > 1 {
        for alternative in alternatives {
            found.extend(kinds(alternative)?);
        }
        return Some(found);
    }
    let (head, inner) = hint.strip_suffix(']').and_then(|rest| rest.split_once('[')).unwrap_or((hint, ""));
    match head {
        "int" => found.insert(Kind::Integer),
        "float" => found.insert(Kind::Number),
        "str" => found.insert(Kind::Text),
        "bool" => found.insert(Kind::Boolean),
        "None" | "NoneType" => found.insert(Kind::Null),
        "list" | "List" | "tuple" | "Tuple" | "Sequence" => found.insert(Kind::Array),
        "dict" | "Dict" | "Mapping" => found.insert(Kind::Object),
        "Optional" => {
            found.extend(kinds(inner)?);
            found.insert(Kind::Null)
        }
        "Union" => {
            for member in parts(inner, ',') {
                found.extend(kinds(member)?);
            }
            true
        }
        _ => return None,
    };
    Some(found)
}

/// Splits a text at separators outside of brackets and quotes.
fn parts(text: &str, separator: char) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((part, after)) = split_once(rest, separator) {
        found.push(part);
        rest = after;
    }
    if !rest.trim().is_empty() {
        found.push(rest);
    }
    found
}

fn split_once(text: &str, separator: char) -> Option<(&str, &str)> {
    let (mut depth, mut quote) = (0_i32, None);
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, '[' | '(' | '{' | '<') => depth += 1,
            (None, ']' | ')' | '}' | '>') => depth -= 1,
            (None, _) if char == separator && depth == 0 => return Some((&text[..at], &text[at + char.len_utf8()..])),
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(text: &str) -> Annotations {
        Annotations::told(&format!("app.add [__annotations__={text}]")).unwrap().1
    }

    fn wrong(hints: &Annotations, kwargs: &str) -> Vec<String> {
        let kwargs: Box<RawValue> = serde_json::from_str(kwargs).unwrap();
        hints.check(&kwargs).into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn classes_texts_and_unions_are_understood() {
        let hints = hints(
            "{'a': <class 'int'>, 'b': 'str | None', 'c': typing.Optional[float], 'd': list[dict[str, int]], 'e': <class 'shop.Order'>, 'return': None}",
        );
        assert!(wrong(&hints, r#"{"a": 1, "b": null, "c": 2, "d": [], "e": 5, "other": 1}"#).is_empty());
        assert_eq!(
            wrong(&hints, r#"{"a": "1", "b": 2, "c": true, "d": {}, "e": []}"#),
            ["/kwargs/a", "/kwargs/b", "/kwargs/c", "/kwargs/d"]
        );
        assert_eq!(wrong(&hints, r#"{"a": 1.5}"#), ["/kwargs/a"]);
        assert!(wrong(&hints, r#"{"a": null, "d": null}"#).is_empty(), "a default may be None whatever the hint says");
    }

    #[test]
    fn a_worker_tells_hints_under_either_name_or_both() {
        let told = |line: &str| Annotations::told(line).map(|(name, told)| (name, told.hints.len()));
        let hints = "{'x': <class 'int'>, 'y': typing.Union[int, str]}";
        let one = Some(("app.add".to_owned(), 2));
        assert_eq!(told(&format!("app.add [taskgate_hints={hints}]")), one);
        assert_eq!(told(&format!("app.add [taskgate_hints={hints} __annotations__={hints}]")), one);
        assert_eq!(told(&format!("app.add [taskgate_signature=(x, y=?) taskgate_hints={hints}]")), one);
        assert_eq!(told("app.add [rate_limit=10/m]"), None);
    }

    #[test]
    fn workers_agree_unless_one_tells_another_type_or_parameter() {
        let told = |text: &str| Annotations::told(&format!("app.add [{text}]")).unwrap().1;
        let typed = told("__annotations__={'x': <class 'int'>}");
        let whole = told("taskgate_signature=(x, y=?) taskgate_hints={'x': <class 'int'>}");
        assert!(typed.agrees_with(&whole) && whole.agrees_with(&typed), "an older package tells less");
        assert!(!whole.agrees_with(&told("taskgate_signature=(x, y) taskgate_hints={'x': <class 'int'>}")));
        assert!(!typed.agrees_with(&told("__annotations__={'x': <class 'str'>}")));
        let untyped = told("taskgate_signature=(x, y)");
        assert!(!untyped.is_empty() && !untyped.agrees_with(&told("taskgate_signature=(x, z)")));
        let odd = told("taskgate_signature=odd taskgate_hints={'x': <class 'int'>}");
        assert!(odd.by_name().is_none() && odd.agrees_with(&whole), "another form says nothing");
    }

    #[test]
    fn what_is_not_understood_refuses_nothing() {
        let hints = hints("{'a': typing.Union[int, shop.Order], 'b': typing.Callable[[int], str], 'c': ~T}");
        assert!(wrong(&hints, r#"{"a": [], "b": 1, "c": "x"}"#).is_empty());
        assert!(Annotations::told("app.add").is_none());
        assert!(Annotations::told("app.add [__annotations__={broken]").is_none());
    }

    #[test]
    fn a_schema_and_hints_that_no_value_satisfies_differ() {
        let hints = hints("{'x': <class 'int'>, 'y': <class 'str'>}");
        let schema =
            |x: &str, y: &str| serde_json::json!({"properties": {"x": {"type": x}, "y": {"type": [y, "null"]}}});
        assert!(hints.against(&schema("number", "string")).is_empty());
        assert_eq!(hints.against(&schema("string", "integer")).len(), 2);
    }
}
