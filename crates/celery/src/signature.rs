//! Signatures on the wire: calls as data inside messages (`embed`, `options.link` …), plain or as chain, group and chord.
//!
//! Nothing in a signature may get lost here: unknown options are kept verbatim, so that a Python worker sees what the Python client
//! wrote. Reading is as tolerant as Celery (a single object instead of a list, no `kwargs`), but `task`, `args` and `options` are
//! required, because a Python worker fails without them.

use serde_json::value::RawValue;

use super::DecodeError;
use super::bounds::MAX_NESTING;
use super::json::{self, Fields};
use super::options::Options;
use crate::task::Json;

/// One signature. Wrappers (`chain`, `group`, `chord`) have their members in `form`.
#[derive(Debug, Clone)]
pub struct Signature {
    pub form: Form,
    /// Positional arguments, a JSON array; for a wrapper those that its first tasks get.
    pub args: Json,
    /// Keyword arguments, a JSON object; for a wrapper without its members.
    pub kwargs: Json,
    pub options: Options,
    /// The predecessor's result is not passed in.
    pub immutable: bool,
}

/// What a signature is.
#[derive(Debug, Clone)]
pub enum Form {
    /// A plain task; `subtask_type` is set for `xmap`, `xstarmap` and `chunks`, which run as plain tasks.
    Task {
        name: String,
        subtask_type: Option<String>,
    },
    /// Steps in the order of execution.
    Chain(Vec<Signature>),
    Group(Vec<Signature>),
    /// The header is a group signature, whose options hold the group's id.
    Chord {
        header: Box<Signature>,
        body: Box<Signature>,
    },
}

impl Signature {
    /// A plain call without options.
    pub fn task(name: impl Into<String>, args: Json, kwargs: Json) -> Self {
        Self {
            form: Form::Task { name: name.into(), subtask_type: None },
            args,
            kwargs,
            options: Options::default(),
            immutable: false,
        }
    }

    /// A wrapper with no arguments of its own.
    pub fn wrapper(form: Form, options: Options) -> Self {
        Self { form, args: json::written("[]".into()), kwargs: json::written("{}".into()), options, immutable: false }
    }

    /// Each plain task in it, at any depth: members, links, what follows.
    pub fn visit(&mut self, see: &mut dyn FnMut(&mut Self)) {
        match &mut self.form {
            Form::Task { .. } => see(self),
            Form::Chain(members) | Form::Group(members) => members.iter_mut().for_each(|member| member.visit(see)),
            Form::Chord { header, body } => {
                header.visit(see);
                body.visit(see);
            }
        }
        let options = &mut self.options;
        let lists = [Some(&mut options.link), Some(&mut options.link_error), options.chain.as_mut()];
        lists.into_iter().flatten().flatten().for_each(|signature| signature.visit(see));
        options.chord.iter_mut().for_each(|chord| chord.visit(see));
    }

    /// Celery's name of the task.
    pub fn name(&self) -> &str {
        match &self.form {
            Form::Task { name, .. } => name,
            Form::Chain(_) => "celery.chain",
            Form::Group(_) => "celery.group",
            Form::Chord { .. } => "celery.chord",
        }
    }

    /// # Errors
    /// When a required member is missing or of the wrong type, or the nesting is deeper than [`MAX_NESTING`].
    pub fn decode(value: &RawValue) -> Result<Self, DecodeError> {
        Self::decode_at(value, 0)
    }

    /// One signature or a list of them.
    ///
    /// # Errors
    /// As [`Signature::decode`].
    pub fn decode_list(value: &RawValue) -> Result<Vec<Self>, DecodeError> {
        Self::list_at(value, 0)
    }

    pub(super) fn list_at(value: &RawValue, depth: usize) -> Result<Vec<Self>, DecodeError> {
        match json::elements(value) {
            Some(elements) => elements.into_iter().map(|element| Self::decode_at(element, depth)).collect(),
            None => Ok(vec![Self::decode_at(value, depth)?]),
        }
    }

    pub(super) fn decode_at(value: &RawValue, depth: usize) -> Result<Self, DecodeError> {
        if depth > MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        let fields = Fields::parse(value.get()).map_err(|_| DecodeError::Signature("is not an object"))?;
        let name = fields.text("task").ok_or(DecodeError::Signature("has no task"))?;
        let args = fields.get("args").ok_or(DecodeError::Signature("has no args"))?;
        let options = fields.get("options").ok_or(DecodeError::Signature("has no options"))?;
        let kwargs = fields.get("kwargs").map_or("{}", RawValue::get);
        if !args.get().starts_with('[') || !kwargs.starts_with('{') {
            return Err(DecodeError::Signature("has args or kwargs of the wrong type"));
        }
        let (form, kwargs) = Form::decode(name, fields.text("subtask_type"), kwargs, depth)?;
        Ok(Self {
            form,
            args: args.to_owned(),
            kwargs,
            options: Options::decode(options, depth)?,
            immutable: fields.boolean("immutable").unwrap_or(false),
        })
    }

    /// Appends the signature as Celery writes it.
    pub fn encode(&self, out: &mut String) {
        out.push_str("{\"task\": ");
        json::push_string(out, self.name());
        out.push_str(", \"args\": ");
        out.push_str(self.args.get());
        out.push_str(", \"kwargs\": ");
        self.encode_kwargs(out);
        out.push_str(", \"options\": ");
        self.options.encode(out);
        out.push_str(", \"subtask_type\": ");
        json::push_optional(out, self.form.subtask_type());
        out.push_str(if self.immutable { ", \"immutable\": true}" } else { ", \"immutable\": false}" });
    }

    fn encode_kwargs(&self, out: &mut String) {
        match &self.form {
            Form::Task { .. } => out.push_str(self.kwargs.get()),
            Form::Chain(members) | Form::Group(members) => {
                out.push_str("{\"tasks\": ");
                encode_list(members, out);
                out.push('}');
            }
            Form::Chord { header, body } => {
                out.push_str("{\"kwargs\": ");
                out.push_str(self.kwargs.get());
                out.push_str(", \"header\": ");
                header.encode(out);
                out.push_str(", \"body\": ");
                body.encode(out);
                out.push('}');
            }
        }
    }
}

/// Appends a JSON array of signatures.
pub fn encode_list(signatures: &[Signature], out: &mut String) {
    out.push('[');
    for (index, signature) in signatures.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        signature.encode(out);
    }
    out.push(']');
}

impl Form {
    pub fn subtask_type(&self) -> Option<&str> {
        match self {
            Self::Task { subtask_type, .. } => subtask_type.as_deref(),
            Self::Chain(_) => Some("chain"),
            Self::Group(_) => Some("group"),
            Self::Chord { .. } => Some("chord"),
        }
    }

    /// The form, and the remaining keyword arguments.
    fn decode(
        name: String,
        subtask_type: Option<String>,
        kwargs: &str,
        depth: usize,
    ) -> Result<(Self, Json), DecodeError> {
        let members = || Fields::parse(kwargs).map_err(|_| DecodeError::Signature("has kwargs of the wrong type"));
        let member = |fields: &Fields<'_>, name| {
            let value = fields.get(name).ok_or(DecodeError::Signature("is a canvas without its members"))?;
            Ok::<_, DecodeError>(value.to_owned())
        };
        let empty = || json::written("{}".to_owned());
        Ok(match subtask_type.as_deref() {
            Some("chain") => (Self::Chain(Signature::list_at(&member(&members()?, "tasks")?, depth + 1)?), empty()),
            Some("group") => (Self::Group(Signature::list_at(&member(&members()?, "tasks")?, depth + 1)?), empty()),
            Some("chord") => {
                let fields = members()?;
                let header = Self::header(&member(&fields, "header")?, depth + 1)?;
                let body = Signature::decode_at(&member(&fields, "body")?, depth + 1)?;
                (
                    Self::Chord { header: Box::new(header), body: Box::new(body) },
                    fields.get("kwargs").map_or_else(empty, ToOwned::to_owned),
                )
            }
            _ => {
                let kwargs = json::verbatim(kwargs.to_owned())
                    .map_err(|_| DecodeError::Signature("has kwargs of the wrong type"))?;
                (Self::Task { name, subtask_type }, kwargs)
            }
        })
    }

    /// A chord's header: a group, or (from other writers) a plain list or a single task.
    fn header(value: &RawValue, depth: usize) -> Result<Signature, DecodeError> {
        if value.get().starts_with('[') {
            return Ok(Signature::wrapper(Self::Group(Signature::list_at(value, depth)?), Options::default()));
        }
        let header = Signature::decode_at(value, depth)?;
        Ok(match header.form {
            Self::Group(_) => header,
            _ => Signature::wrapper(Self::Group(vec![header]), Options::default()),
        })
    }
}
