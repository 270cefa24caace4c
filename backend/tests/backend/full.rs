//! The disk is full.

use std::{fs, io::Write as _, net::TcpStream, path::Path, process::Command, time::Duration};

use nightjar_proto::v1::Refusal;

use crate::{
    client::{Answer, EVENTS, Stream, batch, channel, stored},
    process::{Backend, free_address},
};

/// A file system of its own, unmounted at the end. None: this user may not mount.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(dir.path()).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        assert!(std::env::var("CI").is_err_and(|_| true), "CI must be able to mount a tmpfs");
        eprintln!("skipped: this user may not mount a tmpfs");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn ready(address: std::net::SocketAddr) -> u16 {
    get(address, "/readyz").0
}

/// Code and answer.
fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Sends from `next` on, each batch after the acknowledgement of the one before, until it is refused.
async fn until_refused(stream: &mut Stream, next: &mut u64, most: u64) -> Option<Refusal> {
    while *next <= most {
        stream.send(batch("a", *next, 4000)).await;
        match stream.answer().await {
            Answer::Acknowledged(sequence) => *next = sequence + 1,
            Answer::Refused(refused) => return Some(refused.reason()),
            Answer::Broken => panic!("the backend ended"),
        }
    }
    None
}

async fn fill_and_free(reserve: &str, dir: &Path) {
    let (address, health) = (free_address(), free_address());
    let arguments = ["--plaintext", "--reserve", reserve, "--health", &health.to_string()];
    let backend = Backend::start(dir, address, &arguments);
    assert_eq!(ready(health), 200);
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();

    let mut stream = Stream::open(channel(address).await.unwrap(), "a").await.unwrap();
    let mut next = 1;
    let refusal = until_refused(&mut stream, &mut next, 2000).await;
    assert_eq!(refusal, Some(Refusal::StoreFull), "after {next}");
    let (code, why) = get(health, "/readyz");
    assert!(code == 503 && why.starts_with("full: "), "{code} {why}");
    // It runs all the same: who starts it again would not help.
    assert_eq!(get(health, "/healthz"), (200, "ok\n".to_owned()));
    // It comes back to nothing but refusals, and nothing ends.
    let mut stream = Stream::open(channel(address).await.unwrap(), "a").await.unwrap();
    assert_eq!(until_refused(&mut stream, &mut next, 2000).await, Some(Refusal::StoreFull));

    fs::remove_file(&ballast).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ready(health), 200);
    let mut stream = Stream::open(channel(address).await.unwrap(), "a").await.unwrap();
    let most = next + 20;
    assert_eq!(until_refused(&mut stream, &mut next, most).await, None);
    backend.stop();
    let stored = stored(dir);
    assert_eq!(stored.len() as u64, (next - 1) * EVENTS);
    assert!(stored.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_batches_are_refused_and_taken_when_there_is_room_again() {
    for reserve in ["0", "1"] {
        let Some(tmpfs) = Tmpfs::mount("8m") else { return };
        fill_and_free(reserve, tmpfs.0.path()).await;
    }
}
