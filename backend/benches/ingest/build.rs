//! What a make with many compilers does.

use nightjar_proto::v1::{
    Batch, Capabilities, Cgroup, Event, Exec, Exit, File as Exe, FileActivity, Lane, Namespaces,
    NetworkActivity, NetworkEndpoint, Parent, Process, Source, event::Body,
};
use prost::Message as _;
use prost_types::Timestamp;

const PROCESSES_PER_BATCH: u64 = 40;

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
pub struct Build {
    random: Random,
    time: u64,
    pid: u32,
    count: u32,
    agent: u64,
}

impl Build {
    /// Of an agent, from a time in nanoseconds since 1970 on.
    pub fn of(agent: u64, time: u64) -> Self {
        Self { random: Random(agent * 77 + 1), time, pid: 5000, count: 0, agent }
    }

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

    /// The next batch of its events.
    pub fn batch(&mut self, sequence: u64) -> Batch {
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
