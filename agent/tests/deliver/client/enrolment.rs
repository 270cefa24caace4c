//! A token becomes a certificate.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nightjar::deliver::{
    connect::Target,
    enrol::{EnrolError, Enrolled, Enrolment, enrol},
    renew::renew,
    tls::{Tls, TlsFiles},
};
use ring::digest::{SHA256, digest};
use tokio::sync::watch;

use super::{agent::Agent, authority::Authority, backend::Backend};

/// A backend with its own authority that knows some tokens.
struct World {
    backend: Arc<Backend>,
    address: SocketAddr,
    fingerprint: String,
    directory: tempfile::TempDir,
}

impl World {
    async fn new(tokens: &[&str]) -> Self {
        let authority = Authority::new();
        let fingerprint = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &authority.certificate()));
        let (_, tls) = watch::channel(authority.server("localhost", false));
        let tokens = Mutex::new(tokens.iter().map(|token| (*token).to_owned()).collect());
        let backend = Arc::new(Backend { enrolment: Some((authority, tokens)), ..Backend::default() });
        let address = backend.serve(Some(tls)).await;
        Self { backend, address, fingerprint, directory: tempfile::tempdir().unwrap() }
    }

    fn identity(&self) -> std::path::PathBuf {
        self.directory.path().join("identity")
    }

    fn authority(&self) -> &Authority {
        &self.backend.enrolment.as_ref().unwrap().0
    }

    fn tokens(&self) -> usize {
        self.backend.enrolment.as_ref().unwrap().1.lock().unwrap().len()
    }

    async fn enrol(
        &self,
        token: &str,
        authority: Option<&Path>,
        force: bool,
    ) -> Result<Enrolled, EnrolError> {
        let target =
            Target::parse(&format!("https://{}", self.address), Some("localhost"), None, false).unwrap();
        let enrolment = Enrolment {
            target: &target,
            authority,
            token,
            directory: &self.identity(),
            host: "web-1",
            agent_version: "0.1.0",
            force,
            within: Duration::from_secs(10),
        };
        enrol(&enrolment).await
    }

    async fn enrol_pinned(&self, secret: &str, force: bool) -> Result<Enrolled, EnrolError> {
        self.enrol(&format!("{secret}.{}", self.fingerprint), None, force).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_alone_an_agent_gets_an_identity_that_it_can_publish_with() {
    let world = World::new(&["one"]).await;
    let enrolled = world.enrol_pinned("one", false).await.unwrap();
    assert_eq!(enrolled.agent_id, "agent-of-web-1");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&enrolled.files.key), mode(&world.identity())), (0o600, 0o700));
    assert_eq!(fs::read_dir(world.identity()).unwrap().count(), 3, "nothing else is left there");
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(&enrolled.files.key).unwrap()).unwrap();
    assert_eq!(key.algorithm(), &rcgen::PKCS_ECDSA_P256_SHA256);

    let address = format!("https://{}", world.address);
    let agent = Agent::start(&address, Some(Tls::new(enrolled.files)), None);
    agent.append(5);
    agent.expect_all_acknowledged().await;
    assert_eq!(world.backend.hellos.lock().unwrap()[0].1, "agent-of-web-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_another_authority_never_sees_the_token() {
    let world = World::new(&["one"]).await;
    let other = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
    let error = world.enrol(&format!("one.{other}"), None, false).await.unwrap_err();
    assert!(error.to_string().contains("is it the right backend?"), "{error}");
    assert_eq!(world.tokens(), 1);
    assert!(!world.identity().join("agent.pem").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_fingerprint_needs_the_authority_as_a_file() {
    let world = World::new(&["one"]).await;
    assert!(matches!(world.enrol("one", None, false).await, Err(EnrolError::NoTrust)));
    let file = world.directory.path().join("ca.pem");
    fs::write(&file, Authority::new().pem()).unwrap();
    assert!(matches!(world.enrol("one", Some(&file), false).await, Err(EnrolError::Connect(_))));
    fs::write(&file, world.authority().pem()).unwrap();
    world.enrol("one", Some(&file), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_token_is_refused_with_the_words_of_the_backend_and_changes_nothing() {
    let world = World::new(&["one"]).await;
    world.enrol_pinned("one", false).await.unwrap();
    let certificate = fs::read(world.identity().join("agent.pem")).unwrap();
    let error = world.enrol_pinned("one", true).await.unwrap_err();
    assert!(error.to_string().contains("it was used"), "{error}");
    assert_eq!(fs::read(world.identity().join("agent.pem")).unwrap(), certificate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_is_good_is_replaced_only_by_force() {
    let world = World::new(&["one", "two"]).await;
    world.enrol_pinned("one", false).await.unwrap();
    let error = world.enrol_pinned("two", false).await.unwrap_err();
    assert!(error.to_string().contains("identity of agent agent-of-web-1 already; use --force"), "{error}");
    assert_eq!(world.tokens(), 1, "the second was not used up");
    let before = fs::read(world.identity().join("agent.key")).unwrap();
    world.enrol_pinned("two", true).await.unwrap();
    assert_ne!(fs::read(world.identity().join("agent.key")).unwrap(), before);
    TlsFiles::in_directory(&world.identity()).read().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_has_expired_or_is_torn_is_replaced_without_force() {
    let world = World::new(&["one", "two"]).await;
    fs::create_dir(world.identity()).unwrap();
    let _ = world.authority().agent(&world.identity(), true);
    world.enrol_pinned("one", false).await.unwrap();
    fs::write(world.identity().join("agent.key"), "cut").unwrap();
    world.enrol_pinned("two", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_cannot_be_written_costs_no_token() {
    let world = World::new(&["one"]).await;
    fs::write(world.identity(), "in the way").unwrap();
    assert!(matches!(world.enrol_pinned("one", false).await, Err(EnrolError::File { .. })));
    assert_eq!(world.tokens(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_not_sent_in_plaintext() {
    let target = Target::parse("http://127.0.0.1:9", None, None, true).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let enrolment = Enrolment {
        target: &target,
        authority: None,
        token: "one",
        directory: directory.path(),
        host: "web-1",
        agent_version: "0.1.0",
        force: false,
        within: Duration::from_secs(1),
    };
    assert!(matches!(enrol(&enrolment).await, Err(EnrolError::Plaintext(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_before_it_ends_and_not_earlier() {
    let world = World::new(&["one"]).await;
    let enrolled = world.enrol_pinned("one", false).await.unwrap();
    let agent =
        Agent::start(&format!("https://{}", world.address), Some(Tls::new(enrolled.files.clone())), None);
    let mut connection = agent.channel.clone();
    let channel = connection.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let certificate = || fs::read(&enrolled.files.certificate).unwrap();
    let (before, key) = (certificate(), fs::read(&enrolled.files.key).unwrap());

    let is_early = enrolled.expires - Duration::from_mins(1);
    assert!(!renew(&world.identity(), channel.clone(), is_early).await.unwrap());
    assert_eq!(certificate(), before);

    let is_time = enrolled.expires + Duration::from_mins(1);
    assert!(renew(&world.identity(), channel, is_time).await.unwrap());
    assert_ne!(certificate(), before);
    assert_eq!(fs::read(&enrolled.files.key).unwrap(), key);
    assert_eq!(enrolled.files.read().unwrap().name, "agent-of-web-1");
    assert_eq!(fs::read_dir(world.identity()).unwrap().count(), 3, "nothing else is left there");
}
