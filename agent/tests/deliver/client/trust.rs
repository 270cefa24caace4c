//! Who the agent talks to, and as whom.

use std::{
    fs,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use nightjar::deliver::{client::State, tls::TlsFiles};
use nightjar_proto::v1::{Refusal, Refused};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{agent::Agent, authority::Authority, backend::Backend};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_delivers_also_through_a_proxy() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let backend = Arc::new(Backend::default());
    let (_keep, tls) = watch::channel(authority.server("localhost", false));
    let address = backend.serve(Some(tls)).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_address = proxy.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(client.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with(&format!("CONNECT {address} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{request}");
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut server = TcpStream::connect(address).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let proxy = format!("http://user:secret@{proxy_address}");
    let tls = authority.agent(files.path(), false);
    let agent = Agent::start(&format!("https://{address}"), Some(tls), Some(&proxy));
    agent.append(20);
    agent.expect_all_acknowledged().await;
    assert_eq!(backend.count(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_cannot_be_trusted_gets_nothing() {
    let (ours, other) = (Authority::new(), Authority::new());
    for (name, config, mend) in [
        ("of another authority", other.server("localhost", false), "is it the right backend?"),
        ("of another name", ours.server("elsewhere", false), "set the server name"),
        ("expired", ours.server("localhost", true), "renew it on the backend"),
    ] {
        let files = tempfile::tempdir().unwrap();
        let backend = Arc::new(Backend::default());
        let (_keep, tls) = watch::channel(config);
        let address = backend.serve(Some(tls)).await;
        let mut agent =
            Agent::start(&format!("https://{address}"), Some(ours.agent(files.path(), false)), None);
        agent.append(1);
        let problem = agent.expect_problem("invalid peer certificate").await;
        assert!(problem.contains(mend), "{problem}");
        assert_eq!(backend.count(), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plaintext_backend_gets_nothing_from_an_agent_with_tls() {
    let files = tempfile::tempdir().unwrap();
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let tls = Authority::new().agent(files.path(), false);
    let mut agent = Agent::start(&format!("https://{address}"), Some(tls), None);
    agent.append(1);
    agent.expect_problem("it does not speak TLS there").await;
    assert_eq!(backend.count(), 0);
    assert_eq!(backend.hellos.lock().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_replaced_by_a_new_one_without_a_restart() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let backend = Arc::new(Backend::default());
    let (_keep, tls) = watch::channel(authority.server("localhost", false));
    let address = backend.serve(Some(tls)).await;
    let tls = authority.agent(files.path(), true);
    let mut agent = Agent::start(&format!("https://{address}"), Some(tls), None);
    agent.append(5);
    agent.expect_problem("this agent's certificate has ended; enrol it again").await;
    assert_eq!(backend.count(), 0);
    let _ = authority.agent(files.path(), false);
    agent.expect_all_acknowledged().await;
    // A connection is made anew when files are replaced while it is up.
    let sessions = agent.expect("a session", |status| status.state == State::Connected).await.sessions;
    let _ = authority.agent(files.path(), false);
    agent.expect("another session", |status| status.sessions > sessions).await;
    agent.append(5);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (10, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_events_never_stop() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let backend = Arc::new(Backend::default());
    let (_keep, tls) = watch::channel(authority.server("localhost", false));
    let address = backend.serve(Some(tls)).await;
    let tls = authority.agent(files.path(), false);
    let mut agent = Agent::start(&format!("https://{address}"), Some(tls), None);
    agent.expect("a session", |status| status.state == State::Connected).await;
    // A certificate without its key is no reason to end a session.
    let paths = TlsFiles::in_directory(files.path());
    let (certificate, key) = authority.issue("renamed", false);
    fs::write(paths.certificate, certificate).unwrap();
    let mut replaced = None;
    let start = Instant::now();
    while agent.status.borrow().sessions < 2 {
        agent.append(1);
        sleep(Duration::from_millis(2)).await;
        if start.elapsed() > Duration::from_secs(5) && replaced.is_none() {
            assert_eq!(agent.status.borrow().sessions, 1);
            fs::write(&paths.key, &key).unwrap();
            replaced = Some(Instant::now());
        }
        assert!(start.elapsed() < Duration::from_secs(15));
    }
    let took = replaced.unwrap().elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    agent.expect_all_acknowledged().await;
    let names: Vec<_> = backend.hellos.lock().unwrap().iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(names, ["agent", "renamed"]);
    assert_eq!(backend.duplicates.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_says_what_to_do_and_comes_back_when_it_is_enrolled_again() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let backend = Arc::new(Backend::default());
    let (_keep, tls) = watch::channel(authority.server("localhost", false));
    let address = backend.serve(Some(tls)).await;
    let tls = authority.agent(files.path(), false);
    let mut agent = Agent::start_with(&format!("https://{address}"), Some(tls), None, Duration::from_mins(1));
    agent.append(5);
    agent.expect_all_acknowledged().await;
    let detail = "agent was revoked".to_owned();
    let refused = Refused { reason: Refusal::Revoked.into(), detail, ..Refused::default() };
    backend.refusal.send_replace(Some(refused));
    let problem = agent.expect_problem("REFUSAL_REVOKED").await;
    assert!(problem.contains("nightjar enrol --force"), "{problem}");
    agent.append(5);
    sleep(Duration::from_secs(1)).await;
    let status = agent.status.borrow().clone();
    assert_eq!((status.state, status.attempts), (State::Refused, 1));
    backend.refusal.send_replace(None);
    let _ = authority.agent(files.path(), false);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (10, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_is_told_of_without_its_password() {
    let files = tempfile::tempdir().unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = proxy.accept().await {
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await;
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
            client.write_all(answer).await.unwrap();
        }
    });
    let tls = Authority::new().agent(files.path(), false);
    let proxy = format!("http://user:geheim@{address}");
    let mut agent = Agent::start("https://127.0.0.1:9", Some(tls), Some(&proxy));
    let problem = agent.expect_problem("check user and password of the proxy").await;
    assert!(problem.contains(&address.to_string()) && !problem.contains("geheim"), "{problem}");
}
