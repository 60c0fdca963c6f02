//! The columns of an export: one table defines the schema and the source of each value.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::{Type, TypePtr};

use super::Row;
use ledger::Task;
use runtime::clock::Time;

/// How a column's value is read from a row.
enum Column {
    Number(fn(&Row) -> Option<i64>),
    Moment(fn(&Row) -> Option<Time>),
    Real(fn(&Row) -> Option<f64>),
    Flag(fn(&Row) -> bool),
    Text(fn(&Row) -> Option<&str>),
    Json(fn(&Row) -> Option<&str>),
}

use Column::{Flag, Json, Moment, Number, Real, Text};

/// The names are a public interface; new columns are added at the end.
const COLUMNS: &[(&str, Column)] = &[
    ("position", Number(|row| Some(row.event.feed))),
    ("task_id", Text(|row| Some(row.event.task_id.as_str()))),
    ("seq", Number(|row| Some(row.event.seq))),
    ("at", Moment(|row| Some(row.event.at))),
    ("name", Text(|row| row.event.name.as_deref())),
    ("queue", Text(|row| row.event.queue.as_deref())),
    ("phase", Text(|row| Some(row.event.phase.as_str()))),
    ("status", Text(|row| Some(&row.event.status))),
    ("delivery", Number(|row| Some(row.event.delivery.into()))),
    ("retries", Number(|row| Some(row.event.retries.into()))),
    ("worker", Text(|row| row.event.worker.as_deref())),
    ("reason", Text(|row| row.event.reason.as_deref())),
    ("meta", Json(|row| row.event.meta.as_ref().map(|json| json.get()))),
    ("group_id", Text(|row| row.event.group_id.as_ref().map(|id| id.as_str()))),
    ("root_id", Text(|row| row.event.root_id.as_ref().map(|id| id.as_str()))),
    ("corrected", Flag(|row| row.event.corrected)),
    ("ended", Flag(|row| row.end.is_some())),
    ("submitted_at", Moment(|row| end(row).map(|task| task.submitted_at))),
    ("queued_at", Moment(|row| end(row)?.queued_at)),
    ("received_at", Moment(|row| end(row)?.received_at)),
    ("started_at", Moment(|row| end(row)?.started_at)),
    ("finished_at", Moment(|row| end(row)?.finished_at)),
    ("runtime", Real(|row| end(row)?.runtime)),
    ("result", Json(|row| end(row)?.result.as_ref().map(|json| json.get()))),
    ("error_type", Text(|row| end(row)?.failure.as_ref().map(|failure| failure.kind.as_str()))),
    ("error_message", Text(|row| end(row)?.failure.as_ref().map(|failure| failure.message.as_str()))),
    ("traceback", Text(|row| end(row)?.traceback.as_deref())),
    ("adopted", Flag(|row| end(row).is_some_and(|task| task.adopted))),
];

fn end(row: &Row) -> Option<&Task> {
    row.end.as_ref()
}

pub(super) fn schema() -> anyhow::Result<TypePtr> {
    let fields = COLUMNS.iter().map(|(name, column)| Ok(Arc::new(field(name, column)?)));
    let fields = fields.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Arc::new(Type::group_type_builder("taskgate_event").with_fields(fields).build()?))
}

fn field(name: &str, column: &Column) -> anyhow::Result<Type> {
    let (physical, meaning) = match column {
        Number(_) => (Physical::INT64, ConvertedType::INT_64),
        Moment(_) => (Physical::INT64, ConvertedType::TIMESTAMP_MICROS),
        Real(_) => (Physical::DOUBLE, ConvertedType::NONE),
        Flag(_) => (Physical::BOOLEAN, ConvertedType::NONE),
        Text(_) => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
        Json(_) => (Physical::BYTE_ARRAY, ConvertedType::JSON),
    };
    let field = Type::primitive_type_builder(name, physical).with_converted_type(meaning);
    Ok(field.with_repetition(Repetition::OPTIONAL).build()?)
}

pub(super) fn properties() -> WriterPropertiesPtr {
    Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build())
}

pub(super) fn write<W: Write + Send>(group: &mut SerializedRowGroupWriter<'_, W>, rows: &[Row]) -> anyhow::Result<()> {
    for (_, column) in COLUMNS {
        match column {
            Number(of) => values::<W, Int64Type>(group, rows.iter().map(of))?,
            Moment(of) => values::<W, Int64Type>(group, rows.iter().map(|row| of(row).map(|at| at.0)))?,
            Real(of) => values::<W, DoubleType>(group, rows.iter().map(of))?,
            Flag(of) => values::<W, BoolType>(group, rows.iter().map(|row| Some(of(row))))?,
            Text(of) | Json(of) => {
                let bytes = |row| of(row).map(|text: &str| ByteArray::from(text.as_bytes().to_vec()));
                values::<W, ByteArrayType>(group, rows.iter().map(bytes))?;
            }
        }
    }
    Ok(())
}

/// Writes the next column.
fn values<W: Write + Send, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    found: impl Iterator<Item = Option<T::T>>,
) -> anyhow::Result<()> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in found {
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    let mut column = group.next_column()?.expect("the schema has a column for each");
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()?;
    Ok(())
}
