//! A schedule's definition: a signature, a timetable, and what to do when a tick is late or an earlier task still runs.
//!
//! The document is stored as the client sent it; parsing reports every mistake with its place.

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::value::RawValue;

use super::cron::Cron;
use super::decide::CatchUp;
use super::timetable::{Rhythm, Timetable};
use celery::spelling::nearest;
use celery::task::invalid::Problems;
use celery::task::json::Fields;
use celery::task::signature::Limits;
use celery::task::{Invalid, Json, Signature, Submission, TaskId};
use runtime::clock::Time;

/// What happens at a tick when the task of an earlier tick has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    #[default]
    Allow,
    /// The tick does not fire.
    Skip,
    /// The earlier task is revoked (terminated if it runs), then the tick fires.
    Replace,
}

/// The members besides the signature's, without `name` and `paused`, which are stored beside the document.
pub const MEMBERS: [&str; 9] =
    ["cron", "every", "at", "timezone", "catch_up", "overlap", "jitter", "starts_at", "ends_at"];
const RHYTHMS: [&str; 3] = ["cron", "every", "at"];
/// Longest jitter, in seconds.
const MOST_JITTER: f64 = 3600.0;

#[derive(Debug)]
pub struct Definition {
    pub submission: Submission,
    pub timetable: Timetable,
    pub catch_up: CatchUp,
    pub overlap: Overlap,
    /// Each tick fires up to this many microseconds late; the delay is derived from the schedule and the tick.
    pub jitter: i64,
}

/// Checks a name: 1 to 100 letters and digits of any script, `_`, `.` and `-`.
///
/// # Errors
/// Says what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    if (1..=100).contains(&name.chars().count()) && name.chars().all(is_of_a_name) && name != "." && name != ".." {
        return Ok(());
    }
    Err("must have 1 to 100 characters: letters and digits of any script, _, . and -".to_owned())
}

/// Whether a name may contain the character. Combining marks count as letters; spaces, controls and direction marks are refused.
pub(crate) fn is_of_a_name(char: char) -> bool {
    let is_invisible =
        matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match char {
        '_' | '.' | '-' => true,
        char if char.is_ascii() => char.is_ascii_alphanumeric(),
        char => !char.is_whitespace() && !char.is_control() && !is_invisible,
    }
}

impl Definition {
    /// Parses a document of the signature's members and [`MEMBERS`].
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn parse(text: &str, limits: Limits) -> Result<Self, Vec<Invalid>> {
        let mut problems = Problems::default();
        let fields = match Fields::parse(text) {
            Ok(fields) => fields,
            Err(error) if error.is_data() => {
                problems.add("must be an object");
                return Err(problems.found);
            }
            Err(error) => {
                problems.add(format!("is not JSON: {error}"));
                return Err(problems.found);
            }
        };
        let timetable = timetable(&mut problems, &fields);
        let catch_up = word(&mut problems, &fields, "catch_up", &[CatchUp::None, CatchUp::Last, CatchUp::All]);
        let overlap = word(&mut problems, &fields, "overlap", &[Overlap::Allow, Overlap::Skip, Overlap::Replace]);
        let jitter = jitter(&mut problems, &fields);
        let signature = object(fields.iter().filter(|(name, _)| !MEMBERS.contains(name)));
        let submission = match Submission::parse(signature.get(), limits) {
            Ok(submission) => own_ids(&mut problems, submission),
            Err(found) => {
                problems.found.extend(found.into_iter().map(hinted));
                None
            }
        };
        match (submission, timetable) {
            (Some(submission), Some(timetable)) if problems.found.is_empty() => {
                Ok(Self { submission, timetable, catch_up, overlap, jitter })
            }
            _ => Err(problems.found),
        }
    }

    /// The submission of one tick. `id` goes to the task whose result is the result of the whole.
    pub fn submission_for(&self, id: TaskId) -> Submission {
        let mut submission = self.submission.clone();
        if let Some(task) = result_task(&mut submission.signature) {
            task.task_id = Some(id);
        }
        submission
    }
}

/// A JSON object with these members, verbatim.
pub fn object<'a>(members: impl Iterator<Item = (&'a str, &'a RawValue)>) -> Json {
    let mut text = String::from("{");
    for (name, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name).to_string());
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    RawValue::from_string(text).expect("members that were JSON make a JSON object")
}

/// The task that stands for the whole: the last of a chain, the body of a chord, the first of a group, the first end of a DAG.
fn result_task(signature: &mut Signature) -> Option<&mut celery::task::TaskSignature> {
    match signature {
        Signature::Task(task) => Some(task),
        Signature::Chain(steps) => result_task(steps.last_mut()?),
        Signature::Group(members) => result_task(members.first_mut()?),
        Signature::Chord { body, .. } => result_task(body),
        Signature::Dag(dag) => {
            let is_last = |node: &usize| !dag.nodes.iter().any(|other| other.after.contains(node));
            let last = (0..dag.nodes.len()).find(is_last)?;
            result_task(&mut dag.nodes.get_mut(last)?.signature)
        }
    }
}

fn own_ids(problems: &mut Problems, submission: Submission) -> Option<Submission> {
    let mut given = None;
    submission.signature.visit(&mut |task| given = given.take().or_else(|| task.task_id.clone()));
    if given.is_none() {
        return Some(submission);
    }
    problems.add_at("task_id", "is not for schedules: every tick gets an id of its own");
    None
}

fn hinted(invalid: Invalid) -> Invalid {
    let member = invalid.pointer.strip_prefix('/').filter(|member| !member.contains('/'));
    match member.and_then(|member| nearest(member, &MEMBERS)) {
        Some(near) if invalid.detail == "unknown field" => {
            Invalid { detail: format!("unknown field; did you mean {near}?"), ..invalid }
        }
        _ => invalid,
    }
}

fn timetable(problems: &mut Problems, fields: &Fields<'_>) -> Option<Timetable> {
    let (timezone, zone) = zone(problems, fields)?;
    let rhythm = rhythm(problems, fields);
    let starts_at = time(problems, fields, "starts_at");
    let ends_at = time(problems, fields, "ends_at");
    if let (Some(start), Some(end)) = (starts_at, ends_at)
        && end < start
    {
        problems.add_at("ends_at", "is before starts_at");
    }
    Some(Timetable { rhythm: rhythm?, timezone, zone, starts_at, ends_at })
}

fn rhythm(problems: &mut Problems, fields: &Fields<'_>) -> Option<Rhythm> {
    let said: Vec<&str> = RHYTHMS.into_iter().filter(|name| fields.get(name).is_some()).collect();
    let [name] = said[..] else {
        match said.as_slice() {
            [] => problems.add_at("cron", "is required (or one of every, at)"),
            [first, second, ..] => problems.add_at(second, format!("cannot stand together with {first}")),
            [_] => unreachable!("one was taken above"),
        }
        return None;
    };
    let value = fields.get(name)?;
    problems.within(name, |problems| match name {
        "cron" => problems.parsed(value, |text| Cron::parse(&text)).map(Rhythm::Cron),
        "every" => interval(problems, value),
        _ => problems.parsed(value, |text| instant(&text)).map(Rhythm::At),
    })
}

fn interval(problems: &mut Problems, value: &RawValue) -> Option<Rhythm> {
    let seconds = problems.number(value, 1.0)?;
    #[expect(clippy::cast_possible_truncation, reason = "at most a thousand million seconds")]
    Some(Rhythm::Every((seconds * 1e6).round() as i64))
}

fn zone(problems: &mut Problems, fields: &Fields<'_>) -> Option<(String, TimeZone)> {
    let Some(value) = fields.get("timezone") else { return Some(("UTC".to_owned(), TimeZone::UTC)) };
    problems.within("timezone", |problems| {
        let name = problems.text(value)?;
        match TimeZone::get(&name) {
            Ok(zone) => Some((zone.iana_name().unwrap_or(&name).to_owned(), zone)),
            Err(_) => {
                problems.add(format!("{name:?} is not an IANA time zone{}", near_zones(&name)));
                None
            }
        }
    })
}

/// Suggestions for an unknown zone: a misspelled name, or a city without its region.
fn near_zones(name: &str) -> String {
    let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
    let city = name.rsplit('/').next().unwrap_or(name).replace(' ', "_");
    let ends = |zone: &&String| zone.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&city));
    let mut near: Vec<&str> = nearest(name, &known).into_iter().collect();
    near.extend(known.iter().filter(ends).map(String::as_str).filter(|zone| zone.contains('/')).take(2));
    if near.is_empty() {
        let cities: Vec<&str> = known.iter().filter_map(|zone| zone.rsplit('/').next()).collect();
        let meant = nearest(&city, cities.iter().copied());
        near.extend(known.iter().map(String::as_str).filter(|zone| zone.rsplit('/').next() == meant).take(2));
    }
    near.dedup();
    if near.is_empty() {
        "; an example is Asia/Seoul".to_owned()
    } else {
        format!("; did you mean {}?", near.join(" or "))
    }
}

fn time(problems: &mut Problems, fields: &Fields<'_>, name: &str) -> Option<Time> {
    let value = fields.get(name)?;
    problems.within(name, |problems| problems.parsed(value, |text| instant(&text)))
}

fn instant(text: &str) -> Result<Time, String> {
    Time::parse_rfc3339(text).map_err(|_| "must be a time with its offset, as 2026-11-20T18:30:00Z".to_owned())
}

fn jitter(problems: &mut Problems, fields: &Fields<'_>) -> i64 {
    let Some(value) = fields.get("jitter") else { return 0 };
    let seconds = problems.within("jitter", |problems| {
        let seconds = problems.number(value, 0.0)?;
        if seconds > MOST_JITTER {
            problems.add(format!("must be at most {MOST_JITTER} seconds"));
        }
        Some(seconds)
    });
    #[expect(clippy::cast_possible_truncation, reason = "an hour at most, or refused")]
    let micros = (seconds.unwrap_or(0.0) * 1e6) as i64;
    micros
}

/// Parses one of a few words, each spelled as its variant serializes.
fn word<T: Copy + Default + Serialize>(problems: &mut Problems, fields: &Fields<'_>, name: &str, all: &[T]) -> T {
    let Some(value) = fields.get(name) else { return T::default() };
    let words: Vec<String> = all.iter().map(|word| serde_json::to_string(word).expect("a word")).collect();
    if let Some(index) = words.iter().position(|word| word == value.get()) {
        return all[index];
    }
    problems.add_at(name, format!("must be one of {}", words.join(", ")));
    T::default()
}
