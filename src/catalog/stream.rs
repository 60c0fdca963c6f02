//! `stream = "GET /stream/{upload_id}"`: the events of the newest task whose labels match the path.
//!
//! The path's parameters fill the entry's label templates; only labels that consist of these parameters alone are compared.

use super::endpoint::{Endpoint, Method};
use super::template::Template;

/// A path that follows tasks by their labels.
#[derive(Debug)]
pub struct Stream {
    pub at: Endpoint,
    labels: Vec<(String, Template)>,
}

impl Stream {
    /// `labels` are the entry's.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn compile(text: &str, labels: &[(String, Template)]) -> Result<Self, String> {
        let at = Endpoint::parse(text, Method::Get)?;
        let is_said = |template: &Template| {
            let names = template.names();
            !names.is_empty() && names.iter().all(|name| at.params.iter().any(|param| param == name))
        };
        let labels: Vec<(String, Template)> =
            labels.iter().filter(|(_, template)| is_said(template)).cloned().collect();
        let is_used = |param: &&String| labels.iter().any(|(_, label)| label.names().contains(&param.as_str()));
        match at.params.iter().find(|param| !is_used(param)) {
            Some(param) => {
                Err(format!("no label is made of {{{param}}}: write labels = {{ {param} = \"{{{param}}}\" }}"))
            }
            None if labels.is_empty() => Err("has no parameter that says whose events are meant".to_owned()),
            None => Ok(Self { at, labels }),
        }
    }

    /// The labels that a task must have, from the values of the path's parameters.
    pub fn labels(&self, path: &[(String, String)]) -> Vec<(String, String)> {
        let said = |name: &str| {
            let value = path.iter().find(|(param, _)| param == name).map(|(_, value)| value.as_str());
            serde_json::Value::from(value.unwrap_or_default()).to_string()
        };
        self.labels
            .iter()
            .map(|(name, label)| (name.clone(), super::call::label_text(&label.fill_text(&said))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, text: &str) -> (String, Template) {
        (name.to_owned(), Template::parse(&serde_json::Value::from(text)).unwrap())
    }

    #[test]
    fn a_path_says_the_labels_of_a_task() {
        let labels = [label("upload", "u-{upload_id}"), label("kind", "document"), label("user", "{user}")];
        let stream = Stream::compile("GET /stream/{upload_id}", &labels).unwrap();
        let path = [("upload_id".to_owned(), "a b".to_owned())];
        assert_eq!(stream.labels(&path), [("upload".to_owned(), "u-a b".to_owned())]);
    }

    #[test]
    fn a_path_that_no_label_is_made_of_is_refused() {
        let labels = [label("upload", "{upload_id}")];
        assert!(Stream::compile("GET /stream/{id}", &labels).unwrap_err().contains("no label is made of {id}"));
        assert!(Stream::compile("GET /stream", &labels).unwrap_err().contains("no parameter"));
        assert!(Stream::compile("POST /stream/{upload_id}", &labels).unwrap_err().contains("only GET"));
    }
}
