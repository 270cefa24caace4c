//! The output as a whole, on a state directory that cannot be written at the start.

use std::{
    path::Path,
    process::{Command, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

use nightjar::deliver::{Delivery, Options, connect::Target, spool::Limits};
use nightjar_proto::v1::{Delivery as Status, Event};
use prost::Message as _;

use crate::client::backend::Backend;

/// The directory; in the process that has its own mounts.
const DIRECTORY: &str = "NIGHTJAR_READ_ONLY_TEST";

/// Needs a file system that is read-only, which a mount namespace of its own gives to root.
#[test]
fn an_agent_whose_state_directory_is_read_only_goes_on_and_delivers_once_it_can_be_written() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(on_a_read_only_disk(Path::new(&directory)));
    }
    if !rustix::process::geteuid().is_root() && std::env::var_os("CI").is_none() {
        println!("skipped: mounting a tmpfs takes root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o ro none \"${DIRECTORY}\" && exec \"$0\" \"$@\"");
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("read_only::an_agent_whose_state_directory_is_read_only_goes_on_and_delivers_once_it_can_be_written")
        .env(DIRECTORY, directory.path())
        .status();
    assert!(status.as_ref().is_ok_and(ExitStatus::success), "{status:?}");
}

async fn on_a_read_only_disk(directory: &Path) {
    let state = directory.join("state");
    assert!(std::fs::create_dir(&state).is_err(), "it is not read-only");
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let options = Options {
        target: Target::parse(&format!("http://{address}"), None, None, true).unwrap(),
        state,
        limits: Limits { bytes: 8 << 20, sync_every: Duration::from_millis(50) },
        host: "host".to_owned(),
        version: "0.1.0".to_owned(),
        plaintext_name: "agent".to_owned(),
    };
    let (delivery, link) = Delivery::open(options).unwrap();
    assert_eq!(link.complete_until, None);
    let linked = link.start(std::future::pending()).unwrap();
    let send = |count: u64| {
        for _ in 0..count {
            let event = Event { kind: "process.exec".to_owned(), ..Event::default() };
            delivery.event(&event, &event.encode_to_vec());
        }
    };
    send(30);
    let status = wait_for(&delivery, "that they are refused", |status| lost(status) == 30).await;
    assert_eq!(status.lost[0].reason, "unwritable");
    assert!(status.spool_error.contains("see that it can be written"), "{status:?}");
    wait_for(&delivery, "a connection all the same", |status| status.state == "connected").await;

    let remounted = Command::new("mount").args(["-o", "remount,rw"]).arg(directory).status();
    assert!(remounted.unwrap().success());
    wait_for(&delivery, "that it can be written", |status| status.spool_error.is_empty()).await;
    send(20);
    wait_for(&delivery, "that all is acknowledged", |status| {
        (status.acknowledged, status.waiting) == (20, 0)
    })
    .await;
    let told = || backend.lost.lock().unwrap().iter().map(|lost| lost.events).sum::<u64>();
    let start = Instant::now();
    while told() < 30 && start.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((told(), lost(&delivery.status())), (30, 30));
    delivery.close();
    drop(linked);
}

fn lost(status: &Status) -> u64 {
    status.lost.iter().map(|drops| drops.count).sum()
}

async fn wait_for(delivery: &Delivery, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
    let start = Instant::now();
    loop {
        let status = delivery.status();
        if is_so(&status) {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
