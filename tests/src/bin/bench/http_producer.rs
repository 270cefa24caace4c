//! A server and clients of HTTP/1.1, over the loopback interface.

use std::{
    cell::Cell,
    ffi::OsString,
    net::{Ipv4Addr, TcpListener},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, routing::get};
use clap::Args;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::{JoinHandle, LocalSet},
};

use crate::{
    producer::{answer, await_start, nanos, pin},
    sockets::{self, PORT},
    sys,
};

/// What the server answers: as much as a small page or document.
static ANSWER: [u8; 1024] = [b'x'; 1024];
/// Requests of each client before those that are measured.
const WARM_UP: u32 = 50;

/// The hidden command that a server with its clients is.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Clients that ask at the same time.
    #[arg(long)]
    clients: u32,
    /// A connection for each request.
    #[arg(long)]
    new_connections: bool,
    #[arg(long)]
    server_cpu: usize,
    #[arg(long)]
    client_cpu: usize,
    #[arg(long)]
    millis: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Done {
    pub wall_ns: u64,
    pub cpu_ns: u64,
    /// Requests that were answered in that time.
    pub requests: u64,
    /// Connections that were made in all, those before that time too.
    pub connections: u64,
}

/// A client.
struct Client {
    new_connections: bool,
    connection: Option<Connection>,
    /// Connections that it and the other clients have made.
    made: Rc<Cell<u64>>,
}

struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    /// Ends with the connection.
    work: JoinHandle<hyper::Result<()>>,
}

/// The arguments of one with so many clients. The first CPU is the server's.
pub fn command(clients: u32, new_connections: bool, cpus: [usize; 2], length: Duration) -> Vec<OsString> {
    let [server, client] = cpus.map(|cpu| cpu.to_string());
    let (clients, millis) = (clients.to_string(), length.as_millis().to_string());
    let mut args = vec!["produce-http", "--clients", &clients, "--server-cpu", &server];
    args.extend(["--client-cpu", &client, "--millis", &millis]);
    if new_connections {
        args.push("--new-connections");
    }
    args.into_iter().map(OsString::from).collect()
}

/// Makes ready and asks for a while, waits for a line on standard input, asks as long as told, tells what was done.
pub fn run(arguments: &Arguments) -> Result<()> {
    sockets::isolate()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    listener.set_nonblocking(true)?;
    let cpu = arguments.server_cpu;
    // It goes when the process does.
    thread::spawn(move || {
        if let Err(error) = serve(listener, cpu) {
            eprintln!("bench: the server: {error:#}");
        }
    });
    pin(arguments.client_cpu)?;
    answer(&LocalSet::new().block_on(&runtime()?, ask(arguments))?)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_io().build()?)
}

fn serve(listener: TcpListener, cpu: usize) -> Result<()> {
    pin(cpu)?;
    let router = Router::new().route("/", get(|| async { &ANSWER[..] }));
    runtime()?
        .block_on(async { Ok(axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await?) })
}

/// Has the clients ask, each one request after another.
async fn ask(arguments: &Arguments) -> Result<Done> {
    let made = Rc::new(Cell::new(0));
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        let new_connections = arguments.new_connections;
        let mut client = Client { new_connections, connection: None, made: Rc::clone(&made) };
        for _ in 0..WARM_UP {
            client.request().await?;
        }
        clients.push(client);
    }
    await_start()?;

    let (begin, cpu) = (Instant::now(), sys::own_cpu_time()?);
    let end = begin + Duration::from_millis(arguments.millis);
    let work = clients.into_iter().map(|mut client| {
        tokio::task::spawn_local(async move {
            let mut requests = 0;
            while Instant::now() < end {
                client.request().await?;
                requests += 1;
            }
            anyhow::Ok((requests, client))
        })
    });
    let mut requests = 0;
    let mut clients = Vec::new();
    for client in work.collect::<Vec<_>>() {
        let (of_client, client) = client.await.context("a client panicked")??;
        requests += of_client;
        clients.push(client);
    }
    let (wall, cpu) = (begin.elapsed(), sys::own_cpu_time()?.saturating_sub(cpu));
    for client in clients {
        client.close().await?;
    }
    Ok(Done { wall_ns: nanos(wall), cpu_ns: nanos(cpu), requests, connections: made.get() })
}

// === impl Client ===

impl Client {
    /// Asks once, by a connection that it has or makes.
    async fn request(&mut self) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut request = Request::get("/").header(HOST, "localhost");
        if self.new_connections {
            request = request.header(CONNECTION, "close");
        }
        let response = connection.requests.send_request(request.body(Empty::new())?).await?;
        ensure!(response.status() == StatusCode::OK, "the server answers {}", response.status());
        let length = response.into_body().collect().await?.to_bytes().len();
        ensure!(length == ANSWER.len(), "the server answers {length} bytes");
        if self.new_connections {
            connection.close().await?;
        } else {
            connection.requests.ready().await?;
            self.connection = Some(connection);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).await?;
        stream.set_nodelay(true)?;
        self.made.set(self.made.get() + 1);
        let (requests, work) = handshake(TokioIo::new(stream)).await?;
        Ok(Connection { requests, work: tokio::task::spawn_local(work) })
    }

    async fn close(self) -> Result<()> {
        match self.connection {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }
}

impl Connection {
    /// Waits until it is closed.
    async fn close(self) -> Result<()> {
        drop(self.requests);
        Ok(self.work.await.context("a connection panicked")??)
    }
}
