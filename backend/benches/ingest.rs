//! How fast events of a build are stored, and how small they get. The baseline is the same batches, written to a file
//! and made durable one by one, by nobody but this program.
//!
//! ```text
//! cargo bench -p nightjar-backend --bench ingest -- [DIR]
//! ```

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::unchecked_time_subtraction, reason = "time goes on")]

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
    Batch, Capabilities, Cgroup, Event, Exec, Exit, File as Exe, FileActivity, Hello, Lane, Namespaces,
    NetworkActivity, NetworkEndpoint, Parent, Process, PublishRequest, Source, event::Body,
    ingest_client::IngestClient, publish_request, publish_response,
};
use prost::Message as _;
use prost_types::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

const START: u64 = 1_795_374_000_000_000_000;
const BATCHES: u64 = 600;
const PROCESSES_PER_BATCH: u64 = 40;
const AGENTS: u64 = 4;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % below
    }
}

fn timestamp(time: u64) -> Timestamp {
    Timestamp {
        seconds: (time / 1_000_000_000).cast_signed(),
        nanos: i32::try_from(time % 1_000_000_000).unwrap(),
    }
}

/// A make with many compilers: each is executed, makes and writes a few files, and ends.
struct Build {
    random: Random,
    time: u64,
    pid: u32,
    count: u32,
    agent: u64,
}

impl Build {
    fn id(&mut self) -> String {
        self.count += 1;
        let (millis, rest) = (self.time / 1_000_000, self.time % 1_000_000);
        let first = (millis << 16) | 0x7000 | (rest * 4096 / 1_000_000);
        let (a, b) = (first >> 32, first >> 16 & 0xffff);
        format!("{a:08x}-{b:04x}-{:04x}-8f{:02x}-61c2{:08x}", first & 0xffff, self.agent, self.count)
    }

    fn name(&mut self) -> String {
        format!("{:08x}{:08x}", self.random.next(1 << 32), self.random.next(1 << 32))
    }

    fn process(&mut self) -> (Process, Parent, String) {
        self.pid += 1 + u32::try_from(self.random.next(3)).unwrap();
        let unit = format!("drivers/net/ethernet/unit_{:04}", self.random.next(3000));
        let (comm, path) = [
            ("cc1", "/usr/libexec/gcc/x86_64-linux-gnu/14/cc1"),
            ("as", "/usr/bin/x86_64-linux-gnu-as"),
            ("sh", "/usr/bin/dash"),
        ][usize::try_from(self.random.next(3)).unwrap()];
        let exe = |path: &str, inode| Exe {
            path: path.to_owned(),
            inode,
            device: "253:1".to_owned(),
            links: Some(1),
            mode: "0755".to_owned(),
            uid: Some(0),
            gid: Some(0),
            ..Exe::default()
        };
        let flags = [
            "-quiet",
            "-nostdinc",
            "-I",
            "./arch/x86/include",
            "-I",
            "./include",
            "-D",
            "__KERNEL__",
            "-O2",
            "-Wall",
            "-o",
        ];
        let args = [comm]
            .into_iter()
            .chain(flags)
            .map(str::to_owned)
            .chain([format!("/tmp/cc{}.s", self.random.next(1 << 30)), format!("{unit}.c")]);
        let parent = Parent {
            id: "52b8e01f7c3da946".to_owned(),
            exec_id: "e7a6130b94d2c58f".to_owned(),
            pid: 4819,
            comm: "make".to_owned(),
            exe: Some(exe("/usr/bin/make", 1_311_874)),
            args: vec!["make".to_owned(), "-j8".to_owned()],
            uid: Some(1000),
            user: "builder".to_owned(),
            ..Parent::default()
        };
        let process = Process {
            id: self.name(),
            exec_id: self.name(),
            pid: self.pid,
            tid: self.pid,
            ppid: 4819,
            start_time: Some(timestamp(self.time)),
            comm: comm.to_owned(),
            exe: Some(exe(path, 1_318_402)),
            args: args.collect(),
            cwd: "/home/builder/linux".to_owned(),
            uid: Some(1000),
            euid: Some(1000),
            suid: Some(1000),
            fsuid: Some(1000),
            gid: Some(1000),
            egid: Some(1000),
            sgid: Some(1000),
            fsgid: Some(1000),
            user: "builder".to_owned(),
            group: "builder".to_owned(),
            loginuid: Some(1000),
            login_user: "builder".to_owned(),
            audit_session: Some(7),
            tty: "pts/0".to_owned(),
            capabilities: Some(Capabilities { bounding: vec!["all".to_owned()], ..Capabilities::default() }),
            namespaces: Some(Namespaces {
                cgroup: 4_026_531_835,
                ipc: 4_026_531_839,
                mnt: 4_026_531_841,
                net: 4_026_531_840,
                pid: 4_026_531_836,
                pid_for_children: 4_026_531_836,
                time: 4_026_531_834,
                user: 4_026_531_837,
                uts: 4_026_531_838,
            }),
            cgroup: Some(Cgroup {
                id: 9187,
                path: "/user.slice/user-1000.slice/session-7.scope".to_owned(),
                ..Cgroup::default()
            }),
            source: Source::Kernel.into(),
            ..Process::default()
        };
        (process, parent, unit)
    }

    fn event(&mut self, kind: &str, process: &Process, parent: &Parent, body: Body, to: &mut Vec<u8>) {
        self.time += 20_000 + self.random.next(200_000);
        let event = Event {
            schema: 1,
            id: self.id(),
            time: Some(timestamp(self.time)),
            kind: kind.to_owned(),
            host: "build-1.example.org".to_owned(),
            process: Some(process.clone()),
            parent: Some(parent.clone()),
            body: Some(body),
        };
        event.encode_length_delimited(to).unwrap();
    }

    /// A download from one of a few hundred servers.
    fn network(&mut self) -> NetworkActivity {
        let endpoint =
            |address: String, port| NetworkEndpoint { address, port: Some(port), ..Default::default() };
        let ephemeral = 32_768 + u32::try_from(self.random.next(28_000)).unwrap();
        NetworkActivity {
            protocol: "tcp".to_owned(),
            family: "ipv4".to_owned(),
            r#type: "stream".to_owned(),
            direction: "outbound".to_owned(),
            local: Some(endpoint("192.0.2.17".to_owned(), ephemeral)),
            remote: Some(endpoint(format!("198.51.100.{}", self.random.next(250)), 443)),
            connection: self.name(),
            namespace: 4_026_531_840,
            outcome: "established".to_owned(),
            latency: 900_000 + self.random.next(20_000_000),
            ..NetworkActivity::default()
        }
    }

    fn batch(&mut self, sequence: u64) -> Batch {
        let mut events = Vec::new();
        let mut count = 0;
        let first_time = self.time;
        for _ in 0..PROCESSES_PER_BATCH {
            let (process, parent, unit) = self.process();
            let exec = Exec {
                filename: process.exe.clone().unwrap().path,
                argc: 14,
                args_size: 190,
                ..Exec::default()
            };
            self.event("process.exec", &process, &parent, Body::Exec(exec), &mut events);
            let files = 1 + self.random.next(5);
            for file in 0..files {
                let (kind, path) = [
                    ("file.open", format!("/home/builder/linux/{unit}.h")),
                    ("file.create", format!("/home/builder/linux/{unit}.o")),
                    ("file.modify", format!("/home/builder/linux/{unit}.o")),
                ][usize::try_from(file % 3).unwrap()]
                .clone();
                let activity = FileActivity {
                    path,
                    inode: 900_000 + self.random.next(100_000),
                    device: "253:1".to_owned(),
                    r#type: "regular".to_owned(),
                    mode: "0644".to_owned(),
                    uid: Some(1000),
                    gid: Some(1000),
                    user: "builder".to_owned(),
                    group: "builder".to_owned(),
                    size: Some(self.random.next(60_000)),
                    links: Some(1),
                    policy: "sources".to_owned(),
                    source: "kernel".to_owned(),
                    call: "openat".to_owned(),
                    flags: vec!["write".to_owned(), "create".to_owned(), "trunc".to_owned()],
                    ..FileActivity::default()
                };
                self.event(kind, &process, &parent, Body::File(activity), &mut events);
            }
            if self.random.next(4) == 0 {
                let network = self.network();
                self.event("network.connect", &process, &parent, Body::Network(network), &mut events);
                count += 1;
            }
            let exit = Exit {
                code: Some(u32::from(self.random.next(20) == 0)),
                run_time_ns: self.random.next(900_000_000),
                ..Exit::default()
            };
            self.event("process.exit", &process, &parent, Body::Exit(exit), &mut events);
            count += 2 + files;
        }
        Batch {
            agent_id: format!("agent-{}", self.agent),
            boot_id: "3f0c6b7e-6a61-4a1c-9b6e-0d2b0a5f6c11".to_owned(),
            lane: Lane::Bulk.into(),
            sequence,
            first_time,
            last_time: self.time,
            count,
            uncompressed_bytes: events.len() as u64,
            events: zstd::bulk::compress(&events, 1).unwrap().into(),
            ..Batch::default()
        }
    }
}

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
    let build = |agent| Build { random: Random(agent * 77 + 1), time: START, pid: 5000, count: 0, agent };
    let make = |agent| {
        let mut build = build(agent);
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
            writer.add(1, &Stored { received: START, batch: Some(batches[sequence].clone()) }).unwrap();
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
