//! The messages about an incident: JSON for a webhook, a sentence for a chat and a mail. Pure.

use serde_json::{Value, json};

use crate::tell::incidents::Incident;
use ledger::{FoundIncident, KeptIncident, Notice};

/// The most incidents that one message to people lists; the others are only counted.
const SHOWN: usize = 20;

/// An incident in the ledger's form, without its channels.
pub(super) fn found(incident: &Incident) -> FoundIncident {
    FoundIncident {
        id: incident.id(),
        kind: incident.kind.as_str().to_owned(),
        subject: incident.subject.clone(),
        since: incident.since,
        detail: incident.detail.clone(),
        channels: Vec::new(),
    }
}

/// The same id for every attempt.
pub(super) fn id(notice: &Notice) -> String {
    let state = if notice.is_end { "over" } else { "open" };
    format!("inc_{}_{}_{state}", notice.incident.found.id, notice.incident.no)
}

/// The body for a webhook: the envelope of Standard Webhooks, as for changes of tasks.
pub(super) fn document(notice: &Notice) -> String {
    let KeptIncident { found, ended_at, acknowledged_by, .. } = &notice.incident;
    let (kind, at) =
        if notice.is_end { ("incident.ended", *ended_at) } else { ("incident.opened", Some(notice.created_at)) };
    let data = json!({
        "id": found.id,
        "kind": found.kind,
        "subject": found.subject,
        "detail": found.detail,
        "since": found.since.rfc3339(),
        "ended_at": if notice.is_end { ended_at.map(|at| at.rfc3339()) } else { None },
        "acknowledged_by": acknowledged_by,
    });
    let envelope: Value = json!({"type": kind, "timestamp": at.map(|at| at.rfc3339()), "data": data});
    envelope.to_string()
}

/// For a chat that reads Slack's `text`.
pub(super) fn chat(notices: &[&Notice]) -> String {
    let line = |notice: &&Notice| {
        let FoundIncident { kind, subject, detail, .. } = &notice.incident.found;
        let sign = if notice.is_end { ":white_check_mark:" } else { ":rotating_light:" };
        format!("{sign} *{}* of `{}` {}", escaped(kind), escaped(subject), escaped(&state(notice, detail)))
    };
    json!({"text": together(notices, line, "\n")}).to_string()
}

/// Slack reads `<…>` as links and mentions.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'")
}

/// Subject and text of a mail.
pub(super) fn letter(notices: &[&Notice]) -> (String, String) {
    let line = |notice: &&Notice| {
        let FoundIncident { kind, subject, detail, since, .. } = &notice.incident.found;
        format!("{kind} of {subject} {}\nsince {}\n", state(notice, detail), since.rfc3339())
    };
    let first = notices[0];
    let word = if first.is_end { "is over" } else { "is open" };
    let more = if notices.len() > 1 { format!(" and {} more", notices.len() - 1) } else { String::new() };
    let subject = format!("taskgate: {} of {} {word}{more}", first.incident.found.kind, first.incident.found.subject);
    let subject = subject.chars().map(|char| if char.is_control() { ' ' } else { char }).take(200).collect();
    (subject, together(notices, line, "\n"))
}

fn state(notice: &Notice, detail: &str) -> String {
    if notice.is_end { format!("is over. It was: {detail}") } else { format!("is open: {detail}") }
}

fn together(notices: &[&Notice], line: impl Fn(&&Notice) -> String, between: &str) -> String {
    let mut lines: Vec<String> = notices.iter().take(SHOWN).map(line).collect();
    if notices.len() > SHOWN {
        lines.push(format!("and {} more: see /v1/incidents", notices.len() - SHOWN));
    }
    lines.join(between)
}

#[cfg(test)]
pub(super) fn sample(kind: &str, subject: &str) -> Notice {
    use runtime::clock::Time;
    let found = FoundIncident {
        id: "5f".to_owned(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        since: Time(0),
        detail: format!("3 messages wait in {subject}"),
        channels: vec!["ops".to_owned()],
    };
    let incident =
        KeptIncident { no: 7, found, ended_at: None, acknowledged_at: None, acknowledged_by: None, muted_until: None };
    Notice { no: 1, channel: "ops".to_owned(), is_end: false, created_at: Time(0), tries: 0, incident }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::clock::Time;

    #[test]
    fn a_webhook_is_told_what_began_and_what_is_over() {
        let mut notice = sample("no_consumer", "mail");
        let told: Value = serde_json::from_str(&document(&notice)).unwrap();
        assert_eq!((&told["type"], &told["data"]["ended_at"]), (&json!("incident.opened"), &Value::Null));
        (notice.is_end, notice.incident.ended_at) = (true, Some(Time(1_000_000)));
        let told: Value = serde_json::from_str(&document(&notice)).unwrap();
        assert_eq!((&told["type"], &told["data"]["subject"]), (&json!("incident.ended"), &json!("mail")));
        assert_eq!(told["data"]["ended_at"], "1970-01-01T00:00:01.000000Z");
    }

    #[test]
    fn a_name_mentions_nobody_in_a_chat_and_breaks_no_head_of_a_mail() {
        let notice = sample("no_consumer", "<!channel>\r\nBcc: x@y.z");
        assert!(!chat(&[&notice]).contains("<!channel>"));
        let (subject, _) = letter(&[&notice]);
        assert!(!subject.contains(['\r', '\n']), "{subject}");
    }

    #[test]
    fn a_storm_is_one_message_of_bounded_length() {
        let notice = sample("over_budget", "t");
        let many: Vec<&Notice> = std::iter::repeat_n(&notice, 300).collect();
        let (subject, text) = letter(&many);
        assert!(subject.ends_with("and 299 more") && text.contains("and 280 more"), "{text}");
    }
}
