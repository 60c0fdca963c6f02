//! The binary encoding of events in rows that hold several of them: a task's history, and rows of the feed.
//!
//! An event is (seq, delivery, retries, phase, flags, time, texts), big-endian and self-delimiting; in the feed its task's number comes
//! first. The database can write the same encoding: it knows `seq`, `delivery` and `retries`, and appends a [`head`] built here and
//! the time. Pure; unreadable bytes mean that the row is corrupt, which the caller reports.

use celery::task::{Json, Phase};
use runtime::clock::Time;

use crate::rows::json;
use crate::types::Event;

/// An event without its task.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub seq: i64,
    pub delivery: i32,
    pub retries: i32,
    pub phase: Phase,
    pub corrected: bool,
    pub at: Time,
    pub status: String,
    pub worker: Option<String>,
    pub reason: Option<String>,
    pub meta: Option<Json>,
}

/// The bytes are not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// An event's phase is stored as its index here, so new phases go to the end.
const PHASES: [&str; 14] = [
    "accepted",
    "held",
    "waiting",
    "queued",
    "received",
    "running",
    "retrying",
    "succeeded",
    "failed",
    "revoked",
    "expired",
    "skipped",
    "lost",
    "ignored",
];

const CORRECTED: u8 = 1;
const STATUS: u8 = 2;
const WORKER: u8 = 4;
const REASON: u8 = 8;
const META: u8 = 16;
/// In the feed: the worker is the same as in the previous event of the row.
const SAME_WORKER: u8 = 32;

/// Writes an event of a task's history.
pub(crate) fn write(out: &mut Vec<u8>, event: &Event) {
    write_after(out, event, None);
}

/// Writes an event of the feed, after an event of `worker` in the same row.
pub(crate) fn write_told(out: &mut Vec<u8>, event: &Event, worker: Option<&str>) {
    out.extend_from_slice(&event.task_no.to_be_bytes());
    write_after(out, event, worker);
}

fn write_after(out: &mut Vec<u8>, event: &Event, worker: Option<&str>) {
    out.extend_from_slice(&i32::try_from(event.seq).unwrap_or(i32::MAX).to_be_bytes());
    out.extend_from_slice(&short(event.delivery).to_be_bytes());
    out.extend_from_slice(&short(event.retries).to_be_bytes());
    write_body(out, event, worker);
}

/// Writes an event that was derived from a row's columns.
pub(crate) fn write_derived(out: &mut Vec<u8>, told: &Told) {
    out.extend_from_slice(&i32::try_from(told.seq).unwrap_or(i32::MAX).to_be_bytes());
    out.extend_from_slice(&short(told.delivery).to_be_bytes());
    out.extend_from_slice(&short(told.retries).to_be_bytes());
    out.extend_from_slice(&[code(told.phase), if told.worker.is_some() { WORKER } else { 0 }]);
    out.extend_from_slice(&told.at.0.to_be_bytes());
    if let Some(worker) = &told.worker {
        write_length(out, worker.len());
        out.extend_from_slice(worker.as_bytes());
    }
}

fn short(count: i32) -> i16 {
    i16::try_from(count).unwrap_or(i16::MAX)
}

/// The bytes after `seq`, `delivery` and `retries` of an event with only a phase; its time follows them.
pub(crate) fn head(phase: Phase) -> Vec<u8> {
    vec![code(phase), 0]
}

/// A task's first event in the feed, without the task's number.
pub(crate) fn first(phase: Phase, at: Time) -> Vec<u8> {
    let mut out = Vec::with_capacity(18);
    write_bare(&mut out, 1, phase, at);
    out
}

/// A task's second event in the feed, with only a phase.
pub(crate) fn write_second(out: &mut Vec<u8>, task_no: i64, phase: Phase, at: Time) {
    out.extend_from_slice(&task_no.to_be_bytes());
    write_bare(out, 2, phase, at);
}

/// An event of a first delivery with only a phase.
fn write_bare(out: &mut Vec<u8>, seq: i32, phase: Phase, at: Time) {
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&1i16.to_be_bytes());
    out.extend_from_slice(&0i16.to_be_bytes());
    out.extend_from_slice(&head(phase));
    out.extend_from_slice(&at.0.to_be_bytes());
}

fn write_body(out: &mut Vec<u8>, event: &Event, before: Option<&str>) {
    let is_same = before.is_some() && event.worker.as_deref() == before;
    let status = Some(event.status.as_str()).filter(|status| *status != event.phase.status());
    let texts = [
        (STATUS, status),
        (WORKER, event.worker.as_deref().filter(|_| !is_same)),
        (REASON, event.reason.as_deref()),
        (META, event.meta.as_deref().map(serde_json::value::RawValue::get)),
    ];
    let corrected = if event.corrected { CORRECTED } else { 0 } | if is_same { SAME_WORKER } else { 0 };
    out.push(code(event.phase));
    out.push(texts.iter().filter(|(_, text)| text.is_some()).fold(corrected, |flags, (flag, _)| flags | flag));
    out.extend_from_slice(&event.at.0.to_be_bytes());
    for text in texts.iter().filter_map(|(_, text)| *text) {
        write_length(out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

fn code(phase: Phase) -> u8 {
    let place = PHASES.iter().position(|name| *name == phase.as_str());
    u8::try_from(place.expect("every phase has a place: a test asks for each")).unwrap_or(u8::MAX)
}

/// Writes a length with seven bits per byte, the lowest first; the highest bit means that more bytes follow.
fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Reads the next event of a history.
pub(crate) fn read(bytes: &mut &[u8]) -> Result<Told, Unreadable> {
    read_after(bytes, &mut None)
}

fn read_after(bytes: &mut &[u8], before: &mut Option<String>) -> Result<Told, Unreadable> {
    let seq = i64::from(i32::from_be_bytes(take(bytes)?));
    let (delivery, retries) = (i16::from_be_bytes(take(bytes)?), i16::from_be_bytes(take(bytes)?));
    let [place, flags] = take(bytes)?;
    let phase: Phase = PHASES.get(usize::from(place)).and_then(|name| name.parse().ok()).ok_or(Unreadable)?;
    let at = Time(i64::from_be_bytes(take(bytes)?));
    let mut text = |flag| if flags & flag == 0 { Ok(None) } else { read_text(bytes).map(Some) };
    let (status, worker, reason, meta) = (text(STATUS)?, text(WORKER)?, text(REASON)?, text(META)?);
    let worker = if flags & SAME_WORKER == 0 { worker } else { before.clone() };
    before.clone_from(&worker);
    Ok(Told {
        seq,
        delivery: delivery.into(),
        retries: retries.into(),
        phase,
        corrected: flags & CORRECTED != 0,
        at,
        status: status.unwrap_or_else(|| phase.status().to_owned()),
        worker,
        reason,
        meta: json(meta).map_err(|_| Unreadable)?,
    })
}

/// Reads the next event of a row of the feed, with its task's number. `before` is the previous event's worker, and becomes this one's.
pub(crate) fn read_told(bytes: &mut &[u8], before: &mut Option<String>) -> Result<(i64, Told), Unreadable> {
    let task_no = i64::from_be_bytes(take(bytes)?);
    Ok((task_no, read_after(bytes, before)?))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Unreadable> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Unreadable)?;
    *bytes = rest;
    Ok(*taken)
}

fn read_text(bytes: &mut &[u8]) -> Result<String, Unreadable> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let [byte] = take(bytes)?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 28 {
            return Err(Unreadable);
        }
    }
    let (text, rest) = bytes.split_at_checked(length).ok_or(Unreadable)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::sample_task;

    fn event(phase: Phase) -> Event {
        let task = sample_task("t", phase, Time(0));
        Event { task_no: 7 << 40, seq: 3, delivery: 2, retries: 1, ..Event::of(&task, Time(1_763_662_650_698_350)) }
    }

    #[test]
    fn every_phase_has_a_place() {
        for phase in Phase::ALL {
            let mut bytes = Vec::new();
            write_told(&mut bytes, &event(phase), None);
            let (task_no, told) = read_told(&mut &bytes[..], &mut None).unwrap();
            assert_eq!((task_no, told.phase, told.status.as_str()), (7 << 40, phase, phase.status()));
            assert_eq!((told.seq, told.delivery, told.retries, told.at.0), (3, 2, 1, 1_763_662_650_698_350));
        }
    }

    #[test]
    fn a_second_event_is_written_like_any_other() {
        let queued = Event { seq: 2, delivery: 1, retries: 0, ..event(Phase::Queued) };
        let (mut bare, mut whole) = (Vec::new(), Vec::new());
        write_second(&mut bare, queued.task_no, Phase::Queued, queued.at);
        write_told(&mut whole, &queued, None);
        assert_eq!(bare, whole);
    }

    #[test]
    fn texts_read_back_one_event_after_the_other() {
        let long = "x".repeat(300);
        let first = Event {
            status: "PROGRESS".to_owned(),
            worker: Some("celery@host".to_owned()),
            reason: Some(long.clone()),
            meta: crate::rows::json(Some(r#"{"n": 1}"#.to_owned())).unwrap(),
            corrected: true,
            ..event(Phase::Running)
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &first);
        write(&mut bytes, &event(Phase::Succeeded));
        let mut rest = &bytes[..];
        let told = read(&mut rest).unwrap();
        assert_eq!((told.status.as_str(), told.worker.as_deref()), ("PROGRESS", Some("celery@host")));
        assert_eq!(
            (told.reason, told.meta.map(|meta| meta.get().to_owned())),
            (Some(long), Some(r#"{"n": 1}"#.to_owned()))
        );
        assert!(told.corrected);
        assert_eq!(read(&mut rest).unwrap().phase, Phase::Succeeded);
        assert!(rest.is_empty());
    }

    #[test]
    fn what_the_database_puts_together_is_an_event() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&2i32.to_be_bytes());
        bytes.extend_from_slice(&1i16.to_be_bytes());
        bytes.extend_from_slice(&0i16.to_be_bytes());
        bytes.extend_from_slice(&head(Phase::Queued));
        bytes.extend_from_slice(&5i64.to_be_bytes());
        let told = read(&mut &bytes[..]).unwrap();
        assert_eq!((told.seq, told.phase, told.at, told.worker), (2, Phase::Queued, Time(5), None));
    }

    #[test]
    fn a_worker_that_says_much_is_named_once_in_a_row_of_the_feed() {
        let said = |worker: Option<&str>| Event { worker: worker.map(str::to_owned), ..event(Phase::Running) };
        let events = [said(Some("a")), said(Some("a")), said(None), said(Some("a")), said(Some("b"))];
        let (mut bytes, mut before) = (Vec::new(), None);
        for event in &events {
            write_told(&mut bytes, event, before);
            before = event.worker.as_deref();
        }
        let (mut rest, mut before) = (&bytes[..], None);
        for event in &events {
            assert_eq!(read_told(&mut rest, &mut before).unwrap().1.worker, event.worker);
        }
        assert!(rest.is_empty() && bytes.len() == 5 * 26 + 3 * 2);
    }

    #[test]
    fn a_cut_event_is_unreadable() {
        let mut bytes = Vec::new();
        write(&mut bytes, &Event { worker: Some("w".to_owned()), ..event(Phase::Running) });
        for length in 0..bytes.len() {
            assert_eq!(read(&mut &bytes[..length]).err(), Some(Unreadable), "{length}");
        }
    }
}
