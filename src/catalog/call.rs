//! Turns a request into a call: path values and body fields fill the entry's templates.

use serde_json::Value;

use super::entry::Entry;
use super::links::Links;
use super::template::{self, Template};
use super::{Call, FanOut, Invalid, ResolveError};
use celery::json::Fields;
use celery::task::limit::{Fair, KeyLimit};
use celery::task::submission::Unique;
use celery::task::{Json, QueueName, Signature};

/// Maximum length of a submission's key.
const MAX_KEY: usize = 255;
/// Maximum length of a label's value.
const MAX_LABEL: usize = 500;

impl Entry {
    /// `path` has the values of the endpoint's parameters, `body` the text of the request body (empty when there is none).
    ///
    /// # Errors
    /// When a path value is not among the known ones, or the body does not fit the schema.
    pub fn resolve(&self, path: &[(String, String)], body: &str) -> Result<Call, ResolveError> {
        self.resolve_with(path, body, &[])
    }

    /// As [`Entry::resolve`]; `told` has the data of a file, JSON text by name.
    ///
    /// # Errors
    /// As [`Entry::resolve`].
    pub fn resolve_with(
        &self,
        path: &[(String, String)],
        body: &str,
        told: &[(String, String)],
    ) -> Result<Call, ResolveError> {
        self.check_path(path)?;
        let text = if body.trim().is_empty() { "{}" } else { body };
        let fields = self.check_body(text)?;
        self.check_words(&fields)?;
        let request = Request { entry: self, path, fields: &fields, told };
        let queue = request.queue()?;
        let mut args = String::new();
        template::array(&self.args, &|name| request.mapped(name), &mut args);
        let mut kwargs = String::new();
        template::object(&self.kwargs, &|name| request.mapped(name), &mut kwargs);
        let options = self.option_words(&args, 0);
        if !options.is_empty() {
            return Err(ResolveError::Invalid(options.into_iter().map(|fault| self.at_field(fault)).collect()));
        }
        Ok(Call {
            args: json(args),
            kwargs: json(kwargs),
            limits: self.limits_for(&request),
            labels: self.labels_for(&request, &|_| true),
            unique: self.unique_for(&request),
            links: self.links_for(&request)?,
            canvas: self.canvas_for(&request)?,
            answer: self.response.as_ref().map(|response| response.of(&|name| request.said(name))),
            fair: self.fair_for(&request),
            message: self.message.as_ref().map(|message| message.fill_text(&|name| request.said(name))),
            echo: path.to_vec(),
            fan_out: self.fan_out(&request, queue.as_ref())?,
            queue,
        })
    }

    /// Reports the body field that fills an argument, instead of the argument's position.
    fn at_field(&self, wrong: Invalid) -> Invalid {
        let position = wrong.pointer.rsplit('/').next().and_then(|index| index.parse::<usize>().ok());
        let names = position.and_then(|at| self.args.get(at)).map_or_else(Vec::new, template::Template::names);
        let is_field =
            |name: &&str| self.body.as_ref().is_some_and(|body| body.fields.iter().any(|field| field == name));
        match names.first().filter(|name| is_field(name)) {
            Some(name) => Invalid::new(format!("/{}", super::body::escape(name)), wrong.detail),
            None => Invalid::new("", format!("{{{}}} {}", names.join("}, {"), wrong.detail)),
        }
    }

    /// The limits of this request. Keys contain the client's values, so that people recognise them in explanations.
    pub(super) fn limits_for(&self, request: &Request<'_>) -> Vec<KeyLimit> {
        self.limits.iter().map(|limit| limit.with(request.key(&limit.key))).collect()
    }

    pub(super) fn fair_for(&self, request: &Request<'_>) -> Option<Fair> {
        self.fair.as_ref().map(|fair| fair.with(request.key(&fair.key)))
    }

    /// Labels whose template names are all `known`; a label of an absent field is left out.
    pub(super) fn labels_for(&self, request: &Request<'_>, known: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
        let is_said = |template: &Template| match template {
            Template::Whole(name) => known(name) && request.said(name) != "null",
            other => other.names().into_iter().all(known),
        };
        let said = self.labels.iter().filter(|(_, template)| is_said(template));
        said.map(|(name, label)| (name.clone(), label_text(&label.fill_text(&|name| request.said(name))))).collect()
    }

    /// Whether it lets tasks follow its own.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    pub(super) fn links_for(&self, request: &Request<'_>) -> Result<Links, ResolveError> {
        self.links.fill(&|name| request.mapped(name))
    }

    fn canvas_for(&self, request: &Request<'_>) -> Result<Option<Signature>, ResolveError> {
        let canvas = self.canvas.as_ref();
        canvas.map(|canvas| canvas.fill(&|name| request.said(name), &|name| request.mapped(name))).transpose()
    }

    pub(super) fn unique_for(&self, request: &Request<'_>) -> Option<Unique> {
        let unique = self.unique.as_ref()?;
        Some(unique.with_key(request.key(&unique.key)))
    }

    /// The fan-out that the call becomes, if the entry has `split`.
    pub(super) fn fan_out(
        &self,
        request: &Request<'_>,
        queue: Option<&QueueName>,
    ) -> Result<Option<FanOut>, ResolveError> {
        let Some(split) = &self.split else { return Ok(None) };
        let chunks = split.cut(&|name| request.said(name))?;
        let names =
            self.args.iter().chain(self.kwargs.iter().map(|(_, value)| value)).flat_map(|template| template.names());
        // A split list is in the chunks already.
        let kept = names.filter(|name| !split.covers(name));
        let fields = kept.map(|name| (name.to_owned(), json(request.mapped(name)))).collect();
        Ok(Some(FanOut::new(&self.name, queue, (&self.written.0, &self.written.1), fields, chunks)))
    }

    /// # Errors
    /// When a value of the path is not among the known ones.
    pub fn check_path(&self, path: &[(String, String)]) -> Result<(), ResolveError> {
        for (name, value) in path {
            if let Some(words) = self.values.get(name)
                && !words.contains_key(value)
            {
                let known = words.keys().cloned().collect();
                return Err(ResolveError::UnknownValue { parameter: name.clone(), value: value.clone(), known });
            }
            if value.chars().any(char::is_control) {
                return Err(ResolveError::invalid("", format!("{{{name}}} in the path contains a control character")));
            }
        }
        Ok(())
    }

    fn check_body<'a>(&self, text: &'a str) -> Result<Fields<'a>, ResolveError> {
        let value: Value = serde_json::from_str(text).map_err(|error| ResolveError::invalid("", error.to_string()))?;
        let errors = match &self.body {
            Some(schema) => schema.check(&value),
            None if value.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
            None => vec![Invalid::new("", "must be empty or {}: this endpoint takes no body")],
        };
        let refused = celery::extended::refused(text, self.json_types).filter(|_| errors.is_empty());
        if let Some(refused) = refused {
            return Err(ResolveError::invalid(refused.at(), refused.why));
        }
        if !errors.is_empty() {
            return Err(ResolveError::Invalid(errors));
        }
        Fields::parse(text).map_err(|error| ResolveError::invalid("", error.to_string()))
    }

    /// Checks body values that `values` translates for the worker.
    pub(super) fn check_words(&self, fields: &Fields<'_>) -> Result<(), ResolveError> {
        for (name, words) in &self.values {
            if self.endpoint.as_ref().is_some_and(|endpoint| endpoint.params.contains(name)) {
                continue;
            }
            let Some(value) = fields.get(name) else { continue };
            if !words.contains_key(&word(value.get())) {
                let known: Vec<&str> = words.keys().map(String::as_str).collect();
                let pointer = format!("/{}", super::body::escape(name));
                return Err(ResolveError::invalid(pointer, format!("is none of {}", known.join(", "))));
            }
        }
        Ok(())
    }
}

pub(super) struct Request<'a> {
    pub entry: &'a Entry,
    pub path: &'a [(String, String)],
    pub fields: &'a Fields<'a>,
    /// The data of a file, JSON text by name.
    pub told: &'a [(String, String)],
}

impl Request<'_> {
    /// What begins with `@` is a word of a namespace ([`crate::guard::namespace`]): only the owner's own text may begin so.
    fn key(&self, key: &Template) -> String {
        let text = plain_text(&key.fill_text(&|name| self.said(name)), MAX_KEY);
        match text.strip_prefix('@') {
            Some(rest) if !key.begins_with('@') => plain_text(&format!("%40{rest}"), MAX_KEY),
            _ => text,
        }
    }

    pub fn queue(&self) -> Result<Option<QueueName>, ResolveError> {
        let queue = self.entry.queue.as_ref().map(|queue| QueueName::parse(queue.fill_text(&|name| self.mapped(name))));
        queue.transpose().map_err(|error| ResolveError::invalid("", format!("the queue {error}")))
    }

    /// The client's value, as JSON text.
    pub fn said(&self, name: &str) -> String {
        if let Some((_, value)) = self.path.iter().find(|(param, _)| param == name) {
            return Value::String(value.clone()).to_string();
        }
        if let Some((_, json)) = self.told.iter().find(|(known, _)| known == name) {
            return json.clone();
        }
        // `get` treats an explicit null as absent; both mean null here, unless the schema has a default for an absent field.
        match self.fields.iter().filter(|(key, _)| *key == name).last() {
            Some((_, value)) => value.get().to_owned(),
            None => {
                self.entry.body.as_ref().and_then(|body| body.default_of(name)).unwrap_or_else(|| "null".to_owned())
            }
        }
    }

    /// The worker's value, as JSON text.
    pub fn mapped(&self, name: &str) -> String {
        let said = self.said(name);
        let words = self.entry.values.get(name);
        words.and_then(|words| words.get(&word(&said))).cloned().unwrap_or(said)
    }
}

/// A label's value in the form that the ledger stores.
pub(super) fn label_text(text: &str) -> String {
    plain_text(text, MAX_LABEL)
}

fn plain_text(text: &str, most: usize) -> String {
    text.chars().filter(|char| !char.is_control()).take(most).collect()
}

/// A JSON string without quotes; any other value unchanged.
fn word(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

pub(super) fn json(text: String) -> Json {
    serde_json::value::RawValue::from_string(text).expect("templates and values are JSON")
}
