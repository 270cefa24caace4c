//! The columns of a Parquet file: one row each in [`Columns::finish`] and [`schema`], in the same order.

use std::sync::{Arc, LazyLock};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        ArrayBuilder, BinaryBuilder, Int64Builder, StringBuilder, TimestampNanosecondBuilder, UInt8Builder,
        UInt32Builder, UInt64Builder,
    },
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use nightjar_proto::v1::Batch;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};

use super::split::{Parts, Searched, Splitter};

/// Rows of one row group at most: what a reader decompresses at once.
pub const GROUP_ROWS: usize = 128 << 10;

/// Bytes of one row group at most, before compression: what the writer keeps in memory.
pub const GROUP_BYTES: usize = 48 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let column = |(name, data, nullable): (&str, DataType, bool)| Field::new(name, data, nullable);
    let columns = [
        ("time", utc, false),
        ("kind", DataType::Utf8, false),
        ("host", DataType::Utf8, false),
        ("agent", DataType::Utf8, false),
        ("boot", DataType::Utf8, false),
        ("epoch", DataType::UInt64, false),
        ("lane", DataType::UInt8, false),
        ("sequence", DataType::UInt64, false),
        ("log", DataType::UInt64, false),
        ("pid", DataType::UInt32, true),
        ("exec_id", DataType::UInt64, true),
        ("exe", DataType::Utf8, true),
        ("uid", DataType::UInt32, true),
        ("user", DataType::Utf8, true),
        ("container", DataType::Utf8, true),
        ("path", DataType::Utf8, true),
        ("remote_address", DataType::Utf8, true),
        ("remote_port", DataType::UInt32, true),
        ("schema", DataType::UInt32, false),
        ("id", DataType::Int64, false),
        ("process", DataType::Binary, false),
        ("parent", DataType::Binary, false),
        ("rest", DataType::Binary, false),
    ];
    Arc::new(Schema::new(columns.map(column).to_vec()))
});

/// Names and types of all columns.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// How columns are written: numbers that count upwards as differences, what repeats by a dictionary.
#[must_use]
pub fn properties() -> WriterProperties {
    // Level 3 is the default of zstd; level 9 makes files a twentieth smaller for four times the work.
    let level = ZstdLevel::try_new(3).expect("zstd has level 3");
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_dictionary_page_size_limit(8 << 20)
        .set_data_page_row_count_limit(GROUP_ROWS)
        .set_data_page_size_limit(4 << 20)
        .set_column_dictionary_enabled(ColumnPath::from("rest"), false);
    let counting = ["time", "id", "sequence", "log"];
    let builder = counting.into_iter().fold(builder, |builder, column| {
        builder
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED)
    });
    builder.build()
}

/// Collects the rows of a row group.
#[derive(Default)]
pub struct Columns {
    splitter: Splitter,
    bytes: usize,
    time: TimestampNanosecondBuilder,
    kind: StringBuilder,
    host: StringBuilder,
    agent: StringBuilder,
    boot: StringBuilder,
    epoch: UInt64Builder,
    lane: UInt8Builder,
    sequence: UInt64Builder,
    log: UInt64Builder,
    pid: UInt32Builder,
    exec_id: UInt64Builder,
    exe: StringBuilder,
    uid: UInt32Builder,
    user: StringBuilder,
    container: StringBuilder,
    path: StringBuilder,
    remote_address: StringBuilder,
    remote_port: UInt32Builder,
    schema: UInt32Builder,
    id: Int64Builder,
    process: BinaryBuilder,
    parent: BinaryBuilder,
    rest: BinaryBuilder,
}

// === impl Columns ===

impl Columns {
    /// Takes an encoded event of a batch in a file of the log. Gives its time.
    pub fn push(&mut self, log: u64, batch: &Batch, event: &[u8]) -> i64 {
        let parts = self.splitter.split(event);
        let searched = Searched::of(&parts);
        let Parts { schema, time, id, kind, host, process, parent, rest } = parts;
        self.bytes += event.len() + searched.exe.len() + searched.path.len();
        self.time.append_value(time);
        self.kind.append_value(kind);
        self.host.append_value(host);
        self.agent.append_value(&batch.agent_id);
        self.boot.append_value(&batch.boot_id);
        self.epoch.append_value(batch.epoch);
        self.lane.append_value(u8::try_from(batch.lane).unwrap_or_default());
        self.sequence.append_value(batch.sequence);
        self.log.append_value(log);
        self.pid.append_option(searched.pid);
        self.exec_id.append_option(u64::from_str_radix(searched.exec_id, 16).ok());
        self.exe.append_option(some(searched.exe));
        self.uid.append_option(searched.uid);
        self.user.append_option(some(searched.user));
        self.container.append_option(some(searched.container));
        self.path.append_option(some(searched.path));
        self.remote_address.append_option(some(searched.remote_address));
        self.remote_port.append_option(searched.remote_port);
        self.schema.append_value(schema);
        self.id.append_value(id);
        self.process.append_value(process);
        self.parent.append_value(parent);
        self.rest.append_value(rest);
        time
    }

    /// Whether a row group is complete.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.time.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES
    }

    /// What was collected, in the order of [`schema`]. Then there is nothing.
    ///
    /// # Errors
    /// None; the columns have the same length and the types of the schema.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish().with_timezone("UTC")),
            Arc::new(self.kind.finish()),
            Arc::new(self.host.finish()),
            Arc::new(self.agent.finish()),
            Arc::new(self.boot.finish()),
            Arc::new(self.epoch.finish()),
            Arc::new(self.lane.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.log.finish()),
            Arc::new(self.pid.finish()),
            Arc::new(self.exec_id.finish()),
            Arc::new(self.exe.finish()),
            Arc::new(self.uid.finish()),
            Arc::new(self.user.finish()),
            Arc::new(self.container.finish()),
            Arc::new(self.path.finish()),
            Arc::new(self.remote_address.finish()),
            Arc::new(self.remote_port.finish()),
            Arc::new(self.schema.finish()),
            Arc::new(self.id.finish()),
            Arc::new(self.process.finish()),
            Arc::new(self.parent.finish()),
            Arc::new(self.rest.finish()),
        ];
        RecordBatch::try_new(schema(), columns)
    }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
