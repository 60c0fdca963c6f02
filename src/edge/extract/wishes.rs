//! Small request bodies: objects with a few, mostly optional members.

use crate::edge::problem::Problem;
use crate::edge::slugs;
use celery::task::invalid::Problems;
use celery::task::json::Fields;

use super::PathValues;

/// Reads a body with `read`, which collects mistakes. An empty body counts as `{}`. Members that are not in `known` are refused.
///
/// # Errors
/// A problem that names every mistake.
pub fn wishes<T>(text: &str, known: &[&str], read: impl FnOnce(&mut Problems, &Fields<'_>) -> T) -> Result<T, Problem> {
    let text = if text.is_empty() { "{}" } else { text };
    let mut problems = Problems::default();
    let fields = match Fields::parse(text) {
        Ok(fields) => fields,
        Err(error) if error.is_data() => {
            problems.add("must be an object");
            return Err(Problem::invalid(problems.found));
        }
        Err(error) => return Err(Problem::new(&slugs::INVALID_JSON).detail(error.to_string())),
    };
    problems.refuse_unknown(&fields, known);
    let value = read(&mut problems, &fields);
    if problems.found.is_empty() { Ok(value) } else { Err(Problem::invalid(problems.found)) }
}

/// Parses a parameter of the path with `parse`.
///
/// # Errors
/// A problem that names the parameter.
pub fn path_value<T, E: std::fmt::Display>(
    values: &PathValues,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Problem> {
    let value = values.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    parse(value).map_err(|error| {
        Problem::new(&slugs::INVALID_PATH).detail(format!("the {name} {error}")).error(name, error.to_string())
    })
}
