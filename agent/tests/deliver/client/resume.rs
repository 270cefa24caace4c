//! What an agent goes on with that finds another backend than it left, or that is not what it was itself.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use nightjar::deliver::client::ClientStatus;

use super::{
    agent::{Agent, append, spool},
    backend::Backend,
};

/// Lets an agent deliver batches with these names from the spool in a directory, and ends it.
async fn deliver(
    backend: &Arc<Backend>,
    directory: &Path,
    agent: &str,
    names: std::ops::Range<u64>,
) -> ClientStatus {
    let address = backend.serve(None).await;
    let mut agent = Agent::start_in(directory, agent, &format!("http://{address}"));
    append(&agent.spool, names);
    agent.expect_all_acknowledged().await;
    agent.stop().await;
    agent.status.borrow().clone()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn is_set_back(status: &ClientStatus) -> bool {
    status.last_error.as_ref().is_some_and(|error| error.contains("this host was set back"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_new_name_says_where_it_is_and_sends_nothing_again() {
    let directory = tempfile::tempdir().unwrap();
    deliver(&Arc::new(Backend::default()), directory.path(), "before", 0..10).await;
    // To a backend that knows nothing of it.
    let backend = Arc::new(Backend::default());
    deliver(&backend, directory.path(), "after", 10..20).await;
    let resumed = backend.resumed.lock().unwrap()[0].clone();
    assert_eq!(resumed.iter().map(|at| (at.lane, at.sequence)).collect::<Vec<_>>(), [(1, 2), (2, 8)]);
    let stored = backend.stored.lock().unwrap().clone();
    assert_eq!(stored.into_values().collect::<Vec<_>>(), [vec![3, 4], (9..=16).collect()]);
    let names: Vec<_> = backend.names.lock().unwrap().clone().into_iter().collect();
    assert_eq!(names, (10..20).map(|name| (name, 1)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_set_back_to_a_snapshot_loses_nothing_of_what_comes_after() {
    let (directory, snapshot) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = Arc::new(Backend::default());
    deliver(&backend, directory.path(), "agent", 0..10).await;
    // Five wait when the snapshot is made.
    append(&spool(directory.path()).0, 10..15);
    copy(directory.path(), snapshot.path());
    deliver(&backend, directory.path(), "agent", 15..40).await;
    let status = deliver(&backend, snapshot.path(), "agent", 40..50).await;
    assert!(is_set_back(&status), "{status:?}");
    // The backend has these numbers of other batches, and would say that it has them.
    let again = deliver(&backend, snapshot.path(), "agent", 50..60).await;
    assert!(!is_set_back(&again), "{again:?}");
    let names = backend.names.lock().unwrap().clone();
    let expected = (0..60).map(|name| (name, if (10..15).contains(&name) { 2 } else { 1 }));
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(backend.duplicates.load(SeqCst), 0);
    // Its other numbering begins where the spool is, so that nothing is missed before.
    let stored = backend.stored.lock().unwrap().clone();
    let firsts: Vec<_> = stored.iter().map(|((_, lane), numbers)| (*lane, numbers[0])).collect();
    assert_eq!(firsts, [(1, 1), (2, 1), (1, 3), (2, 9)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_numbering_of_this_boot_that_the_agent_does_not_know_is_not_taken_for_an_acknowledgement() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Arc::new(Backend::default());
    // The clock was ahead when the agent lost its spool.
    let unknown = u64::MAX / 2;
    backend.stored.lock().unwrap().insert((unknown, 2), vec![1, 2, 3]);
    let status = deliver(&backend, directory.path(), "agent", 0..10).await;
    assert!(is_set_back(&status), "{status:?}");
    assert_eq!(backend.names.lock().unwrap().len(), 10);
    let epochs: Vec<u64> = backend.stored.lock().unwrap().keys().map(|(epoch, _)| *epoch).collect();
    assert_eq!(epochs, [unknown, unknown + 1, unknown + 1]);
}
