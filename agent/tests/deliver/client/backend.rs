//! A backend in this process that behaves in all the wrong ways.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use nightjar_proto::v1::{
    Ack, Batch, EnrolRequest, EnrolResponse, LanePosition, LostBatches, PublishRequest, PublishResponse,
    Refusal, Refused, RenewRequest, Welcome,
    enrolment_server::{Enrolment, EnrolmentServer},
    ingest_server::{Ingest, IngestServer},
    publish_request::Message as Request,
    publish_response::Message as Response,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request as Call, Status, Streaming, transport::server::Connected};

use super::authority::Authority;

/// What the backend has, and how it behaves.
#[derive(Default)]
pub struct Backend {
    /// By epoch and lane: the numbers that were stored, in order.
    pub stored: Mutex<BTreeMap<(u64, i32), Vec<u64>>>,
    pub duplicates: AtomicU64,
    /// By name: how often a batch was stored.
    pub names: Mutex<BTreeMap<u64, u64>>,
    /// It stores and does not acknowledge.
    pub is_silent: AtomicBool,
    /// The stream is closed after so many batches.
    pub closes_after: AtomicU64,
    /// What it says instead of `Welcome`, and while a session is open.
    pub refusal: watch::Sender<Option<Refused>>,
    /// The batch of this lane and number is never accepted.
    pub refused_batch: Mutex<Option<(i32, u64)>>,
    /// What it was told as lost.
    pub lost: Mutex<Vec<LostBatches>>,
    /// When somebody said hello, and as whom.
    pub hellos: Mutex<Vec<(Instant, String)>>,
    /// What each of them said that was acknowledged.
    pub resumed: Mutex<Vec<Vec<LanePosition>>>,
    pub connections: AtomicU64,
    /// What certificates are signed with, and the tokens that are good for one.
    pub enrolment: Option<(Authority, Mutex<Vec<String>>)>,
}

struct Service(Arc<Backend>);

#[tonic::async_trait]
impl Ingest for Service {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;

    async fn publish(
        &self,
        call: Call<Streaming<PublishRequest>>,
    ) -> Result<tonic::Response<Self::PublishStream>, Status> {
        let backend = self.0.clone();
        let mut requests = call.into_inner();
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut left = backend.closes_after.load(SeqCst);
            let mut refusals = backend.refusal.subscribe();
            loop {
                let refusal = refusals.borrow_and_update().clone();
                if let Some(refused) = refusal {
                    if let Ok(Some(Ok(request))) = timeout(Duration::from_millis(20), requests.next()).await {
                        backend.note(&request);
                    }
                    let message = Some(Response::Refused(refused));
                    let _ = answers.send(Ok(PublishResponse { message })).await;
                    return;
                }
                let request = tokio::select! {
                    Some(Ok(request)) = requests.next() => request,
                    Ok(()) = refusals.changed() => continue,
                    else => return,
                };
                backend.note(&request);
                let answer = match request.message {
                    Some(Request::Hello(hello)) => {
                        let position = |((epoch, lane), numbers): (&(u64, i32), &Vec<u64>)| LanePosition {
                            boot_id: hello.boot_id.clone(),
                            epoch: *epoch,
                            lane: *lane,
                            sequence: numbers.last().copied().unwrap_or(0),
                        };
                        let acknowledged = backend.stored.lock().unwrap().iter().map(position).collect();
                        Response::Welcome(Welcome {
                            schema: 1,
                            acknowledged,
                            credit_bytes: 4000,
                            max_uncompressed_bytes: 1 << 20,
                        })
                    }
                    Some(Request::Batch(batch))
                        if batch.count > 0
                            && *backend.refused_batch.lock().unwrap()
                                == Some((batch.lane, batch.sequence)) =>
                    {
                        let Batch { boot_id, epoch, lane, sequence, .. } = batch;
                        let batch = Some(LanePosition { boot_id, epoch, lane, sequence });
                        let detail = "not decodable".to_owned();
                        Response::Refused(Refused {
                            reason: Refusal::Batch.into(),
                            detail,
                            batch,
                            ..Refused::default()
                        })
                    }
                    Some(Request::Batch(batch)) => {
                        backend.lost.lock().unwrap().extend(batch.losses);
                        {
                            let mut stored = backend.stored.lock().unwrap();
                            let numbers = stored.entry((batch.epoch, batch.lane)).or_default();
                            if numbers.last().is_none_or(|last| *last < batch.sequence) {
                                numbers.push(batch.sequence);
                                let name = batch.events.first_chunk().map(|name| u64::from_be_bytes(*name));
                                *backend.names.lock().unwrap().entry(name.unwrap_or(0)).or_default() += 1;
                            } else {
                                backend.duplicates.fetch_add(1, SeqCst);
                            }
                        }
                        if left > 0 {
                            left -= 1;
                            if left == 0 {
                                return;
                            }
                        }
                        if backend.is_silent.load(SeqCst) {
                            continue;
                        }
                        Response::Ack(Ack {
                            boot_id: batch.boot_id,
                            epoch: batch.epoch,
                            lane: batch.lane,
                            sequence: batch.sequence,
                            credit_bytes: 4000,
                        })
                    }
                    None => continue,
                };
                if answers.send(Ok(PublishResponse { message: Some(answer) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, call: Call<EnrolRequest>) -> Result<tonic::Response<EnrolResponse>, Status> {
        let EnrolRequest { token, csr_pem, host, .. } = call.into_inner();
        let (authority, tokens) = self.0.enrolment.as_ref().unwrap();
        let mut tokens = tokens.lock().unwrap();
        let found = tokens.iter().position(|known| *known == token);
        let found = found.ok_or_else(|| Status::permission_denied("the token is not valid: it was used"))?;
        tokens.remove(found);
        let agent_id = format!("agent-of-{host}");
        let certificate_pem = authority.sign(&csr_pem, &agent_id);
        let ca_pem = authority.pem();
        Ok(tonic::Response::new(EnrolResponse { agent_id, certificate_pem, ca_pem, expires: 0 }))
    }

    async fn renew(&self, call: Call<RenewRequest>) -> Result<tonic::Response<EnrolResponse>, Status> {
        let (authority, _) = self.0.enrolment.as_ref().unwrap();
        let agent_id = "agent-of-web-1".to_owned();
        let certificate_pem = authority.sign(&call.into_inner().csr_pem, &agent_id);
        let ca_pem = authority.pem();
        Ok(tonic::Response::new(EnrolResponse { agent_id, certificate_pem, ca_pem, expires: 0 }))
    }
}

impl Backend {
    fn note(&self, request: &PublishRequest) {
        if let Some(Request::Hello(hello)) = &request.message {
            self.hellos.lock().unwrap().push((Instant::now(), hello.agent_id.clone()));
            self.resumed.lock().unwrap().push(hello.resume_after.clone());
        }
    }

    pub fn count(&self) -> usize {
        self.stored.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Serves on a port of this host; with TLS by the configuration that is current when a connection comes.
    pub async fn serve(self: &Arc<Self>, tls: Option<watch::Receiver<Arc<ServerConfig>>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, incoming) = mpsc::channel::<io::Result<Connection>>(16);
        let counted = self.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.connections.fetch_add(1, SeqCst);
                let (connections, tls) = (connections.clone(), tls.clone());
                tokio::spawn(async move {
                    let stream: Connection = match tls.map(|tls| tls.borrow().clone()) {
                        None => Connection(Box::new(tcp)),
                        Some(config) => match tokio_rustls::TlsAcceptor::from(config).accept(tcp).await {
                            Ok(stream) => Connection(Box::new(stream)),
                            Err(_) => return,
                        },
                    };
                    let _ = connections.send(Ok(stream)).await;
                });
            }
        });
        // As that of the real one.
        let largest = (1 << 20) + (64 << 10);
        let service = IngestServer::new(Service(self.clone())).max_decoding_message_size(largest);
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .add_service(EnrolmentServer::new(Service(self.clone())));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        address
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Connection(Box<dyn Io>);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
