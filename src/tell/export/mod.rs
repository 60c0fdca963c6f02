//! Exports the history for analytics: writes events and outcomes of tasks from the feed into a Parquet file.
//!
//! A row is an event. The row of a task's end also has its outcome, so a single file has both. The rows are in the feed's order; the
//! last position is in the file's metadata (`taskgate.position`), where the next export continues. The file gets its name when it is
//! complete: an export that was killed leaves `FILE.part` and must be repeated.

mod columns;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedFileWriter;

use celery::task::{Json, TaskId};
use ledger::{Event, Filter, SharedLedger, Task};
use runtime::clock::Time;

/// Events in one read of the feed.
const PAGE: i64 = 1_000;
/// Rows that are buffered before they are written as a row group,
const GROUP: usize = 20_000;
/// and bytes of their texts: results may be large.
const GROUP_BYTES: usize = 32 << 20;

/// Where an export begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// After this position of the feed.
    Position(i64),
    /// At the first event at or after this time.
    Time(Time),
}

/// The result of an export.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub events: usize,
    pub ended: usize,
    /// Where the next export continues.
    pub position: i64,
}

/// An event, with the task if this event was its end.
pub(crate) struct Row {
    pub event: Event,
    pub end: Option<Task>,
}

impl Row {
    /// Of its large texts.
    fn bytes(&self) -> usize {
        let json = |text: &Option<Json>| text.as_ref().map_or(0, |text| text.get().len());
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let end = |task: &Task| {
            let failure = task.failure.as_ref().map_or(0, |failure| failure.message.len());
            json(&task.result) + text(&task.traceback) + text(&task.argsrepr) + text(&task.kwargsrepr) + failure
        };
        json(&self.event.meta) + self.end.as_ref().map_or(0, end)
    }
}

/// Exports the feed after `since`, up to its present end.
///
/// # Errors
/// When the ledger does not answer, or the file cannot be written.
pub async fn export(ledger: &SharedLedger, since: Since, to: &Path) -> anyhow::Result<Written> {
    let mut sink = Sink::create(to)?;
    let end = ledger.feed_end().await?;
    let (after, from) = match since {
        Since::Position(position) => (position, Time(i64::MIN)),
        Since::Time(time) => (0, time),
    };
    let mut written = Written { position: after, ..Written::default() };
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while written.position < end {
        let (events, position) = ledger.feed(written.position, &Filter::default(), PAGE).await?;
        if position == written.position {
            break;
        }
        written.position = position;
        let events = events.into_iter().filter(|event| event.at >= from).collect();
        let more = with_ends(ledger, events).await?;
        bytes += more.iter().map(Row::bytes).sum::<usize>();
        rows.extend(more);
        if rows.len() >= GROUP || bytes >= GROUP_BYTES {
            sink.write(std::mem::take(&mut rows), &mut written)?;
            bytes = 0;
        }
    }
    sink.write(rows, &mut written)?;
    sink.finish(written.position)?;
    Ok(written)
}

/// Adds the tasks to end events. If an end was corrected later, the outcome is with the correcting event.
async fn with_ends(ledger: &SharedLedger, events: Vec<Event>) -> anyhow::Result<Vec<Row>> {
    let ends = events.iter().filter(|event| event.phase.is_final());
    let ids: Vec<TaskId> = ends.map(|event| event.task_id.clone()).collect();
    let tasks = if ids.is_empty() { Vec::new() } else { ledger.tasks_by_id(&ids).await? };
    let mut ended: HashMap<(TaskId, i64), Task> =
        tasks.into_iter().map(|task| ((task.id.clone(), task.seq), task)).collect();
    let row = |event: Event| {
        let end = ended.remove(&(event.task_id.clone(), event.seq)).filter(|task| task.phase.is_final());
        Row { event, end }
    };
    Ok(events.into_iter().map(row).collect())
}

/// The file while it is being written.
struct Sink {
    writer: SerializedFileWriter<File>,
    part: PathBuf,
    to: PathBuf,
}

impl Sink {
    fn create(to: &Path) -> anyhow::Result<Self> {
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).with_context(|| format!("{} cannot be written", part.display()))?;
        let writer = SerializedFileWriter::new(file, columns::schema()?, columns::properties())?;
        Ok(Self { writer, part, to: to.to_owned() })
    }

    fn write(&mut self, rows: Vec<Row>, written: &mut Written) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        written.events += rows.len();
        written.ended += rows.iter().filter(|row| row.end.is_some()).count();
        let mut group = self.writer.next_row_group()?;
        columns::write(&mut group, &rows)?;
        group.close()?;
        Ok(())
    }

    fn finish(mut self, position: i64) -> anyhow::Result<()> {
        let metadata = KeyValue::new("taskgate.position".to_owned(), position.to_string());
        self.writer.append_key_value_metadata(metadata);
        let file = self.writer.into_inner()?;
        file.sync_all()?;
        std::fs::rename(&self.part, &self.to).with_context(|| format!("{} cannot be written", self.to.display()))
    }
}
