//! How fast events of a build are stored, and how small they get. The baseline is the same batches, written to a file
//! and made durable one by one, by nobody but this program.
//!
//! ```text
//! cargo bench -p nightjar-backend --bench ingest -- [DIR]
//! ```

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::unchecked_time_subtraction, reason = "time goes on")]

mod build;

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nightjar_backend::{
    hour::Hour,
    server::{self, Settings},
    store::{Limits, Store, partition::PartitionWriter, record::Stored},
};
use nightjar_proto::v1::{
    Batch, Hello, PublishRequest, ingest_client::IngestClient, publish_request, publish_response,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use build::Build;

const START: u64 = 1_795_374_000_000_000_000;
const BATCHES: u64 = 600;
const AGENTS: u64 = 4;

fn cpu() -> Duration {
    let usage = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = usage
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn baseline(path: &Path, batches: &[Vec<Batch>]) -> Duration {
    let start = Instant::now();
    let mut file = File::create(path).unwrap();
    for batch in batches.iter().flatten() {
        file.write_all(&batch.events).unwrap();
        file.sync_data().unwrap();
    }
    fs::remove_file(path).unwrap();
    start.elapsed()
}

async fn publish(address: std::net::SocketAddr, batches: Vec<Batch>) {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let (requests, to_send) = mpsc::channel(8);
    let send = async |message| requests.send(PublishRequest { message: Some(message) }).await.unwrap();
    let (agent_id, boot_id) = (batches[0].agent_id.clone(), batches[0].boot_id.clone());
    send(publish_request::Message::Hello(Hello { agent_id, boot_id, schema: 1, ..Hello::default() })).await;
    let mut responses =
        IngestClient::new(channel).publish(ReceiverStream::new(to_send)).await.unwrap().into_inner();
    let credit = Semaphore::new(0);
    let last = batches.last().unwrap().sequence;
    let acknowledged = async {
        while let Some(response) = responses.message().await.unwrap() {
            match response.message.unwrap() {
                publish_response::Message::Welcome(_) => credit.add_permits(32),
                publish_response::Message::Ack(ack) if ack.sequence == last => return,
                publish_response::Message::Ack(_) => credit.add_permits(1),
                publish_response::Message::Refused(refused) => panic!("{refused:?}"),
            }
        }
    };
    let sending = async {
        for batch in batches {
            credit.acquire().await.unwrap().forget();
            send(publish_request::Message::Batch(batch)).await;
        }
    };
    tokio::join!(sending, acknowledged);
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let parent = env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let dir = parent.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let make = |agent| {
        let mut build = Build::of(agent, START);
        (1..=BATCHES).map(|sequence| build.batch(sequence)).collect::<Vec<_>>()
    };
    let batches: Vec<Vec<Batch>> = (1..=AGENTS).map(make).collect();
    let sum = |value: fn(&Batch) -> u64| batches.iter().flatten().map(value).sum::<u64>();
    let events = sum(|batch| batch.count);
    let (wire, raw) = (sum(|batch| batch.events.len() as u64), sum(|batch| batch.uncompressed_bytes));
    let per = |bytes: u64| bytes as f64 / events as f64;
    let number = batches.iter().flatten().count();
    println!(
        "{events} events in {number} batches; {:.0} bytes an event encoded, {:.1} on the wire",
        per(raw),
        per(wire)
    );

    let spent = baseline(&dir.path().join("baseline"), &batches);
    println!(
        "baseline, a write and an fsync for each batch: {:.0} events/s",
        events as f64 / spent.as_secs_f64()
    );

    let limits = Limits { reserve_bytes: 0, segment_bytes: 1 << 40, ..Limits::default() };
    let settings = Settings {
        dir: dir.path().join("data"),
        listen: "127.0.0.1:0".parse().unwrap(),
        health: None,
        plaintext: true,
        files: None,
        names: Vec::new(),
        most_connections: 64,
        limits,
    };
    let running = server::start(settings).await.unwrap();
    let (start, before) = (Instant::now(), cpu());
    let publishing: Vec<_> =
        batches.iter().map(|batches| tokio::spawn(publish(running.address, batches.clone()))).collect();
    for agent in publishing {
        agent.await.unwrap();
    }
    let (spent, used) = (start.elapsed(), cpu() - before);
    let syncs = running.store.state().counters.syncs.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "stored by {AGENTS} agents over gRPC: {:.0} events/s, {syncs} fsyncs, {:.2} µs of processor an event, both ends",
        events as f64 / spent.as_secs_f64(),
        used.as_secs_f64() * 1e6 / events as f64
    );
    running.stop().await.unwrap();
    let store = Store::open(&dir.path().join("data"), limits).unwrap();
    let mut read = 0;
    let start = Instant::now();
    let mut take = |_| {
        read += 1;
        std::ops::ControlFlow::Continue(())
    };
    let _all = store.read(nightjar_backend::store::wanted::Wanted::default()).read(&mut take).unwrap();
    println!(
        "read back from the log: {read} events, {:.0} events/s",
        f64::from(read) / start.elapsed().as_secs_f64()
    );

    // As the agents took turns.
    let (start, before) = (Instant::now(), cpu());
    let mut writer = PartitionWriter::create(dir.path(), Hour::of(START), 1, 1).unwrap();
    for sequence in 0..usize::try_from(BATCHES).unwrap() {
        for batches in &batches {
            let batch = Some(batches[sequence].clone());
            writer.add(1, &Stored { received: START, batch, starts_after: 0 }).unwrap();
        }
    }
    let partition = writer.finish(&nightjar_backend::store::index::Index::default()).unwrap();
    let used = cpu() - before;
    println!(
        "to Parquet: {:.1} bytes an event at rest, {:.0} events/s, {:.2} µs of processor an event",
        per(partition.bytes),
        events as f64 / start.elapsed().as_secs_f64(),
        used.as_secs_f64() * 1e6 / events as f64
    );
    sizes(partition.path(), events);
}

/// Which columns the bytes are of.
fn sizes(path: &Path, events: u64) {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let mut sizes = std::collections::BTreeMap::new();
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            *sizes.entry(column.column_path().string()).or_insert(0) += column.compressed_size();
        }
    }
    for (column, bytes) in sizes {
        println!("  {column:<16} {:>7.2}", bytes as f64 / events as f64);
    }
}
