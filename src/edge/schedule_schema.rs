//! Schemas of schedules: the parser is hand-written (`schedule::definition`), and so are these.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// A schedule in an answer. The view writes its JSON text; its schema is `Schedule` below.
pub struct ScheduleText;
/// A page of schedules; the same applies.
pub struct ScheduleList;

macro_rules! by_hand {
    ($($shape:ident is $name:literal)*) => {$(
        impl PartialSchema for $shape {
            /// Only a reference: [`schemas`] has the schema of this name.
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().into()
            }
        }
        impl ToSchema for $shape {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}

by_hand!(ScheduleText is "Schedule" ScheduleList is "ScheduleList");

/// Of ASCII only letters, digits and `_.-`; of what is beyond it no spaces. Written so that every engine of expressions knows it.
const NAME: &str = r"^[^\x00-,/:-@\[-\^`{-\x7f\s]+$";

/// `ScheduleDocument` (in requests), `Schedule` (in answers), `SchedulePatch`.
pub fn schemas() -> Map<String, Value> {
    let time =
        |description: &str| json!({"type": ["string", "null"], "format": "date-time", "description": description});
    let Value::Object(schemas) = json!({
        "ScheduleDocument": {
            "description": "A signature with its timetable: exactly one of `cron`, `every` and `at`. The members of a submission (`task` and its options, or `chain`, `group`, `chord`) are added to these.",
            "oneOf": [
                {"$ref": "#/components/schemas/CronSchedule"},
                {"$ref": "#/components/schemas/IntervalSchedule"},
                {"$ref": "#/components/schemas/OneTimeSchedule"},
            ],
            "examples": [{"name": "college-volunteer", "task": "tasks.add", "args": [2, 3], "cron": "0 */2 * * *", "timezone": "Asia/Seoul", "priority": 1}],
        },
        "CronSchedule": rhythm("cron"),
        "IntervalSchedule": rhythm("every"),
        "OneTimeSchedule": rhythm("at"),
        "SchedulePatch": {
            "description": "A JSON merge patch (RFC 7396): `null` removes a member. A different one of `cron`, `every` and `at` replaces the present one.",
            "type": "object",
            "properties": timetable(),
            "examples": [{"cron": "0 3 * * mon-fri", "paused": false}],
        },
        "Schedule": {
            "description": "The document as it was written, with its state.",
            "type": "object",
            "required": ["name", "timezone", "paused", "catch_up", "overlap", "next_run_at", "last_run_at"],
            "properties": answered(&time),
        },
        "ScheduleList": {"type": "object", "required": ["schedules", "next"], "properties": {
            "schedules": {"type": "array", "items": {"$ref": "#/components/schemas/Schedule"}},
            "next": {"type": ["string", "null"], "description": "The value for `cursor`"},
        }},
    }) else {
        unreachable!("written as an object above")
    };
    schemas
}

/// The schema of a document with one of `cron`, `every` and `at`.
fn rhythm(name: &str) -> Value {
    let mut members = timetable();
    members.retain(|member, _| member == name || !["cron", "every", "at"].contains(&member.as_str()));
    json!({"type": "object", "required": [name], "properties": members})
}

fn timetable() -> Map<String, Value> {
    let Value::Object(members) = json!({
        "name": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": NAME, "description": "Letters and digits of any script, `_`, `.` and `-`", "examples": ["college-volunteer", "공지-수집"]},
        "cron": {"type": "string", "description": "minute hour day_of_month month_of_year day_of_week, as Celery's crontab; or a name such as @hourly", "examples": ["0 */2 * * *"]},
        "every": {"type": "number", "minimum": 1, "maximum": 1e9, "description": "Seconds; the first tick comes one interval after the creation, or at `starts_at`"},
        "at": {"type": "string", "format": "date-time", "description": "Once"},
        "timezone": {"type": "string", "default": "UTC", "description": "IANA name", "examples": ["Asia/Seoul"]},
        "paused": {"type": "boolean", "default": false},
        "catch_up": {"type": "string", "enum": ["none", "last", "all"], "default": "last", "description": "What happens to ticks that passed while no gateway could fire them; `all` fires the newest 100"},
        "overlap": {"type": "string", "enum": ["allow", "skip", "replace"], "default": "allow", "description": "What happens when the task of an earlier tick has not ended; `replace` revokes it"},
        "jitter": {"type": "number", "minimum": 0, "maximum": 3600, "default": 0, "description": "Each tick fires up to this many seconds late"},
        "starts_at": {"type": "string", "format": "date-time"},
        "ends_at": {"type": "string", "format": "date-time"},
    }) else {
        unreachable!("written as an object above")
    };
    members
}

fn answered(time: &dyn Fn(&str) -> Value) -> Map<String, Value> {
    let mut members = timetable();
    let Value::Object(more) = json!({
        "next_run_at": time("The next tick; null while paused and after the last one"),
        "last_run_at": time("When it last fired"),
        "last_task_id": {"type": ["string", "null"]},
        "created_at": time("When it was written first"),
        "updated_at": time("When it was edited last"),
        "links": {"type": "object", "additionalProperties": {"type": "string"}},
    }) else {
        unreachable!("written as an object above")
    };
    members.extend(more);
    members
}
