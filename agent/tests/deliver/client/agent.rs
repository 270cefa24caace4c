//! A spool, and a client that runs.

use std::{ops::Range, path::Path, time::Duration};

use nightjar::deliver::{
    backoff::Backoff,
    client::{Client, ClientConfig, ClientStatus},
    connect::Target,
    spool::{Batch, BootId, Lane, Limits, Reader, Spool},
    tls::Tls,
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::transport::Channel;

/// A spool, and a client that runs.
pub struct Agent {
    /// Removed with the agent.
    directory: Option<tempfile::TempDir>,
    pub spool: Spool,
    pub status: watch::Receiver<ClientStatus>,
    pub channel: watch::Receiver<Option<Channel>>,
    /// The client stops when this is dropped.
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    pub fn start(address: &str, tls: Option<Tls>, proxy: Option<&str>) -> Self {
        Self::start_with(address, tls, proxy, Duration::from_millis(100))
    }

    pub fn start_with(address: &str, tls: Option<Tls>, proxy: Option<&str>, longest_wait: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::parse(address, Some("localhost"), proxy, true).unwrap();
        let mut agent = Self::run(directory.path(), "agent", target, tls, longest_wait);
        agent.directory = Some(directory);
        agent
    }

    /// By this name, with a spool that may be there already.
    pub fn start_in(directory: &Path, name: &str, address: &str) -> Self {
        let target = Target::parse(address, Some("localhost"), None, true).unwrap();
        Self::run(directory, name, target, None, Duration::from_millis(100))
    }

    fn run(directory: &Path, name: &str, target: Target, tls: Option<Tls>, longest_wait: Duration) -> Self {
        let (spool, reader) = spool(directory);
        let config = ClientConfig {
            agent_id: name.to_owned(),
            agent_version: "0.1.0".to_owned(),
            host: "host".to_owned(),
            connect_timeout: Duration::from_millis(800),
            ping_every: Duration::from_millis(100),
            stalled_after: Duration::from_millis(800),
            most_under_way: 1 << 20,
            backoff: Backoff::new(Duration::from_millis(10), longest_wait),
        };
        let client = Client::new(config, target, tls, reader);
        let (stop, stopped) = oneshot::channel();
        let (status, channel) = (client.status(), client.channel());
        let task = tokio::spawn(client.run(async {
            let _ = stopped.await;
        }));
        Self { directory: None, spool, status, channel, stop: Some(stop), task }
    }

    /// Returns when the client has stopped.
    pub async fn stop(&mut self) {
        self.stop = None;
        timeout(Duration::from_secs(5), &mut self.task).await.unwrap().unwrap();
    }

    pub fn append(&self, count: u64) {
        append(&self.spool, 0..count);
    }

    pub async fn expect(&mut self, what: &str, is_so: impl Fn(&ClientStatus) -> bool) -> ClientStatus {
        let wait = timeout(Duration::from_secs(20), self.status.wait_for(|status| is_so(status))).await;
        wait.unwrap_or_else(|_| panic!("{what}: {:?}", self.spool.stats())).unwrap().clone()
    }

    pub async fn expect_problem(&mut self, text: &str) -> String {
        let status = self
            .expect(text, |status| status.last_error.as_ref().is_some_and(|problem| problem.contains(text)))
            .await;
        status.last_error.unwrap()
    }

    pub async fn expect_all_acknowledged(&self) {
        let wait = async {
            while self.spool.stats().lanes.iter().any(|lane| lane.unacknowledged > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let result = timeout(Duration::from_secs(20), wait).await;
        assert!(result.is_ok(), "{:?} {:?}", self.status.borrow(), self.spool.stats());
    }
}

/// The spool in a directory, which may be there already.
pub fn spool(directory: &Path) -> (Spool, Reader) {
    let limits = Limits { bytes: 32 << 20, sync_every: Duration::from_secs(1) };
    let (spool, reader, _) = Spool::open(directory, BootId([1; 16]), limits).unwrap();
    (spool, reader)
}

/// Appends batches that have names.
pub fn append(spool: &Spool, names: Range<u64>) {
    for name in names {
        let lane = if name % 5 == 0 { Lane::Critical } else { Lane::Bulk };
        let mut events = name.to_be_bytes().to_vec();
        events.resize(700, 7);
        let batch = Batch { count: 1, events: events.into(), ..Batch::default() };
        spool.append(lane, &batch).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
