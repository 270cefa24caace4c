//! From an object file to attached programs.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Btf, BtfError, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};
use nightjar_abi::{
    SCRATCH_LEVELS, fields,
    files::{CallShape, FileSettings},
    hook::Hook,
    settings::Settings,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing::{debug, info, warn};

use super::{
    btf::{self, BtfError as FieldsBtfError},
    cgroup2,
    controls::Controls,
    counters::Counters,
    fields::{ResolveError, resolve},
    files::{FileControls, shapes},
    network::{NetworkControls, network_controls},
    plan::{self, Candidate, HookKind, PLAN, Probes, SensorPlan, Serving},
    ring::Ring,
    tracefs,
};

/// Built once, by `agent/build.rs`.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nightjar-ebpf"));

/// What of the kernel side can be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of the critical lane's ring buffer: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Bytes of the bulk lane's, likewise.
    pub bulk_bytes: u32,
    /// Keys of flows of datagrams that are counted at once: two of each flow.
    pub flows: u32,
    /// Lines of the kernel programs that are carried into the log: 0 none, 1 errors, to 5 traces.
    pub log_level: u8,
    /// What can be changed later, as it is from the first event on.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        // A record of 1 KiB, 10,000 times a second, for 0.4 s; the pages are mapped twice and count twice
        // as resident.
        Self {
            ring_bytes: 4 << 20,
            bulk_bytes: 8 << 20,
            flows: nightjar_abi::network::FLOWS,
            log_level: 0,
            settings: Settings::default(),
        }
    }
}

/// Why the kernel side could not be set up. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No BTF of the running kernel.
    #[error(
        "cannot read the kernel's type information; Nightjar needs a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    FieldsBtf(#[from] FieldsBtfError),
    /// The loader's own view of BTF.
    #[error("cannot read the kernel's type information")]
    Btf(#[from] BtfError),
    /// A field is not as we need it.
    #[error(transparent)]
    Fields(#[from] ResolveError),
    /// The ring's size cannot be.
    #[error("ring buffer size {0} bytes is not a power of two of at least one page (4096); use {1}")]
    RingSize(u32, u32),
    /// The number of CPUs is not known.
    #[error("cannot tell how many CPUs there may be from {0}")]
    Cpus(&'static str, #[source] io::Error),
    /// Maps could not be made or the object not be relocated.
    #[error("cannot create the kernel programs' maps; this needs root, or CAP_BPF and CAP_PERFMON")]
    Load(#[source] Box<EbpfError>),
    /// A sensor that the agent cannot do without has no hook.
    #[error("{sensor} cannot be served: {reason}")]
    NoHook {
        /// What has none.
        sensor: plan::Sensor,
        /// What the host said to each candidate.
        reason: String,
    },
    /// A map is not as the object should have it.
    #[error("map {0} is not usable")]
    Map(&'static str, #[source] MapError),
    /// The object lacks something: a build that is not whole.
    #[error("the kernel object has no {0}; build with `cargo xtask build`")]
    Object(&'static str),
    /// The reader of the ring could not be made wakeable.
    #[error("cannot create an event descriptor")]
    Doorbell(#[source] io::Error),
    /// What runs could not be read.
    #[error("cannot read the task iterator: {0}")]
    Iterator(String),
}

/// What was there before the agent: records of iterators, one after another.
#[derive(Debug)]
pub struct Snapshot {
    /// What ran. None: the iterator is refused; look in `/proc`.
    pub tasks: Option<Vec<u8>>,
    /// Sockets, each as often as somebody has it open.
    pub sockets: Vec<u8>,
    /// Whether the host takes programs on cgroups.
    takes_cgroups: bool,
}

/// Loaded and attached programs. They are detached when this is dropped, or the process ends in any
/// way.
pub struct Kernel {
    ebpf: Ebpf,
    serving: Vec<Serving>,
    ring_bytes: u64,
    controls: Option<Controls>,
    files: Option<FileControls>,
    network: Option<NetworkControls>,
    snapshot: Option<Snapshot>,
    /// Fields that the kernel does not have.
    missing: Vec<&'static str>,
}

impl Kernel {
    /// Loads and attaches what the sensors need that are `wanted`, and those that the process table
    /// needs.
    ///
    /// # Errors
    /// When the kernel lacks what no sensor can do without.
    pub fn load(options: &Options, wanted: impl Fn(&SensorPlan) -> bool + Sync) -> Result<Self, KernelError> {
        check_ring_size(options.ring_bytes)?;
        check_ring_size(options.bulk_bytes)?;
        raise_memlock();

        let offsets = resolve(&btf::Btf::from_kernel()?, fields::TABLE, &kernel_release())?;
        let missing: Vec<_> = offsets.missing().collect();
        for field in &missing {
            debug!("this kernel has no {field}");
        }
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| KernelError::Cpus(file, error))?;
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        let helper = is_helper_supported(ProgramType::TracePoint, BpfHelper::BPF_FUNC_task_pt_regs);

        // The verifier's account of each step is megabytes, its complaint is a line.
        let verifier_log = if tracing::enabled!(tracing::Level::DEBUG) {
            VerifierLogLevel::DEBUG | VerifierLogLevel::STATS
        } else {
            VerifierLogLevel::STATS
        };
        let mut ebpf = EbpfLoader::new()
            // Our object has no relocations against the kernel's types, and what the loader read of them
            // takes 20 MiB: only one such copy at a time.
            .btf(None)
            .verifier_log_level(verifier_log)
            .override_global("FIELD_OFFSETS", offsets.values(), true)
            .override_global("HAVE_TASK_PT_REGS", &u8::from(helper.unwrap_or(false)), true)
            .override_global(aya_log::LEVEL, &options.log_level, true)
            .map_max_entries("CRITICAL", options.ring_bytes)
            .map_max_entries("BULK", options.bulk_bytes)
            .map_max_entries("SCRATCH", cpus.saturating_mul(SCRATCH_LEVELS))
            .map_max_entries("TASK_CREDS", tasks_kept())
            .map_max_entries("FLOWS", options.flows)
            .load(OBJECT)
            .map_err(|error| KernelError::Load(Box::new(error)))?;

        let map = |name, map: Option<Map>| map.ok_or(KernelError::Object(name));
        let settings = Array::try_from(map("SETTINGS", ebpf.take_map("SETTINGS"))?)
            .map_err(|error| KernelError::Map("SETTINGS", error))?;
        let cgroups = HashMap::try_from(map("FILTERED_CGROUPS", ebpf.take_map("FILTERED_CGROUPS"))?)
            .map_err(|error| KernelError::Map("FILTERED_CGROUPS", error))?;
        let mut controls = Controls::new(settings, cgroups);
        controls.set(&options.settings).map_err(|error| KernelError::Map("SETTINGS", error))?;

        let mut files = file_controls(&mut ebpf)?;
        let mut network = network_controls(&mut ebpf)?;

        let btf = Btf::from_sys_fs()?;
        let result = tracefs::with(|| attach(&mut ebpf, &Places::new(&btf, &missing, None), &wanted));
        let (serving, snapshot) = match result {
            Ok(result) => result,
            // Then all but the hooks that need it.
            Err(error) => {
                let error = format!("no tracefs: {error}");
                attach(&mut ebpf, &Places::new(&btf, &missing, Some(&error)), &wanted)
            }
        }?;
        drop(btf);
        give_back_memory();
        files.is_served = serving
            .iter()
            .any(|serving| serving.plan.sensor == plan::Sensor::FileOpen && serving.candidate.is_some());
        network
            .bind_by_call(!snapshot.takes_cgroups)
            .map_err(|error| KernelError::Map("NETWORK_SETTINGS", error))?;
        Ok(Self {
            ebpf,
            files: Some(files),
            network: Some(network),
            serving,
            ring_bytes: u64::from(options.ring_bytes) + u64::from(options.bulk_bytes),
            controls: Some(controls),
            snapshot: Some(snapshot),
            missing,
        })
    }

    /// Which hook serves which sensor.
    #[must_use]
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// The reader's end of the rings. There is one.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_ring(&mut self) -> Result<Ring, KernelError> {
        let mut lane = |name| {
            let map = self.take_map(name)?;
            RingBuf::try_from(map).map_err(|error| KernelError::Map(name, error))
        };
        let (critical, bulk) = (lane("CRITICAL")?, lane("BULK")?);
        let state: Array<MapData, u32> =
            Array::try_from(self.take_map("READER")?).map_err(|error| KernelError::Map("READER", error))?;
        Ring::new(critical, bulk, state, self.ring_bytes).map_err(KernelError::Doorbell)
    }

    /// The counters. There is one reader.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_counters(&mut self) -> Result<Counters, KernelError> {
        let map = PerCpuArray::try_from(self.take_map("COUNTERS")?)
            .map_err(|error| KernelError::Map("COUNTERS", error))?;
        Ok(Counters::new(map, self.programs()))
    }

    /// The programs that are loaded, for [`Counters::of`].
    #[must_use]
    pub fn programs(&self) -> Vec<(Hook, OwnedFd)> {
        let mut programs = Vec::new();
        for row in PLAN {
            for (name, _) in row.candidates.iter().flat_map(|candidate| candidate.programs) {
                // One that is not loaded has none.
                let fd = self.ebpf.program(name).and_then(|program| program.fd().ok());
                if let Some(fd) = fd.and_then(|fd| fd.as_fd().try_clone_to_owned().ok()) {
                    programs.push((row.hook, fd));
                }
            }
        }
        programs
    }

    /// Attaches what `wanted` sensors need that are not served. What nobody wants any more stays: an agent that has
    /// given up its rights could not attach it again.
    ///
    /// # Errors
    /// When one cannot be served; then all is as it was.
    pub fn adjust(&mut self, wanted: impl Fn(&SensorPlan) -> bool + Sync) -> Result<(), KernelError> {
        let Self { ebpf, serving, missing, .. } = self;
        let is_served = |plan: &SensorPlan| serving.iter().any(|serving| serving.plan.sensor == plan.sensor);
        let more: Vec<_> = PLAN.iter().filter(|plan| wanted(plan) && !is_served(plan)).collect();
        if !more.is_empty() {
            let served = match tracefs::with(|| attach_more(ebpf, &more, missing, None)) {
                Ok(served) => served,
                Err(error) => attach_more(ebpf, &more, missing, Some(&format!("no tracefs: {error}"))),
            };
            give_back_memory();
            serving.extend(served?);
        }
        Ok(())
    }

    /// What can be changed from now on. There is one.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_controls(&mut self) -> Result<Controls, KernelError> {
        self.controls.take().ok_or(KernelError::Object("SETTINGS"))
    }

    /// What is told to the programs about files. There is one.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_files(&mut self) -> Result<FileControls, KernelError> {
        self.files.take().ok_or(KernelError::Object("FILE_SETTINGS"))
    }

    /// What is told to the programs about sockets, and asked of them. There is one.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_network(&mut self) -> Result<NetworkControls, KernelError> {
        self.network.take().ok_or(KernelError::Object("FLOWS"))
    }

    /// What ran before the programs were attached. There is one.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_snapshot(&mut self) -> Result<Snapshot, KernelError> {
        self.snapshot.take().ok_or(KernelError::Object("snapshot"))
    }

    /// The loaded object, for its log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn take_map(&mut self, name: &'static str) -> Result<Map, KernelError> {
        self.ebpf.take_map(name).ok_or(KernelError::Object(name))
    }
}

/// Tells the programs about system calls and who the agent is.
fn file_controls(ebpf: &mut Ebpf) -> Result<FileControls, KernelError> {
    fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError> {
        let map = ebpf.take_map(name).ok_or(KernelError::Object(name))?;
        T::try_from(map).map_err(|error| KernelError::Map(name, error))
    }
    let calls = ebpf.map_mut("CALLS").ok_or(KernelError::Object("CALLS"))?;
    let mut calls: Array<&mut MapData, [u64; CallShape::WORDS]> =
        Array::try_from(calls).map_err(|error| KernelError::Map("CALLS", error))?;
    for (number, shape) in shapes() {
        calls.set(number, shape, 0).map_err(|error| KernelError::Map("CALLS", error))?;
    }
    let mut controls = FileControls {
        settings: map(ebpf, "FILE_SETTINGS")?,
        watched: map(ebpf, "WATCHED")?,
        folded: map(ebpf, "FOLDED")?,
        identity: map(ebpf, "IDENTITY")?,
        now: FileSettings::default(),
        is_served: false,
    };
    let settings = FileSettings { own_pid: u64::from(std::process::id()), ..FileSettings::default() };
    controls.set(settings).map_err(|error| KernelError::Map("FILE_SETTINGS", error))?;
    Ok(controls)
}

/// What programs are loaded by and attached to.
struct Places<'a> {
    btf: &'a Btf,
    /// The root of the cgroups, or why it is not to be had.
    cgroup: Result<OwnedFd, String>,
    no_tracefs: Option<&'a str>,
    /// Fields that the kernel does not have.
    missing: &'a [&'static str],
}

/// Programs of which nothing comes where the kernel lacks a field.
const NEEDS: &[(&str, &str)] = &[("socket_uring", "URING_RESULT")];

impl<'a> Places<'a> {
    fn new(btf: &'a Btf, missing: &'a [&'static str], no_tracefs: Option<&'a str>) -> Self {
        let cgroup = cgroup2::root().map_err(|error| format!("no root of cgroups: {error}"));
        Self { btf, cgroup, no_tracefs, missing }
    }
}

/// Loads and attaches a tiny program of each kind that hooks need.
fn probe(ebpf: &mut Ebpf, places: &Places<'_>) -> Probes {
    let mut probes = Probes::new();
    for kind in HookKind::PROBED {
        let (name, point) = match kind {
            HookKind::BtfTracepoint => ("probe_tp_btf", "sched_process_exit"),
            HookKind::SyscallTracepoint => ("probe_syscall", "sys_exit_execve"),
            HookKind::TaskIterator => ("probe_iter", "task"),
            HookKind::Cgroup => ("probe_cgroup", "sock_release"),
            HookKind::Passing | HookKind::Procfs => continue,
        };
        let answer = match (kind, places.no_tracefs, &places.cgroup) {
            (HookKind::SyscallTracepoint, Some(reason), _) => Err(reason.to_owned()),
            (HookKind::Cgroup, _, Err(reason)) => Err(reason.clone()),
            _ => try_program(ebpf, places, name, &[point]).map(|()| unload_program(ebpf, name)),
        };
        match &answer {
            Ok(()) => debug!("the host takes a {kind}"),
            Err(reason) => info!("the host refuses a {kind}: {reason}"),
        }
        probes.insert(kind, answer);
    }
    probes
}

/// Serves each sensor that is wanted by the first of its candidates that the host takes.
fn attach(
    ebpf: &mut Ebpf,
    places: &Places<'_>,
    wanted: &impl Fn(&SensorPlan) -> bool,
) -> Result<(Vec<Serving>, Snapshot), KernelError> {
    let probes = probe(ebpf, places);
    load_ahead(ebpf, places, &wanted, &probes);
    let (mut all, mut snapshot) = (
        Vec::new(),
        Snapshot {
            tasks: None,
            sockets: Vec::new(),
            takes_cgroups: matches!(probes.get(&HookKind::Cgroup), Some(Ok(()))),
        },
    );
    for plan in PLAN.iter().filter(|plan| plan.required || wanted(plan)) {
        let serving = plan::choose(plan, &probes, |candidate| try_candidate(ebpf, places, candidate));
        let reasons = reasons(&serving);
        match serving.candidate {
            Some(candidate) if !reasons.is_empty() => warn!(
                "{} is served by {} ({}), as better ways are refused: {reasons}",
                plan.sensor, candidate.kind, candidate.worth
            ),
            Some(_) => {}
            None if plan.required => {
                return Err(KernelError::NoHook { sensor: plan.sensor, reason: reasons });
            }
            None => warn!("{} is not watched: {reasons}", plan.sensor),
        }
        if serving.candidate.is_some_and(|candidate| candidate.kind == HookKind::TaskIterator) {
            match plan.sensor {
                plan::Sensor::SocketSnapshot => snapshot.sockets = iterate(ebpf, "snapshot_sockets")?,
                _ => snapshot.tasks = Some(iterate(ebpf, "snapshot_tasks")?),
            }
        }
        all.push(serving);
    }
    Ok((all, snapshot))
}

/// Loads what will likely serve before anything is attached: the verifier takes seconds over all of it on a busy host,
/// in which nobody would read the records of what is attached already.
fn load_ahead(ebpf: &mut Ebpf, places: &Places<'_>, wanted: &impl Fn(&SensorPlan) -> bool, probes: &Probes) {
    for plan in PLAN.iter().filter(|plan| plan.required || wanted(plan)) {
        let Some(best) =
            plan.candidates.first().filter(|best| !matches!(probes.get(&best.kind), Some(Err(_))))
        else {
            continue;
        };
        for (name, points) in best.programs {
            // What is refused is so again when it is to be attached, and told then.
            if let Err(reason) = load_only(ebpf, places, name, points) {
                debug!("{name} does not load: {reason}");
            }
        }
    }
}

/// Why better candidates, or all, do not serve.
fn reasons(serving: &Serving) -> String {
    let reasons = serving.refused.iter().map(|refusal| format!("{}: {}", refusal.kind, refusal.reason));
    reasons.collect::<Vec<_>>().join("; ")
}

fn detach(ebpf: &mut Ebpf, serving: &Serving) {
    for (name, _) in serving.candidate.iter().flat_map(|candidate| candidate.programs) {
        unload_program(ebpf, name);
    }
}

/// Serves sensors that were not served before: all of them or none.
fn attach_more(
    ebpf: &mut Ebpf,
    plans: &[&'static SensorPlan],
    missing: &[&'static str],
    no_tracefs: Option<&str>,
) -> Result<Vec<Serving>, KernelError> {
    let btf = Btf::from_sys_fs()?;
    let places = Places::new(&btf, missing, no_tracefs);
    let probes = probe(ebpf, &places);
    let mut all: Vec<Serving> = Vec::new();
    for plan in plans {
        let serving = plan::choose(plan, &probes, |candidate| try_candidate(ebpf, &places, candidate));
        if serving.candidate.is_none() {
            for serving in &all {
                detach(ebpf, serving);
            }
            return Err(KernelError::NoHook { sensor: plan.sensor, reason: reasons(&serving) });
        }
        all.push(serving);
    }
    Ok(all)
}

/// Reads an iterator to its end.
fn iterate(ebpf: &mut Ebpf, name: &'static str) -> Result<Vec<u8>, KernelError> {
    let Some(Program::Iter(program)) = ebpf.program_mut(name) else {
        return Err(KernelError::Object(name));
    };
    let refused = |error: ProgramError| KernelError::Iterator(explain(&error));
    let link = program.attach().map_err(refused)?;
    let link = program.take_link(link).map_err(refused)?;
    let mut file = link.into_file().map_err(|error| KernelError::Iterator(error.to_string()))?;
    let mut records = Vec::new();
    io::copy(&mut file, &mut records).map_err(|error| KernelError::Iterator(error.to_string()))?;
    program.unload().map_err(refused)?;
    Ok(records)
}

/// Loads and attaches all programs of a candidate, or none.
fn try_candidate(ebpf: &mut Ebpf, places: &Places<'_>, candidate: &Candidate) -> Result<(), String> {
    for (index, (name, points)) in candidate.programs.iter().enumerate() {
        // An iterator is attached when it is read.
        let attached = if candidate.kind == HookKind::TaskIterator {
            load_only(ebpf, places, name, points)
        } else {
            try_program(ebpf, places, name, points)
        };
        if let Err(reason) = attached {
            for (name, _) in &candidate.programs[..index] {
                unload_program(ebpf, name);
            }
            return Err(format!("{name}: {reason}"));
        }
        debug!("{name} is loaded");
    }
    Ok(())
}

fn load_only(ebpf: &mut Ebpf, places: &Places<'_>, name: &str, points: &[&str]) -> Result<(), String> {
    let lacks = |(program, field): &&(&str, &str)| *program == name && places.missing.contains(field);
    if let Some((_, field)) = NEEDS.iter().find(lacks) {
        return Err(format!("this kernel has no {field}"));
    }
    let program = ebpf.program_mut(name).ok_or("the object does not have it")?;
    match load_program(program, places.btf, points[0]) {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(error) => Err(explain(&error)),
    }
}

/// Loads a program and attaches it to all its points, or to none.
fn try_program(ebpf: &mut Ebpf, places: &Places<'_>, name: &str, points: &[&str]) -> Result<(), String> {
    load_only(ebpf, places, name, points)?;
    let program = ebpf.program_mut(name).ok_or("the object does not have it")?;
    for (n, point) in points.iter().enumerate() {
        if let Err(error) = attach_program(program, places, point) {
            if n > 0 && is_unknown_call(&error) {
                debug!("this kernel has no {point}");
                continue;
            }
            let reason = format!("at {point}: {}", explain(&error));
            unload_program(ebpf, name);
            return Err(reason);
        }
    }
    Ok(())
}

fn load_program(program: &mut Program, btf: &Btf, point: &str) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.load(point, btf),
        Program::TracePoint(program) => program.load(),
        Program::Iter(program) => program.load(point, btf),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_program(program: &mut Program, places: &Places<'_>, point: &str) -> Result<(), ProgramError> {
    /// A link, as it is made since 5.7, is beside those of others without saying so.
    const BESIDE: CgroupAttachMode = CgroupAttachMode::Single;
    let root = || places.cgroup.as_ref().map_err(|_| ProgramError::UnexpectedProgramType);
    match program {
        Program::BtfTracePoint(program) => program.attach().map(|_link| ()),
        Program::TracePoint(program) => program.attach("syscalls", point).map(|_link| ()),
        Program::Iter(program) => program.attach().map(|_link| ()),
        Program::CgroupSock(program) => program.attach(root()?, BESIDE).map(|_link| ()),
        Program::CgroupSockAddr(program) => program.attach(root()?, BESIDE).map(|_link| ()),
        Program::CgroupSkb(program) => {
            let attach_type =
                if point == "ingress" { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            program.attach(root()?, attach_type, BESIDE).map(|_link| ())
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Whether there is no such tracepoint: kernels have got system calls over the years.
fn is_unknown_call(error: &ProgramError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Detaches a program from wherever it is attached.
fn unload_program(ebpf: &mut Ebpf, name: &str) {
    let unloaded = match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::TracePoint(program)) => program.unload(),
        Some(Program::Iter(program)) => program.unload(),
        Some(Program::CgroupSock(program)) => program.unload(),
        Some(Program::CgroupSockAddr(program)) => program.unload(),
        Some(Program::CgroupSkb(program)) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = unloaded {
        debug!("{name} does not go: {error}");
    }
}

/// What the kernel said: the innermost cause, or the end of what its verifier printed, which can be
/// megabytes and of which the end tells most.
fn explain(error: &ProgramError) -> String {
    /// Lines that the verifier ends with, after its complaint.
    const STATISTICS: [&str; 4] = ["verification time", "stack depth", "subprog ", "processed"];
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        debug!("the verifier's log:\n{log}");
        let complaint = log
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)));
        return match complaint {
            Some(complaint) => format!("{io_error}; its verifier says: {complaint} (-vv for all of it)"),
            None => io_error.to_string(),
        };
    }
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

/// Gives freed memory back to the system. Start-up takes some 20 MiB for the kernel's type information, all that
/// follows 2; finding what is watched takes as much as there is of that. The allocator keeps what was freed unless it
/// is asked.
#[allow(unsafe_code, reason = "the C library offers it in no other way")]
pub fn give_back_memory() {
    // SAFETY: no preconditions; it only touches memory that is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

fn check_ring_size(bytes: u32) -> Result<(), KernelError> {
    const PAGE: u32 = 4096;
    if bytes >= PAGE && bytes.is_power_of_two() {
        return Ok(());
    }
    Err(KernelError::RingSize(bytes, bytes.max(PAGE).checked_next_power_of_two().unwrap_or(1 << 31)))
}

/// How many tasks' credentials there is room for: as many as the kernel allows, within 10 MiB of its memory.
fn tasks_kept() -> u32 {
    /// About 150 bytes each, taken at once: programs of this kind may not allocate while they run.
    const MOST: u32 = 65536;
    const LEAST: u32 = 4096;
    let allowed = fs::read_to_string("/proc/sys/kernel/threads-max").ok();
    let allowed = allowed.and_then(|text| text.trim().parse().ok()).unwrap_or(MOST);
    allowed.clamp(LEAST, MOST)
}

/// Before 5.11 maps count against this limit. Where it may not be raised, as in many containers, newer
/// kernels do not care and older ones say so when a map is made.
fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        debug!(
            "the limit of locked memory stays as it is ({error}); kernels since 5.11 do not need it raised"
        );
    }
}

fn kernel_release() -> String {
    let file = Path::new("/proc/sys/kernel/osrelease");
    fs::read_to_string(file).map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_size_that_cannot_be_is_refused_with_the_next_that_can() {
        assert_eq!(
            check_ring_size(3 << 20).unwrap_err().to_string(),
            "ring buffer size 3145728 bytes is not a power of two of at least one page (4096); use 4194304"
        );
        assert!(check_ring_size(1000).unwrap_err().to_string().ends_with("use 4096"));
        assert!(check_ring_size(4096).is_ok());
    }
}
