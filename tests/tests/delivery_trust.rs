//! Who may talk to whom: certificates that are wrong, end, change or are revoked cost no event, and show none to others.
//!
//! The agent's part is that of the feeder, enrolled by the real program; the backend is the real one. As with other faults
//! it is counted what was made, what is stored and how often.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nightjar_backend::ca::{self, Authority};
use nightjar_tests::{Backend, Feeder, Relay, expect_all};
use rcgen::KeyPair;
use serde_json::Value;
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_hours(365 * 24);

fn pair() -> (TempDir, Backend, Feeder) {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start_secure(&folder.path().join("backend"), &[]);
    let feeder = Feeder::new(&folder, &backend, &["--rate", "5000"]);
    (folder, backend, feeder)
}

/// The one agent that a backend knows.
fn agent(backend: &Backend) -> Value {
    let agents = backend.says(&["agents", "--json"]);
    serde_json::from_str(agents.lines().next().expect("an agent")).expect("JSON")
}

/// Gives the feeder another certificate for the same agent, with another key: first the key, as the certificate says
/// whether the others are of it.
fn certify(backend: &Backend, feeder: &Feeder, valid: Duration) {
    let id = agent(backend)["id"].as_str().expect("an ID").to_owned();
    let authority = Authority::open(&backend.data.join("tls")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let signed = authority.sign_key(&key, &id, valid).expect("a certificate");
    let identity = feeder.state.join("identity");
    replace(&identity.join("agent.key"), &key.serialize_pem());
    replace(&identity.join("agent.pem"), &signed.certificate_pem);
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("a file");
    fs::rename(new, path).expect("a file");
}

/// A life of the feeder in which nothing may be delivered. What it says at its end.
#[track_caller]
fn live_in_vain(backend: &Backend, feeder: &mut Feeder) -> Value {
    let before = backend.counts();
    let made = feeder.made().len();
    feeder.live_for(3 * SECOND);
    let said = feeder.end();
    assert_eq!(backend.counts(), before, "{said}");
    assert!(feeder.made().len() > made + 5000, "{said}");
    assert_eq!(said["lost"], 0, "{said}");
    said
}

#[test]
fn a_backend_of_another_authority_gets_nothing_and_the_right_one_all() {
    let (folder, backend, mut feeder) = pair();
    let root = feeder.state.join("identity/ca.pem");
    let ours = fs::read_to_string(&root).expect("a root");
    let elsewhere = folder.path().join("elsewhere");
    ca::create(&elsewhere, &["localhost".to_owned()]).expect("an authority");
    replace(&root, &fs::read_to_string(elsewhere.join("ca.pem")).expect("a root"));

    let said = live_in_vain(&backend, &mut feeder);
    assert_eq!(said["waiting"], feeder.made().len(), "{said}");
    assert!(said["error"].as_str().expect("why").contains("invalid peer certificate"), "{said}");
    // Put in place while it runs.
    feeder.live_for(SECOND);
    replace(&root, &ours);
    thread::sleep(6 * SECOND);
    feeder.end();
    assert_eq!(expect_all("root of another authority, then the right one", &backend, &feeder), 0);
}

#[test]
fn a_certificate_that_has_ended_delivers_nothing_until_it_is_renewed() {
    let (_folder, backend, mut feeder) = pair();
    feeder.live_for(2 * SECOND);
    feeder.end();
    expect_all("before the certificate ends", &backend, &feeder);
    certify(&backend, &feeder, SECOND);
    thread::sleep(2 * SECOND);
    let said = live_in_vain(&backend, &mut feeder);
    assert!(said["error"].as_str().is_some_and(|error| error.contains("certificate has ended")), "{said}");
    feeder.live_for(SECOND);
    certify(&backend, &feeder, YEAR);
    thread::sleep(6 * SECOND);
    feeder.end();
    assert_eq!(expect_all("certificate that has ended, then a new one", &backend, &feeder), 0);
}

#[test]
fn an_agent_whose_certificate_has_ended_can_be_enrolled_anew() {
    let (_folder, backend, mut feeder) = pair();
    certify(&backend, &feeder, SECOND);
    thread::sleep(2 * SECOND);
    live_in_vain(&backend, &mut feeder);
    backend.enrol(&feeder.state);
    feeder.live_for(2 * SECOND);
    feeder.end();
    assert_eq!(expect_all("certificate that has ended, enrolled anew", &backend, &feeder), 0);
}

#[test]
fn certificates_of_both_sides_change_while_events_flow() {
    const CHANGES: u64 = 3;
    let (_folder, backend, mut feeder) = pair();
    let relay = Relay::breaking(&backend);
    relay.hold();
    feeder.url = relay.url();
    feeder.live_for(2 * SECOND);
    let server = backend.data.join("tls/server.pem");
    for change in 0..CHANGES {
        let before = (relay.connections(), fs::read(&server).expect("a certificate"));
        let authority = Authority::open(&backend.data.join("tls")).expect("an authority");
        assert!(authority.refresh(&[format!("name-{change}.example")]).expect("a certificate"));
        assert_ne!(fs::read(&server).expect("a certificate"), before.1);
        certify(&backend, &feeder, YEAR);
        let end = Instant::now() + 20 * SECOND;
        while relay.connections() == before.0 {
            assert!(Instant::now() < end, "the new certificate was not taken");
            thread::sleep(SECOND / 10);
        }
        thread::sleep(SECOND);
    }
    feeder.end();
    assert_eq!(expect_all("certificates changed three times", &backend, &feeder), 0);
}

#[test]
fn an_agent_that_is_revoked_while_it_sends_keeps_what_was_not_acknowledged() {
    let (_folder, backend, mut feeder) = pair();
    feeder.live_for(2 * SECOND);
    backend.says(&["revoke", agent(&backend)["id"].as_str().expect("an ID")]);
    // What was on its way to the disk at this moment is stored.
    thread::sleep(SECOND / 2);
    let at_once = backend.counts();
    thread::sleep(3 * SECOND);
    assert_eq!(backend.counts(), at_once, "it went on after it was revoked");
    let said = feeder.end();
    let (made, stored) = (feeder.made().len() as u64, backend.stored().events);
    let twice = stored.values().filter(|times| **times > 1).count();
    println!(
        "{:40} made {made:8}  stored {:8}  waiting {:12}  twice {twice}",
        "revoked while it sends",
        stored.len(),
        said["waiting"]
    );
    let number = |name: &str| said[name].as_u64().expect("a number");
    assert_eq!((said["state"].as_str(), twice), (Some("refused"), 0), "{said}");
    assert!(stored.len() > 5000 && number("waiting") > 10_000, "{said}");
    // What was on its way to the disk may be stored, and the agent not have heard of it.
    let unheard = (stored.len() as u64).checked_sub(number("acknowledged"));
    assert!(unheard.is_some_and(|events| events < 10_000), "{said}");
    assert_eq!(number("lost"), 0, "{said}");
    assert_eq!(number("acknowledged") + number("waiting"), made, "{said}");

    // The next life is not let in either, and nothing of the rest is gone. It has told when it was not there, by one event.
    let said = live_in_vain(&backend, &mut feeder);
    let left = feeder.made().len() as u64 - number("acknowledged") + 1;
    assert_eq!((said["state"].as_str(), said["waiting"].as_u64()), (Some("refused"), Some(left)), "{said}");
}

#[test]
fn where_the_backend_is_in_plaintext_nothing_is_said() {
    let (folder, mut backend, mut feeder) = pair();
    backend.kill();
    let plaintext =
        Backend::start_at(backend.address, true, &folder.path().join("plaintext"), &["--reserve", "1"]);
    live_in_vain(&plaintext, &mut feeder);
    assert_eq!(plaintext.says(&["agents", "--json"]), "", "an agent said who it is");
    drop(plaintext);

    // As it is on the way: nothing but the first message of a handshake, which says what TLS the agent speaks.
    let listener = TcpListener::bind(backend.address).expect("the port");
    feeder.live();
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(2 * SECOND)).expect("a socket");
    let mut heard = Vec::new();
    let _until_it_is_silent = stream.read_to_end(&mut heard);
    feeder.end();
    drop((stream, listener));
    assert!(heard.starts_with(&[0x16, 3]), "{:?}", &heard[..heard.len().min(16)]);
    let length = usize::from(u16::from_be_bytes([heard[3], heard[4]]));
    assert_eq!(heard.len(), 5 + length, "more than one record");

    backend.again();
    feeder.live_for(2 * SECOND);
    feeder.end();
    assert_eq!(expect_all("plaintext where TLS is expected, then TLS", &backend, &feeder), 0);
}
