//! Parquet files: `events/2026-11-22T19/000000000012-000000000015.parquet`, the hour in which the batches came and the
//! files of the log that they are from.
//!
//! An hour is that of arrival, not of the events: so one file of the log becomes one Parquet file, whose name is given
//! to it in one step, and what an agent held back for days is kept as long as anything else. The times of the events are
//! in the file's metadata, by which readers pass over files.

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use arrow_array::{
    Array, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
    UInt32Array, UInt64Array,
};
use arrow_schema::ArrowError;
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{
            ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
            RowFilter,
        },
    },
    errors::ParquetError,
    file::metadata::KeyValue,
};
use prost::Message as _;

use super::{
    columns::{self, Columns},
    index::{Checkpoint, Index},
    segment::sync_dir,
    split::Parts,
    wanted::Wanted,
};
use crate::{check, hour::Hour, registry::hex, store::record::Stored};

const FIRST_TIME: &str = "nightjar.first_time";
const LAST_TIME: &str = "nightjar.last_time";
/// What the index knew of the streams in the file, should the log be lost; in hex.
const INDEX: &str = "nightjar.index";

/// One Parquet file.
#[derive(Debug)]
pub struct Partition {
    /// When its batches came.
    pub hour: Hour,
    /// The first file of the log that it was made of.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Events.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    path: PathBuf,
    times: (i64, i64),
}

/// Why a Parquet file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// By the file system.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// By its content.
    #[error("{path}: not a Parquet file of this program ({error}); it is damaged", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ParquetError,
    },
}

/// Range of log files, from the name of a Parquet file.
#[must_use]
pub fn name_of(path: &Path) -> Option<(Hour, u64, u64)> {
    let hour = path.parent()?.file_name()?.to_str()?.parse().ok()?;
    let (first, last) = path.file_name()?.to_str()?.strip_suffix(".parquet")?.split_once('-')?;
    Some((hour, first.parse().ok()?, last.parse().ok()?))
}

/// Writes a Parquet file. It has no name until it is complete.
pub struct PartitionWriter {
    dir: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    hour: Hour,
    range: (u64, u64),
    writer: ArrowWriter<File>,
    columns: Columns,
    times: (i64, i64),
    rows: u64,
}

// === impl PartitionWriter ===

impl PartitionWriter {
    /// Begins a file below `events` for that range of log files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(events: &Path, hour: Hour, first: u64, last: u64) -> Result<Self, PartitionError> {
        let dir = events.join(hour.to_string());
        let path = dir.join(format!("{first:012}-{last:012}.parquet"));
        let temporary = path.with_extension("tmp");
        let file =
            fs::create_dir_all(&dir).and_then(|()| sync_dir(events)).and_then(|()| File::create(&temporary));
        let file = file.map_err(|error| PartitionError::Io { path: temporary.clone(), error })?;
        let writer = ArrowWriter::try_new(file, columns::schema(), Some(columns::properties()));
        let writer = writer.map_err(|error| wrong(&temporary, error))?;
        let (columns, times) = (Columns::default(), (i64::MAX, i64::MIN));
        Ok(Self { dir, path, temporary, hour, range: (first, last), writer, columns, times, rows: 0 })
    }

    /// Adds the events of a batch in that file of the log, and gives their number.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&mut self, log: u64, stored: &Stored) -> Result<u64, PartitionError> {
        let Some(batch) = &stored.batch else { return Ok(0) };
        let before = self.rows;
        let result = check::each_event(batch, |event| {
            let time = self.columns.push(log, batch, event);
            self.times = (self.times.0.min(time), self.times.1.max(time));
            self.rows += 1;
            ControlFlow::Continue(())
        });
        if let Err(error) = result {
            // It was whole when it came, and its checksum is right.
            tracing::error!("batch {} of {} cannot be read again: {error}", batch.sequence, batch.agent_id);
        }
        if self.columns.is_full() {
            self.group()?;
        }
        Ok(self.rows - before)
    }

    /// Completes the file and gives it its name; it is durable when this returns.
    ///
    /// # Errors
    /// When it cannot be. Nothing is there then but a file without a name.
    pub fn finish(mut self, index: &Index) -> Result<Partition, PartitionError> {
        self.group()?;
        let metadata = [
            (FIRST_TIME, self.times.0.to_string()),
            (LAST_TIME, self.times.1.to_string()),
            (INDEX, hex(&index.checkpoint().encode_to_vec())),
        ];
        for (key, value) in metadata {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let file = self.writer.into_inner().map_err(|error| wrong(&self.temporary, error))?;
        let named = file
            .sync_all()
            .and_then(|()| file.metadata())
            .and_then(|metadata| fs::rename(&self.temporary, &self.path).map(|()| metadata.len()))
            .and_then(|bytes| sync_dir(&self.dir).map(|()| bytes));
        let bytes = named.map_err(|error| PartitionError::Io { path: self.path.clone(), error })?;
        let (first, last) = self.range;
        let Self { hour, path, times, rows, .. } = self;
        Ok(Partition { hour, first, last, rows, bytes, path, times })
    }

    fn group(&mut self) -> Result<(), PartitionError> {
        let group = self.columns.finish().map_err(ParquetError::from);
        let written = group.and_then(|group| match group.num_rows() {
            0 => Ok(()),
            _ => self.writer.write(&group).and_then(|()| self.writer.flush()),
        });
        written.map_err(|error| wrong(&self.temporary, error))
    }
}

// === impl Partition ===

impl Partition {
    /// Looks at a file that is there. Gives what the index knew of the streams in it.
    ///
    /// # Errors
    /// When it cannot be read, or is torn.
    pub fn open(path: PathBuf) -> Result<(Self, Index), PartitionError> {
        let (hour, first, last) = name_of(&path).ok_or_else(|| {
            wrong(&path, ParquetError::General("the name is no range of log files".to_owned()))
        })?;
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|error| PartitionError::Io { path: path.clone(), error })?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(&path, error))?;
        let metadata = reader.metadata().file_metadata();
        let values = metadata.key_value_metadata().map_or(&[][..], Vec::as_slice);
        let value = |key| values.iter().find(|entry| entry.key == key)?.value.as_deref();
        let number = |key| value(key).and_then(|text| text.parse::<i64>().ok());
        let unhex = |text: &str| {
            let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
            (0..text.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>()
        };
        let index = value(INDEX).and_then(unhex).and_then(|bytes| Checkpoint::decode(bytes.as_slice()).ok());
        let (Some(from), Some(to), Some(index)) = (number(FIRST_TIME), number(LAST_TIME), index) else {
            return Err(wrong(
                &path,
                ParquetError::General("the metadata of this program is missing".to_owned()),
            ));
        };
        let rows = u64::try_from(metadata.num_rows()).unwrap_or_default();
        Ok((Self { hour, first, last, rows, bytes, path, times: (from, to) }, index.into()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands all events that are wanted to `take`, in the order in which they came. Those from files of the log up to
    /// `after` are passed over.
    ///
    /// # Errors
    /// When it cannot be read, or some row groups cannot; the others are handed over all the same. That it was dropped
    /// meanwhile is no error.
    pub fn read(
        &self,
        after: u64,
        wanted: &Wanted,
        take: &mut dyn FnMut(Bytes) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PartitionError> {
        if !wanted.overlaps(self.times.0, self.times.1) {
            return Ok(ControlFlow::Continue(()));
        }
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
            Err(error) => return Err(PartitionError::Io { path: self.path.clone(), error }),
        };
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new());
        let metadata = metadata.map_err(|error| unreadable(&self.path, error))?;
        let mut failed = None;
        for group in 0..metadata.metadata().num_row_groups() {
            let file =
                file.try_clone().map_err(|error| PartitionError::Io { path: self.path.clone(), error })?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
            match read_groups(builder.with_row_groups(vec![group]), after, wanted, take) {
                Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                Ok(ControlFlow::Continue(())) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(ControlFlow::Continue(())), |error| Err(unreadable(&self.path, error)))
    }

    /// Takes it off the disk.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        if let Some(hour) = self.path.parent() {
            // The last one takes the directory with it.
            let _others_are_there = fs::remove_dir(hour);
        }
        Ok(())
    }
}

/// The columns that an event is put together of.
struct Rows<'a> {
    time: &'a TimestampNanosecondArray,
    kind: &'a StringArray,
    host: &'a StringArray,
    schema: &'a UInt32Array,
    id: &'a Int64Array,
    process: &'a BinaryArray,
    parent: &'a BinaryArray,
    rest: &'a BinaryArray,
}

// === impl Rows ===

impl<'a> Rows<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            time: column(rows, "time")?,
            kind: column(rows, "kind")?,
            host: column(rows, "host")?,
            schema: column(rows, "schema")?,
            id: column(rows, "id")?,
            process: column(rows, "process")?,
            parent: column(rows, "parent")?,
            rest: column(rows, "rest")?,
        })
    }

    fn event(&self, row: usize) -> Bytes {
        let parts = Parts {
            schema: self.schema.value(row),
            time: self.time.value(row),
            id: self.id.value(row),
            kind: self.kind.value(row),
            host: self.host.value(row),
            process: self.process.value(row),
            parent: self.parent.value(row),
            rest: self.rest.value(row),
        };
        let mut event = Vec::new();
        parts.join(&mut event);
        event.into()
    }
}

fn read_groups(
    builder: ParquetRecordBatchReaderBuilder<File>,
    after: u64,
    wanted: &Wanted,
    take: &mut dyn FnMut(Bytes) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ParquetError> {
    let mask = |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let judged = mask(&["time", "kind", "host", "agent", "log"]);
    let shown = mask(&["time", "kind", "host", "schema", "id", "process", "parent", "rest"]);
    let condition = wanted.clone();
    let predicate = ArrowPredicateFn::new(judged, move |rows| judge(&rows, after, &condition));
    let filter = RowFilter::new(vec![Box::new(predicate)]);
    let reader = builder.with_projection(shown).with_row_filter(filter).with_batch_size(1024).build()?;
    for rows in reader {
        let rows = rows?;
        let rows = Rows::of(&rows)?;
        for row in 0..rows.time.len() {
            if take(rows.event(row)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn judge(rows: &RecordBatch, after: u64, wanted: &Wanted) -> Result<BooleanArray, ArrowError> {
    let time: &TimestampNanosecondArray = column(rows, "time")?;
    let (kind, host): (&StringArray, &StringArray) = (column(rows, "kind")?, column(rows, "host")?);
    let (agent, log): (&StringArray, &UInt64Array) = (column(rows, "agent")?, column(rows, "log")?);
    let fits = |row| {
        log.value(row) > after
            && wanted.agent(agent.value(row))
            && wanted.event(kind.value(row), host.value(row), time.value(row))
    };
    Ok((0..rows.num_rows()).map(|row| Some(fits(row))).collect())
}

fn column<'a, A: Array + 'static>(rows: &'a RecordBatch, name: &str) -> Result<&'a A, ArrowError> {
    let column = rows.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    column.ok_or_else(|| ArrowError::SchemaError(format!("the column {name} is missing or of another type")))
}

fn wrong(path: &Path, error: ParquetError) -> PartitionError {
    PartitionError::Damaged { path: path.to_owned(), error }
}

/// By what the system said, if it did, as that may pass; else by the content.
fn unreadable(path: &Path, error: ParquetError) -> PartitionError {
    let of_system = |cause: &io::Error| cause.raw_os_error().map(io::Error::from_raw_os_error);
    match &error {
        ParquetError::External(cause) => match cause.downcast_ref().and_then(of_system) {
            Some(error) => PartitionError::Io { path: path.to_owned(), error },
            None => wrong(path, error),
        },
        _ => wrong(path, error),
    }
}
