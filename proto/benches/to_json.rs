//! What one event costs at the edge: its JSON line, beside its protobuf form and a copy of the line's bytes as
//! baselines of the same run.
//!
//! `cargo bench -p nightjar-proto`

#[path = "../tests/samples/mod.rs"]
mod samples;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nightjar_proto::v1::{Capabilities, Event, Exec, event::Body};
use prost::Message as _;

const ROUNDS: u32 = 200;
const CALLS: u32 = 1_000;

/// Time of one call, in the fastest of many rounds: what others do on the machine only adds.
fn measure(mut call: impl FnMut()) -> Duration {
    let round = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        start.elapsed() / CALLS
    };
    std::iter::repeat_with(round).take(ROUNDS as usize).min().unwrap_or_default()
}

/// An exec as most hosts have thousands of: fields are set as the agent sets them, not all of them.
fn typical() -> Option<(&'static str, Event)> {
    let (_, mut event) = samples::complete().into_iter().next()?;
    let process = event.process.as_mut()?;
    process.capabilities = Some(Capabilities { bounding: vec!["all".into()], ..Capabilities::default() });
    process.args_truncated = false;
    process.euser.clear();
    process.egroup.clear();
    process.securebits = 0;
    process.no_new_privs = false;
    process.kernel_thread = false;
    process.container = None;
    process.ns_pid = 0;
    for file in [&mut process.exe, &mut event.parent.as_mut()?.exe].into_iter().flatten() {
        (file.deleted, file.memfd, file.path_truncated) = (false, false, false);
    }
    event.parent.as_mut()?.args_truncated = false;
    let filename = "/usr/bin/grep".into();
    event.body = Some(Body::Exec(Exec { filename, argc: 4, args_size: 48, ..Exec::default() }));
    Some(("typical process.exec", event))
}

fn main() {
    for (name, event) in typical().into_iter().chain(samples::complete()) {
        let mut line = Vec::new();
        nightjar_proto::to_json(&event, &mut line);
        let mut buffer = Vec::with_capacity(2 * line.len());

        let json = measure(|| {
            buffer.clear();
            nightjar_proto::to_json(black_box(&event), &mut buffer);
            black_box(&buffer);
        });
        let protobuf = measure(|| {
            buffer.clear();
            // The buffer grows as needed, so there is no error to see.
            let _ = black_box(&event).encode(&mut buffer);
            black_box(&buffer);
        });
        let copy = measure(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(&line));
            black_box(&buffer);
        });
        println!(
            "{name:24} {size:5} bytes: JSON {json:>9.3?}  protobuf {protobuf:>9.3?}  copy {copy:>9.3?}",
            size = line.len()
        );
    }
}
