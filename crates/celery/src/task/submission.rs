//! A submission: a signature, and the options that only the top level may have.

use serde::Serialize;
use serde_json::value::RawValue;

use super::TaskId;
use super::invalid::{Invalid, Problems};
use super::json::Fields;
use super::limit::{self, required_key};
pub use super::limit::{Fair, KeyLimit, OnLimit, Rate};
use super::reader::{Reader, labels};
use super::signature::{FORMS, Limits, Signature, TaskSignature};
use super::webhook::{self, Webhook};

/// A signature with the options of the whole submission.
#[derive(Debug, Clone)]
pub struct Submission {
    pub signature: Signature,
    /// Join an equal submission instead of running the task twice.
    pub unique: Option<Unique>,
    /// How many tasks that share a key may be under way, and how many may start in which time.
    pub limits: Vec<KeyLimit>,
    /// The tenant of the tasks, for fair sharing of a queue.
    pub fair: Option<Fair>,
    pub webhooks: Vec<Webhook>,
    /// For a canvas: labels of all its tasks. A single task has its own.
    pub labels: Vec<(String, String)>,
    /// Whether the document is only the content of a composition (`POST /chain`), so that JSON pointers into it are shorter.
    pub bare: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unique {
    pub key: String,
    #[serde(rename = "while")]
    pub until: UniqueWhile,
    #[serde(skip_serializing_if = "OnConflict::is_join")]
    pub on_conflict: OnConflict,
}

/// What happens to a submission whose key is held by another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// It is answered with the other submission.
    #[default]
    Join,
    /// It is refused.
    Reject,
    /// The other submission is revoked, then this one starts.
    Replace,
}

impl OnConflict {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_join(&self) -> bool {
        *self == Self::Join
    }
}

/// How long a key is held. Default: while the task is active.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UniqueWhile {
    /// Until the task is finished.
    Active,
    /// Seconds from the submission.
    Seconds(f64),
}

const EXTRAS: [&str; 5] = ["unique", "limits", "on_limit", "fair", "webhooks"];
const CANVAS_EXTRAS: [&str; 6] = ["unique", "limits", "on_limit", "fair", "webhooks", "labels"];

impl Submission {
    /// A submission with only a signature.
    pub fn of(signature: Signature) -> Self {
        Self {
            signature,
            unique: None,
            limits: Vec::new(),
            fair: None,
            webhooks: Vec::new(),
            labels: Vec::new(),
            bare: false,
        }
    }

    /// Reads `POST /v1/tasks`: any signature.
    ///
    /// # Errors
    /// All mistakes of the document, each with its place.
    pub fn parse(text: &str, limits: Limits) -> Result<Self, Vec<Invalid>> {
        read(text, limits, |reader, fields| {
            let canvas = FORMS.iter().any(|form| fields.get(form).is_some());
            reader.fields(fields, if canvas { &CANVAS_EXTRAS } else { &EXTRAS }, 0)
        })
    }

    /// Reads `POST /chain`: `{tasks: […]}`.
    ///
    /// # Errors
    /// As [`Submission::parse`].
    pub fn parse_chain(text: &str, limits: Limits) -> Result<Self, Vec<Invalid>> {
        bare(read(text, limits, |reader, fields| tasks(reader, fields, |reader, value| reader.chain(value, 0))))
    }

    /// Reads `POST /group`: `{tasks: […]}`.
    ///
    /// # Errors
    /// As [`Submission::parse`].
    pub fn parse_group(text: &str, limits: Limits) -> Result<Self, Vec<Invalid>> {
        bare(read(text, limits, |reader, fields| {
            tasks(reader, fields, |reader, value| reader.list(value, 0).map(Signature::Group))
        }))
    }

    /// Reads `POST /chord`: `{header: […], body: …}`.
    ///
    /// # Errors
    /// As [`Submission::parse`].
    pub fn parse_chord(text: &str, limits: Limits) -> Result<Self, Vec<Invalid>> {
        bare(read(text, limits, |reader, fields| {
            reader.problems.refuse_unknown(fields, &[&["header", "body"][..], &CANVAS_EXTRAS].concat());
            reader.chord(fields, 0)
        }))
    }

    /// Tasks of a canvas that have a retry policy, with its place in the document. Empty for a single task.
    pub fn retries_in_canvas(&self) -> Vec<(String, &TaskSignature)> {
        match &self.signature {
            Signature::Task(task) if task.link.is_empty() && task.link_error.is_empty() => Vec::new(),
            _ => self.places("retry", |task| task.retry.is_some()),
        }
    }

    /// The ids that the caller chose, with their places in the document.
    pub fn given_ids(&self) -> Vec<(String, TaskId)> {
        let found = self.places("task_id", |task| task.task_id.is_some());
        found.into_iter().filter_map(|(pointer, task)| Some((pointer, task.task_id.clone()?))).collect()
    }

    /// Pointers to the field in those tasks that have it. Costs nothing if no task has it.
    fn places(&self, field: &str, has: fn(&TaskSignature) -> bool) -> Vec<(String, &TaskSignature)> {
        let mut any = false;
        self.signature.visit(&mut |task| any |= has(task));
        let mut found = Vec::new();
        let mut note = |at: &str, task| {
            if has(task) {
                found.push((format!("{at}/{field}"), task));
            }
        };
        match &self.signature {
            _ if !any => {}
            Signature::Chain(members) | Signature::Group(members) if self.bare => each(members, "/tasks", &mut note),
            Signature::Chord { header, body } if self.bare => {
                each(header, "/header", &mut note);
                walk(body, "/body", &mut note);
            }
            whole => walk(whole, "", &mut note),
        }
        found
    }
}

fn bare(read: Result<Submission, Vec<Invalid>>) -> Result<Submission, Vec<Invalid>> {
    read.map(|submission| Submission { bare: true, ..submission })
}

/// Every task with its place.
pub fn walk<'a>(signature: &'a Signature, at: &str, visit: &mut dyn FnMut(&str, &'a TaskSignature)) {
    match signature {
        Signature::Task(task) => {
            visit(at, task);
            each(&task.link, &format!("{at}/link"), visit);
            each(&task.link_error, &format!("{at}/link_error"), visit);
        }
        Signature::Chain(members) => each(members, &format!("{at}/chain"), visit),
        Signature::Group(members) => each(members, &format!("{at}/group"), visit),
        Signature::Chord { header, body } => {
            each(header, &format!("{at}/chord/header"), visit);
            walk(body, &format!("{at}/chord/body"), visit);
        }
        Signature::Dag(dag) => {
            for node in &dag.nodes {
                walk(&node.signature, &format!("{at}/dag/nodes/{}", node.name), visit);
            }
        }
    }
}

fn each<'a>(members: &'a [Signature], at: &str, visit: &mut dyn FnMut(&str, &'a TaskSignature)) {
    for (index, member) in members.iter().enumerate() {
        walk(member, &format!("{at}/{index}"), visit);
    }
}

type ReadForm = fn(&mut Reader, &RawValue) -> Option<Signature>;

fn tasks(reader: &mut Reader, fields: &Fields<'_>, read: ReadForm) -> Option<Signature> {
    reader.problems.refuse_unknown(fields, &[&["tasks"][..], &CANVAS_EXTRAS].concat());
    let Some(value) = fields.get("tasks") else {
        reader.problems.add_at("tasks", "is required");
        return None;
    };
    let place = reader.problems.enter("tasks");
    let signature = read(reader, value);
    reader.problems.leave(place);
    signature
}

fn read(
    text: &str,
    limits: Limits,
    form: impl FnOnce(&mut Reader, &Fields<'_>) -> Option<Signature>,
) -> Result<Submission, Vec<Invalid>> {
    let mut reader = Reader::new(limits);
    let submission = document(&mut reader, text).and_then(|fields| {
        let signature = form(&mut reader, &fields);
        let problems = &mut reader.problems;
        let labels = match signature {
            Some(Signature::Task(_)) => Vec::new(),
            _ => member(problems, &fields, "labels", labels).unwrap_or_default(),
        };
        let usual = limit::on_limit(problems, &fields).unwrap_or_default();
        let key_limits = |problems: &mut Problems, value: &RawValue| limit::key_limits(problems, value, usual);
        Some(Submission {
            unique: member(problems, &fields, "unique", unique),
            limits: member(problems, &fields, "limits", key_limits).unwrap_or_default(),
            fair: member(problems, &fields, "fair", limit::fair),
            webhooks: member(problems, &fields, "webhooks", webhooks).unwrap_or_default(),
            labels,
            bare: false,
            signature: signature?,
        })
    });
    match submission {
        Some(submission) if reader.problems.found.is_empty() => Ok(submission),
        _ => Err(reader.problems.found),
    }
}

fn document<'a>(reader: &mut Reader, text: &'a str) -> Option<Fields<'a>> {
    Fields::parse(text)
        .map_err(|error| {
            let detail = if error.is_data() { "must be an object".to_owned() } else { format!("is not JSON: {error}") };
            reader.problems.add(detail);
        })
        .ok()
}

pub fn member<T>(
    problems: &mut Problems,
    fields: &Fields<'_>,
    name: &str,
    read: impl FnOnce(&mut Problems, &RawValue) -> Option<T>,
) -> Option<T> {
    let value = fields.get(name)?;
    problems.within(name, |problems| read(problems, value))
}

/// Reads `{key, while, on_conflict}`.
pub fn unique(problems: &mut Problems, value: &RawValue) -> Option<Unique> {
    let fields = problems.object(value)?;
    problems.refuse_unknown(&fields, &["key", "while", "on_conflict"]);
    let key = required_key(problems, &fields);
    let until = member(problems, &fields, "while", |problems, value| match value.get() {
        "\"active\"" => Some(UniqueWhile::Active),
        text if text.starts_with('"') => {
            problems.add("must be \"active\" or a number of seconds");
            None
        }
        _ => problems.positive(value).map(UniqueWhile::Seconds),
    });
    let on_conflict = member(problems, &fields, "on_conflict", |problems, value| match value.get() {
        "\"join\"" => Some(OnConflict::Join),
        "\"reject\"" => Some(OnConflict::Reject),
        "\"replace\"" => Some(OnConflict::Replace),
        _ => {
            problems.add("must be \"join\", \"reject\" or \"replace\"");
            None
        }
    });
    Some(Unique {
        key: key?,
        until: until.unwrap_or(UniqueWhile::Active),
        on_conflict: on_conflict.unwrap_or_default(),
    })
}

fn webhooks(problems: &mut Problems, value: &RawValue) -> Option<Vec<Webhook>> {
    list(problems, value, 16, |problems, value| {
        let fields = problems.object(value)?;
        problems.refuse_unknown(&fields, &["url", "on"]);
        if fields.get("url").is_none() {
            problems.add_at("url", "is required");
        }
        let url = member(problems, &fields, "url", |problems, value| problems.parsed(value, webhook::check_url));
        let on = member(problems, &fields, "on", words);
        Some(Webhook { url: url?, on: on.unwrap_or_else(webhook::usual) })
    })
}

/// Reads a list of texts.
pub fn words(problems: &mut Problems, value: &RawValue) -> Option<Vec<String>> {
    list(problems, value, 32, |problems, value| problems.parsed(value, webhook::check_word))
}

pub fn list<T>(
    problems: &mut Problems,
    value: &RawValue,
    most: usize,
    read: impl Fn(&mut Problems, &RawValue) -> Option<T>,
) -> Option<Vec<T>> {
    let elements = problems.array(value)?;
    if elements.len() > most {
        problems.add(format!("has more than {most} elements"));
        return None;
    }
    let read =
        |(index, element): (usize, &RawValue)| problems.within(&index.to_string(), |problems| read(problems, element));
    Some(elements.into_iter().enumerate().filter_map(read).collect())
}

impl Serialize for UniqueWhile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Active => serializer.serialize_str("active"),
            Self::Seconds(seconds) => serializer.serialize_f64(*seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Submission, Vec<(String, String)>> {
        let told = |invalid: Invalid| (invalid.pointer, invalid.detail);
        Submission::parse(text, Limits::default()).map_err(|found| found.into_iter().map(told).collect())
    }

    #[test]
    fn the_top_level_has_wishes_of_its_own() {
        let text = r#"{"task": "a", "unique": {"key": "k", "while": 60}, "limits": [{"key": "host", "max": 2}],
            "webhooks": [{"url": "https://example.org/hook"}, {"url": "http://h/", "on": ["retry"]}], "labels": {"a": "b"},
            "fair": {"key": "tenant", "weight": 2}}"#;
        let submission = parse(text).unwrap();
        let unique = submission.unique.unwrap();
        assert_eq!((unique.key.as_str(), unique.until), ("k", UniqueWhile::Seconds(60.0)));
        assert_eq!(unique.on_conflict, OnConflict::Join);
        assert_eq!(submission.limits, [KeyLimit::at_most("host", 2)]);
        assert_eq!(submission.fair, Some(Fair { key: "tenant".to_owned(), weight: 2 }));
        assert_eq!(submission.webhooks[0].on, ["success", "failure"]);
        let Signature::Task(task) = submission.signature else { panic!("a task") };
        assert_eq!(task.labels, [("a".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn a_limit_has_a_max_or_a_rate_and_says_what_becomes_of_the_others() {
        let text = r#"{"task": "a", "on_limit": "reject", "limits": [{"key": "a", "rate": "1/m"}, {"key": "b", "max": 1, "on_limit": "hold"}]}"#;
        let limits = parse(text).unwrap().limits;
        assert_eq!(limits.iter().map(|limit| limit.on_limit).collect::<Vec<_>>(), [OnLimit::Reject, OnLimit::Hold]);
        let found = parse(
            r#"{"task": "a", "on_limit": "wait", "limits": [{"key": "a"}, {"key": "b", "rate": "fast"}], "fair": {"weight": 0}}"#,
        );
        let pointers: Vec<_> = found.unwrap_err().into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers, ["/on_limit", "/limits/0/max", "/limits/1/rate", "/fair/key", "/fair/weight"]);
    }

    #[test]
    fn below_the_top_they_are_unknown() {
        let found = parse(r#"{"chain": [{"task": "a", "unique": {"key": "k"}}], "labels": {"x": "y"}}"#).unwrap_err();
        assert_eq!(found, [("/chain/0/unique".to_owned(), "unknown field".to_owned())]);
    }

    #[test]
    fn every_mistake_of_the_top_level_is_named() {
        let text = r#"{"group": [], "unique": {"while": "ever", "on_conflict": "fight"}, "limits": [{"key": "", "max": 0}, {}], "webhooks": [{"url": "ftp://x"}], "color": 1}"#;
        let pointers: Vec<_> = parse(text).unwrap_err().into_iter().map(|(pointer, _)| pointer).collect();
        let expected = [
            "/color",
            "/unique/key",
            "/unique/while",
            "/unique/on_conflict",
            "/limits/0/key",
            "/limits/0/max",
            "/limits/1/key",
            "/limits/1/max",
            "/webhooks/0/url",
        ];
        assert_eq!(pointers, expected);
    }

    #[test]
    fn the_three_canvas_endpoints_have_forms_of_their_own() {
        let limits = Limits::default();
        let chain =
            Submission::parse_chain(r#"{"tasks": [{"task": "a"}, {"task": "b"}], "labels": {"x": "y"}}"#, limits)
                .unwrap();
        assert!(matches!(chain.signature, Signature::Chain(steps) if steps.len() == 2));
        assert_eq!(chain.labels.len(), 1);
        assert!(matches!(Submission::parse_group(r#"{"tasks": []}"#, limits).unwrap().signature, Signature::Group(_)));
        let chord = Submission::parse_chord(r#"{"header": [{"task": "a"}], "body": {"task": "b"}}"#, limits).unwrap();
        assert!(matches!(chord.signature, Signature::Chord { .. }));
        assert_eq!(
            Submission::parse_chain(r#"{"tasks": []}"#, limits).unwrap_err()[0].detail,
            "must have at least one step"
        );
        assert_eq!(Submission::parse_group("{}", limits).unwrap_err()[0].pointer, "/tasks");
        assert_eq!(Submission::parse_chord(r#"{"header": 1, "bdy": 2}"#, limits).unwrap_err().len(), 3);
    }

    #[test]
    fn what_is_no_object_is_one_mistake() {
        assert_eq!(parse("[1]").unwrap_err(), [(String::new(), "must be an object".to_owned())]);
        assert!(parse("{").unwrap_err()[0].1.starts_with("is not JSON"));
    }
}
