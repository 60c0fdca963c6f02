//! The parameters of a Python task as its worker reports them: `(order, /, label=?, *rest, region, **more)`. Defaults are not reported.
//!
//! Pure. It answers which calls Python would certainly refuse: a required argument is missing, or the function takes no such argument.

use celery::json::Fields;

use super::Invalid;
use super::body::escape;

/// What a task's function takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// In order; the last ones may be passed by name only.
    all: Vec<Parameter>,
    /// Whether there is `*args`.
    has_rest: bool,
    /// Whether there is `**kwargs`.
    takes_any_name: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    is_required: bool,
    passing: Passing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Position,
    Either,
    Name,
}

impl Parameters {
    /// Parses the text that a worker reports; `None` when it is of another form.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        let mut found = Self { all: Vec::new(), has_rest: false, takes_any_name: false };
        let mut passing = Passing::Either;
        for part in inner.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if part == "/" {
                found.all.iter_mut().for_each(|parameter| parameter.passing = Passing::Position);
            } else if part.starts_with("**") {
                found.takes_any_name = true;
            } else if let Some(rest) = part.strip_prefix('*') {
                found.has_rest |= !rest.is_empty();
                passing = Passing::Name;
            } else {
                let (name, is_required) = part.strip_suffix("=?").map_or((part, true), |name| (name, false));
                found.all.push(Parameter { name: name.to_owned(), is_required, passing });
            }
        }
        Some(found)
    }

    /// The parameters that a call may pass by name, and whether it must pass them.
    pub fn by_name(&self) -> impl Iterator<Item = (&str, bool)> {
        let named = self.all.iter().filter(|parameter| parameter.passing != Passing::Position);
        named.map(|parameter| (parameter.name.as_str(), parameter.is_required))
    }

    /// The mistakes of a call that passes all its arguments by name.
    pub fn check(&self, kwargs: &Fields<'_>) -> Vec<Invalid> {
        let names: Vec<&str> = kwargs.iter().map(|(name, _)| name).collect();
        let call = Call { positions: 0, names: &names };
        let missing = self.missing(call).map(|parameter| match parameter.passing {
            Passing::Position => {
                Invalid::new("", format!("{} is passed by position only: use /v1/tasks", parameter.name))
            }
            Passing::Either | Passing::Name => Invalid::new(
                format!("/kwargs/{}", escape(&parameter.name)),
                "is missing: the worker's signature requires it",
            ),
        });
        let known: Vec<&str> = self.by_name().map(|(name, _)| name).collect();
        let detail = format!("is no argument: the worker's signature has {}", known.join(", "));
        let unknown = self.unknown(call).map(|name| Invalid::new(format!("/kwargs/{}", escape(name)), detail.clone()));
        missing.chain(unknown).collect()
    }

    /// How a call with so many arguments by position and with these names does not fit.
    pub fn against(&self, positions: usize, names: &[&str]) -> Vec<String> {
        let call = Call { positions, names };
        let missing = self
            .missing(call)
            .map(|parameter| format!("the worker requires {}, which the entry does not pass", parameter.name));
        let unknown = self.unknown(call).map(|name| format!("the entry passes {name}, which the worker does not take"));
        let most = self.positional().count();
        let too_many = (!self.has_rest && positions > most)
            .then(|| format!("the entry passes {positions} arguments by position, the worker takes {most}"));
        missing.chain(unknown).chain(too_many).collect()
    }

    fn positional(&self) -> impl Iterator<Item = &Parameter> {
        self.all.iter().filter(|parameter| parameter.passing != Passing::Name)
    }

    fn missing<'a>(&'a self, call: Call<'a>) -> impl Iterator<Item = &'a Parameter> {
        let given = move |index: usize, parameter: &Parameter| {
            let by_position = parameter.passing != Passing::Name && index < call.positions;
            by_position || (parameter.passing != Passing::Position && call.names.contains(&parameter.name.as_str()))
        };
        let missing =
            move |(index, parameter): &(usize, &Parameter)| parameter.is_required && !given(*index, parameter);
        self.all.iter().enumerate().filter(missing).map(|(_, parameter)| parameter)
    }

    fn unknown<'a>(&'a self, call: Call<'a>) -> impl Iterator<Item = &'a str> {
        let is_known = |name: &str| self.takes_any_name || self.by_name().any(|(known, _)| known == name);
        call.names.iter().copied().filter(move |name| !is_known(name))
    }
}

/// How a call passes its arguments.
#[derive(Clone, Copy)]
struct Call<'a> {
    positions: usize,
    names: &'a [&'a str],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(told: &str, positions: usize, names: &[&str]) -> Vec<String> {
        Parameters::parse(told).unwrap().against(positions, names)
    }

    #[test]
    fn a_call_that_python_takes_fits() {
        for (told, positions, names) in [
            ("()", 0, &[][..]),
            ("(x, y=?)", 1, &[]),
            ("(x, y=?)", 0, &["x", "y"]),
            ("(x, /, y)", 1, &["y"]),
            ("(x, *rest, y)", 7, &["y"]),
            ("(*, y, z=?)", 0, &["y"]),
            ("(x=?, **more)", 0, &["other"]),
            ("(*args, **kwargs)", 3, &["other"]),
        ] {
            assert_eq!(against(told, positions, names), Vec::<String>::new(), "{told}");
        }
    }

    #[test]
    fn a_lost_a_new_and_a_renamed_argument_are_told() {
        assert_eq!(against("(x, region)", 1, &[]), ["the worker requires region, which the entry does not pass"]);
        assert_eq!(against("(x)", 0, &["x", "label"]), ["the entry passes label, which the worker does not take"]);
        assert_eq!(
            against("(x, *, title)", 1, &["label"]),
            [
                "the worker requires title, which the entry does not pass",
                "the entry passes label, which the worker does not take"
            ]
        );
        assert_eq!(against("(x)", 2, &[]), ["the entry passes 2 arguments by position, the worker takes 1"]);
        assert_eq!(against("(x, /)", 0, &["x"]).len(), 2, "a name does not fill a place");
    }

    #[test]
    fn a_call_by_name_is_told_what_is_wrong_with_it() {
        let check = |told: &str, kwargs: &str| {
            let wrong = Parameters::parse(told).unwrap().check(&Fields::parse(kwargs).unwrap());
            wrong.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert_eq!(check("(x, y=?)", r#"{"x": 1}"#), Vec::<String>::new());
        assert_eq!(check("(x, y=?)", r#"{"z": 1}"#), ["/kwargs/x", "/kwargs/z"]);
        assert_eq!(check("(x, /)", "{}"), [""]);
        assert_eq!(check("(x, **more)", r#"{"x": 1, "z": 2}"#), Vec::<String>::new());
    }

    #[test]
    fn another_form_is_no_signature() {
        assert_eq!(Parameters::parse("x, y"), None);
        assert_eq!(Parameters::parse(""), None);
    }
}
