//! Who is let in, and who is not.

use std::sync::Arc;

use super::*;

fn registry() -> (tempfile::TempDir, Arc<Registry>) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::open(dir.path()).unwrap());
    (dir, registry)
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_token_lets_one_agent_in_once() {
    let (dir, registry) = registry();
    let (token, _) = registry.create_token(HOUR).unwrap();
    let id = registry.enrol(&token, "web-1", "0.1.0").unwrap();
    assert!(matches!(registry.enrol(&token, "web-1", "0.1.0"), Err(TokenError::Unknown)));
    drop(registry);
    let registry = Arc::new(Registry::open(dir.path()).unwrap());
    assert!(matches!(registry.enrol(&token, "web-1", "0.1.0"), Err(TokenError::Unknown)));
    assert!(registry.admit(&id, "web-1", "0.1.0", false, Kind::Publishing).is_ok());
}

#[test]
fn an_expired_token_lets_nobody_in() {
    let (_dir, registry) = registry();
    let (token, _) = registry.create_token(Duration::ZERO).unwrap();
    assert!(matches!(registry.enrol(&token, "web-1", "0.1.0"), Err(TokenError::Expired)));
    assert_eq!(registry.agents(), []);
}

#[test]
fn the_token_itself_is_not_on_the_disk() {
    let (dir, registry) = registry();
    let (token, _) = registry.create_token(HOUR).unwrap();
    drop(registry);
    let file = std::fs::read(dir.path().join("registry.redb")).unwrap();
    assert!(!file.windows(token.len()).any(|bytes| bytes == token.as_bytes()));
}

#[tokio::test]
async fn a_revoked_agent_is_out_at_once_and_after_a_restart() {
    let (dir, registry) = registry();
    let (token, _) = registry.create_token(HOUR).unwrap();
    let id = registry.enrol(&token, "web-1", "0.1.0").unwrap();
    let session = registry.admit(&id, "web-1", "0.1.0", false, Kind::Publishing).unwrap();
    registry.revoke(&id).unwrap();
    tokio::time::timeout(Duration::from_secs(1), session.ended()).await.unwrap();
    let refused = Some(AdmissionError::Revoked(id.clone()));
    assert_eq!(registry.admit(&id, "web-1", "0.1.0", true, Kind::Publishing).err(), refused);
    drop((session, registry));
    let registry = Arc::new(Registry::open(dir.path()).unwrap());
    assert_eq!(registry.admit(&id, "web-1", "0.1.0", true, Kind::Publishing).err(), refused);
}

#[test]
fn who_is_not_enrolled_is_let_in_only_where_anybody_is() {
    let (_dir, registry) = registry();
    assert_eq!(
        registry.admit("x", "h", "1", false, Kind::Publishing).err(),
        Some(AdmissionError::Unknown("x".to_owned()))
    );
    let session = registry.admit("x", "h", "1", true, Kind::Publishing).unwrap();
    assert_eq!((registry.agents()[0].2, registry.sessions()), (true, 1));
    drop(session);
    assert_eq!((registry.agents()[0].2, registry.sessions()), (false, 0));
}

#[test]
fn an_agent_is_found_by_its_id_a_beginning_of_it_and_its_host() {
    let (_dir, registry) = registry();
    for (id, host) in [("aa1", "web-1"), ("aa2", "web-2"), ("b", "web-2")] {
        registry.admit(id, host, "1", true, Kind::Publishing).unwrap();
    }
    for (text, id) in [("aa1", "aa1"), ("web-1", "aa1"), ("b", "b")] {
        assert_eq!(registry.find(text), Ok(id.to_owned()));
    }
    assert_eq!(registry.find("aa"), Err(FindError::Many("aa".to_owned(), 2)));
    assert_eq!(registry.find("web-2"), Err(FindError::Many("web-2".to_owned(), 2)));
    for nobody in ["", "x", "web"] {
        assert_eq!(registry.find(nobody), Err(FindError::Nobody(nobody.to_owned())));
    }
}

#[tokio::test]
async fn a_later_connection_takes_the_place_of_an_earlier_one_of_its_kind() {
    let (_dir, registry) = registry();
    let open = |kind| registry.admit("x", "h", "1", true, kind).unwrap();
    let (first, other) = (open(Kind::Publishing), open(Kind::Control));
    let second = open(Kind::Publishing);
    assert_eq!(first.ended().await, End::Replaced);
    drop(first);
    assert_eq!((registry.agents()[0].2, registry.sessions()), (true, 1));
    let still_open = tokio::time::timeout(Duration::from_millis(20), other.ended()).await;
    assert!(still_open.is_err());
    drop((second, other));
    assert_eq!((registry.agents()[0].2, registry.sessions()), (false, 0));
}

#[test]
fn a_registry_that_is_damaged_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("registry.redb"), "not a database".repeat(1000)).unwrap();
    let error = Registry::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("registry.redb") && error.contains("enrolled again"), "{error}");
}

#[tokio::test]
async fn a_disk_that_stands_still_makes_only_those_wait_who_write() {
    let (dir, registry) = registry();
    for id in ["a", "b"] {
        registry.admit(id, "h", "1", true, Kind::Publishing).unwrap();
    }
    // Nothing can be written as long as this is open.
    let held = registry.database.begin_write().unwrap();
    let works: [fn(&Registry); 5] = [
        |registry| registry.flush().unwrap(),
        |registry| registry.revoke("a").unwrap(),
        |registry| registry.certify("b", 1).unwrap(),
        |registry| drop(registry.create_token(HOUR).unwrap()),
        |registry| registry.clear_configuration(&[]).unwrap(),
    ];
    let writers = works.map(|work| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.aside(work).await })
    });
    // On the one thread of this runtime: agents come, send and are listed meanwhile.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        let session = registry.admit("b", "h", "1", false, Kind::Publishing).unwrap();
        session.note(|agent| agent.lag += 1);
        assert_eq!(registry.agents().len(), 2);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    // Who is shut out does not wait for the disk.
    assert!(registry.agents()[0].1.revoked > 0);
    let back = registry.admit("a", "h", "1", false, Kind::Publishing);
    assert!(matches!(back, Err(AdmissionError::Revoked(_))));
    held.abort().unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    registry.flush().unwrap();
    // None of them has undone what another did.
    let expected = registry.agents();
    drop(registry);
    assert_eq!(Registry::open(dir.path()).unwrap().agents(), expected);
    assert!(expected[0].1.revoked > 0);
    assert!(expected[1].1.certificate_ends == 1 && expected[1].1.lag > 10, "{:?}", expected[1]);
}

#[test]
fn a_revocation_is_not_undone_by_what_is_written_at_the_same_time() {
    let (dir, registry) = registry();
    let ids: Vec<_> = (0..20).map(|number| format!("agent-{number}")).collect();
    for id in &ids {
        registry.admit(id, "h", "1", true, Kind::Publishing).unwrap();
    }
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| (0..40).for_each(|_| registry.flush().unwrap()));
        for id in &ids {
            registry.revoke(id).unwrap();
        }
        flushing.join().unwrap();
    });
    drop(registry);
    let found = Registry::open(dir.path()).unwrap().agents();
    assert!(found.iter().all(|(_, agent, _)| agent.revoked > 0), "{found:?}");
}
