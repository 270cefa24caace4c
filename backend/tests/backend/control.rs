//! Agents are steered and watched.

use std::{path::Path, time::Duration};

use nightjar_proto::v1::{
    AgentMessage, BackendMessage, ConfigurationAnswer, ControlHello, Event, Loss, Losses, Sensor, Status,
    TailEnded, TailEvents, TailStart, agent_message::Message as FromAgent,
    backend_message::Message as ToAgent, configuration_answer::Outcome, control_client::ControlClient,
};
use prost::Message as _;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    client::channel,
    process::{Backend, complaint, free_address, printed, spawn},
};

/// The control stream of an agent.
struct Agent {
    to_backend: mpsc::Sender<AgentMessage>,
    from_backend: Streaming<BackendMessage>,
}

impl Agent {
    async fn connect(backend: &Backend, agent_id: &str, configuration_version: &str) -> Self {
        let (to_backend, messages) = mpsc::channel(64);
        let hello = ControlHello {
            agent_id: agent_id.to_owned(),
            host: format!("host-{agent_id}"),
            agent_version: "0.1.0".to_owned(),
            schema: 1,
            configuration_version: configuration_version.to_owned(),
            ..ControlHello::default()
        };
        let hello = AgentMessage { message: Some(FromAgent::Hello(hello)) };
        to_backend.send(hello).await.unwrap();
        let channel = channel(backend.address).await.unwrap();
        let answer = ControlClient::new(channel).connect(ReceiverStream::new(messages)).await.unwrap();
        let mut agent = Self { to_backend, from_backend: answer.into_inner() };
        assert!(matches!(agent.told().await, ToAgent::Welcome(_)));
        agent
    }

    async fn told(&mut self) -> ToAgent {
        let message = timeout(Duration::from_secs(5), self.from_backend.message()).await.unwrap();
        message.unwrap().unwrap().message.unwrap()
    }

    async fn configuration(&mut self) -> (String, String) {
        match self.told().await {
            ToAgent::Configuration(update) => (update.version, update.configuration_yaml),
            other => panic!("{other:?}"),
        }
    }

    async fn tail(&mut self) -> TailStart {
        match self.told().await {
            ToAgent::TailStart(start) => start,
            other => panic!("{other:?}"),
        }
    }

    async fn tell(&self, message: FromAgent) {
        self.to_backend.send(AgentMessage { message: Some(message) }).await.unwrap();
    }

    async fn answer(&self, version: &str, outcome: Outcome, reason: &str) {
        let (version, reason) = (version.to_owned(), reason.to_owned());
        let outcome = outcome.into();
        self.tell(FromAgent::Configuration(ConfigurationAnswer {
            version,
            outcome,
            reason,
            pending: vec![],
        }))
        .await;
    }

    /// Goes away after all that it has sent.
    async fn leave(mut self) {
        drop(self.to_backend);
        while let Ok(Some(_)) = self.from_backend.message().await {}
    }

    async fn show(&self, id: &str, ids: &[&str]) {
        let event = |id: &&str| {
            let kind = "process.exec".to_owned();
            Event { id: (*id).to_owned(), kind, schema: 1, ..Event::default() }.encode_to_vec().into()
        };
        let events = TailEvents { id: id.to_owned(), events: ids.iter().map(event).collect(), missed: 0 };
        self.tell(FromAgent::TailEvents(events)).await;
    }
}

fn start(dir: &Path) -> Backend {
    Backend::start(dir, free_address(), &["--plaintext", "--reserve", "1"])
}

fn write(dir: &Path, name: &str, content: &str) -> String {
    std::fs::write(dir.join(name), content).unwrap();
    dir.join(name).to_str().unwrap().to_owned()
}

/// Rows of a list, once one fits.
async fn rows(dir: &Path, arguments: &[&str], fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    for _ in 0..200 {
        let rows: Vec<Value> =
            printed(dir, arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if rows.iter().any(&fits) {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}", printed(dir, arguments));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_reaches_agents_that_are_connected_at_once_and_others_when_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backend) = (dir.path(), start(dir.path()));
    let mut first = Agent::connect(&backend, "a", "").await;
    let file = write(data, "all.yaml", "kinds: [process.*]\n");
    let policy = write(data, "40-web.yaml", "policies: []\n");
    let version = printed(data, &["config", "set", "--policy", &policy, &file]).trim().to_owned();
    let ToAgent::Configuration(update) = first.told().await else { panic!("no configuration came") };
    assert_eq!((&update.version, update.configuration_yaml.as_str()), (&version, "kinds: [process.*]\n"));
    assert_eq!(update.policies[0].name, "40-web.yaml");
    first.answer(&version, Outcome::Applied, "").await;
    rows(data, &["config", "status", "--json"], |row| row["in_force"] == version.as_str()).await;

    // It comes when the agent does, also to a backend that was started again, and not to who has it.
    drop(first);
    backend.stop();
    let backend = start(data);
    let _has_it = Agent::connect(&backend, "a", &version).await;
    let mut second = Agent::connect(&backend, "b", "").await;
    assert_eq!(second.configuration().await.0, version);
    second.answer(&version, Outcome::Refused, "kinds: no such kind").await;
    let refused = |row: &Value| row["id"] == "b" && row["answer"]["outcome"] == "refused";
    rows(data, &["config", "status", "--json"], refused).await;
    let table = printed(data, &["config", "status"]);
    assert!(table.contains("kinds: no such kind"), "{table}");

    // One of its own goes before; without any it has its own files.
    let own = write(data, "own.yaml", "kinds: [file.*]\n");
    let own = printed(data, &["config", "set", "--agent", "host-b", &own]).trim().to_owned();
    assert_eq!(second.configuration().await, (own.clone(), "kinds: [file.*]\n".to_owned()));
    second.answer(&own, Outcome::RolledBack, "cannot be applied").await;
    rows(data, &["config", "status", "--json"], |row| row["answer"]["outcome"] == "rolled back").await;
    assert!(printed(data, &["agents"]).contains(&format!("its own, rolled back {own}")));
    printed(data, &["config", "clear", "--agent", "b"]);
    assert_eq!(second.configuration().await.0, version);
    printed(data, &["config", "clear"]);
    assert_eq!(second.configuration().await, (String::new(), String::new()));
    assert_eq!(printed(data, &["config", "show", "--json"]), "");

    let wrong = write(data, "wrong.yaml", "a: [\n");
    assert!(complaint(data, &["config", "set", &wrong]).contains("line "));
    assert!(complaint(data, &["config", "set", "--agent", "x", &file]).contains("no agent"));
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_last_told_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path());
    let agent = Agent::connect(&backend, "a", "").await;
    let sensor =
        |name: &str, hook: &str| Sensor { name: name.to_owned(), hook: hook.to_owned(), ..Sensor::default() };
    let loss = Loss { hook: "exec".to_owned(), reason: "ring_full".to_owned(), count: 77, ..Loss::default() };
    let status = Status {
        version: "0.1.0".to_owned(),
        sensors: vec![sensor("process.exec", "fentry"), sensor("file.open", "")],
        losses: Some(Losses { losses: vec![loss], ..Losses::default() }),
        ..Status::default()
    };
    agent.tell(FromAgent::Status(status)).await;
    rows(dir.path(), &["agents", "--json"], |row| row["sensors"] == 2 && row["sensors_served"] == 1).await;
    let shown = printed(dir.path(), &["agents", "host-a"]);
    for part in ["connected", "process.exec  fentry", "file.open     none", "ring_full", "77"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json: Value = serde_json::from_str(&printed(dir.path(), &["agents", "a", "--json"])).unwrap();
    assert_eq!(json["status"]["losses"]["losses"][0]["count"], 77);
    assert!(complaint(dir.path(), &["agents", "nobody"]).contains("no agent"));
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_watched_by_two_at_once_and_told_when_they_have_enough() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path());
    let mut agent = Agent::connect(&backend, "a", "").await;
    let first = spawn(dir.path(), &["tail", "a", "-n", "2", "-o", "json", "--kind", "process.*"]);
    let wanted = agent.tail().await;
    assert_eq!((wanted.kinds.as_slice(), wanted.most_events), (&["process.*".to_owned()][..], 2));
    let second = spawn(dir.path(), &["tail", "host-a", "-o", "json", "--where", "process.uid == 0"]);
    let other = agent.tail().await;
    assert_eq!(other.r#where, "process.uid == 0");
    agent.show(&wanted.id, &["1"]).await;
    agent.show(&other.id, &["x"]).await;
    agent.show(&wanted.id, &["2", "3"]).await;
    let shown = first.wait_with_output().unwrap();
    assert!(shown.status.success());
    let ids = |shown: &[u8]| -> Vec<String> {
        let lines = std::str::from_utf8(shown).unwrap().lines();
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&shown.stdout), ["1", "2"]);
    match agent.told().await {
        ToAgent::TailStop(stop) => assert_eq!(stop.id, wanted.id),
        other => panic!("{other:?}"),
    }
    agent.show(&other.id, &["y"]).await;
    agent.leave().await;
    let shown = second.wait_with_output().unwrap();
    assert_eq!((ids(&shown.stdout), shown.status.code()), (vec!["x".to_owned(), "y".to_owned()], Some(1)));
    let complaint = String::from_utf8(shown.stderr).unwrap();
    assert!(complaint.contains("the connection to the agent ended"), "{complaint}");
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let backend = start(dir.path());
    let mut agent = Agent::connect(&backend, "a", "").await;
    let wrong = complaint(dir.path(), &["tail", "a", "--where", "process.uid == "]);
    assert!(wrong.contains("--where: column "), "{wrong}");
    assert!(complaint(dir.path(), &["tail", "a", "--where", "process.udi == 0"]).contains("uid"));
    assert!(complaint(dir.path(), &["tail", "nobody"]).contains("no agent"));
    let refused = spawn(dir.path(), &["tail", "a"]);
    let id = agent.tail().await.id;
    agent.tell(FromAgent::TailEnded(TailEnded { id, reason: "too many watch".to_owned() })).await;
    let refused = refused.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("too many watch"));
    drop(agent);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(complaint(dir.path(), &["tail", "a"]).contains("not connected"));
    backend.stop();
}
