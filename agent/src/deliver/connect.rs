//! Reaching the backend: directly or through an HTTP proxy, by TLS, and without it only on this host.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Uri;
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longest answer of a proxy that is read, in bytes.
const PROXY_ANSWER: usize = 8 << 10;

/// Where the backend is, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    host: String,
    port: u16,
    /// Name that the backend's certificate must have. `None`: plaintext.
    server_name: Option<ServerName<'static>>,
    proxy: Option<Proxy>,
}

/// An HTTP proxy that is asked to `CONNECT`.
#[derive(Clone, Eq, PartialEq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `user:password`, as they are sent before base64.
    credentials: Option<Vec<u8>>,
}

/// Why a place cannot be a backend's.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// It is no URL of the form that is expected.
    #[error("backend address {0:?} is not understood; write https://host:port")]
    Address(String),
    /// Users and passwords are not for the backend, which knows agents by their certificates. They are not repeated here.
    #[error("the backend address has a user or password in it; write https://host:port without")]
    Credentials,
    /// The same of a proxy.
    #[error("proxy address is not understood; write http://host:port or http://user:password@host:port")]
    Proxy,
    /// Plaintext would be read and changed on the way.
    #[error(
        "backend address {0:?} is plaintext; use https:// (http:// is for a backend on this host, if plaintext is allowed)"
    )]
    Plaintext(String),
    /// A certificate cannot have such a name.
    #[error("server name {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// To this host.
    Plaintext(TcpStream),
    /// To any.
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Target ===

impl Target {
    /// Checks an address. `server_name` is what the certificate must name, if not the host in the address. Plaintext
    /// (`http://`) is for a loopback address only, and only if it is allowed.
    ///
    /// # Errors
    /// When the address is not understood or is not safe.
    pub fn parse(
        address: &str,
        server_name: Option<&str>,
        proxy: Option<&str>,
        allow_plaintext: bool,
    ) -> Result<Self, TargetError> {
        let unknown = || TargetError::Address(address.to_owned());
        if address.contains('@') {
            return Err(TargetError::Credentials);
        }
        let uri: Uri = address.parse().map_err(|_| unknown())?;
        let host = bare(uri.host().ok_or_else(unknown)?).to_owned();
        let is_plaintext = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(unknown()),
        };
        let is_here =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if is_plaintext && !(allow_plaintext && is_here) {
            return Err(TargetError::Plaintext(address.to_owned()));
        }
        let name = server_name.unwrap_or(&host).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|_| TargetError::ServerName(name))?;
        let proxy = if is_plaintext { None } else { proxy.map(Proxy::parse).transpose()? };
        let port = uri.port_u16().ok_or_else(unknown)?;
        Ok(Self { host, port, server_name: (!is_plaintext).then_some(name), proxy })
    }

    /// Connection without TLS, to this host.
    #[must_use]
    pub fn is_plaintext(&self) -> bool {
        self.server_name.is_none()
    }

    /// The address as HTTP/2 has it.
    pub(crate) fn origin(&self) -> Uri {
        self.to_string().parse().expect("it was made of parts of a URI")
    }

    /// Connects. Without a configuration for TLS only a plaintext target is reached.
    ///
    /// # Errors
    /// When there is no way, when it is not the backend that answers, or when it does not speak TLS.
    pub async fn connect(&self, tls: Option<Arc<ClientConfig>>) -> io::Result<Stream> {
        let tcp = match &self.proxy {
            Some(proxy) => proxy.connect(&self.host, self.port).await?,
            None => self.connect_directly().await?,
        };
        // Acknowledgements are small and waited for.
        tcp.set_nodelay(true)?;
        match (&self.server_name, tls) {
            (None, _) => Ok(Stream::Plaintext(tcp)),
            (Some(_), None) => {
                Err(io::Error::other("no certificate to show to the backend; enrol this agent"))
            }
            (Some(name), Some(config)) => {
                let stream = TlsConnector::from(config).connect(name.clone(), tcp).await?;
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }

    async fn connect_directly(&self) -> io::Result<TcpStream> {
        let found: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        // Whatever the name `localhost` leads to, plaintext stays on this host.
        let allowed: Vec<_> =
            found.into_iter().filter(|address| !self.is_plaintext() || address.ip().is_loopback()).collect();
        if allowed.is_empty() {
            let problem =
                format!("{} is not on this host; plaintext is for loopback only, use https://", self.host);
            return Err(io::Error::other(problem));
        }
        TcpStream::connect(allowed.as_slice()).await
    }
}

impl fmt::Display for Target {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_plaintext() { "http" } else { "https" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

// === impl Proxy ===

impl Proxy {
    fn parse(address: &str) -> Result<Self, TargetError> {
        let uri: Uri = address.parse().map_err(|_| TargetError::Proxy)?;
        let (Some("http"), Some(authority), Some(port)) = (uri.scheme_str(), uri.authority(), uri.port_u16())
        else {
            return Err(TargetError::Proxy);
        };
        let credentials = authority.as_str().rsplit_once('@').map(|(credentials, _)| credentials);
        let credentials = credentials.map(|text| percent_decode_str(text).collect());
        Ok(Self { host: bare(authority.host()).to_owned(), port, credentials })
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let failed = |problem: String| {
            let proxy = authority(&self.host, self.port);
            io::Error::other(format!(
                "proxy {proxy} does not connect to {}: {problem}",
                authority(host, port)
            ))
        };
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let mut tcp = tcp.map_err(|error| failed(error.to_string()))?;
        let there = authority(host, port);
        let mut request = format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n");
        if let Some(credentials) = &self.credentials {
            let credentials = BASE64_STANDARD.encode(credentials);
            request += "Proxy-Authorization: Basic ";
            request += &credentials;
            request += "\r\n";
        }
        tcp.write_all((request + "\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        // Byte by byte: what comes after the answer is the backend's.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == PROXY_ANSWER {
                return Err(failed("its answer does not end".to_owned()));
            }
            answer.push(tcp.read_u8().await.map_err(|error| failed(error.to_string()))?);
        }
        let line = String::from_utf8_lossy(&answer);
        let line = line.lines().next().unwrap_or_default();
        match line.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(tcp),
            Some("407") => Err(failed(format!("it answers {line:?}; check user and password of the proxy"))),
            _ => Err(failed(format!("it answers {line:?}; the proxy must allow CONNECT to this port"))),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

// === impl Stream ===

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_this_host_and_only_if_allowed() {
        let parse =
            |address, allow| Target::parse(address, None, None, allow).map(|target| target.is_plaintext());
        assert_eq!(parse("https://backend.example:4317", false), Ok(false));
        assert_eq!(parse("http://127.0.0.1:4317", true), Ok(true));
        assert_eq!(parse("http://[::1]:4317", true), Ok(true));
        for (address, allow) in
            [("http://127.0.0.1:4317", false), ("http://10.0.0.1:4317", true), ("http://backend:4317", true)]
        {
            assert_eq!(parse(address, allow), Err(TargetError::Plaintext(address.to_owned())), "{address}");
        }
    }

    #[test]
    fn an_address_that_is_not_understood_says_how_to_write_it() {
        for address in ["backend", "backend:4317", "ftp://backend:21", "https://backend", ""] {
            let error = Target::parse(address, None, None, true).unwrap_err();
            assert!(error.to_string().contains("https://host:port"), "{address}: {error}");
        }
    }

    #[test]
    fn the_password_of_a_proxy_is_not_shown() {
        let target =
            Target::parse("https://b:1", None, Some("http://user:secret@proxy:3128"), false).unwrap();
        assert!(!format!("{target:?} {target}").contains("secret"));
        assert_eq!(target.proxy.unwrap().credentials.as_deref(), Some(&b"user:secret"[..]));
        for proxy in
            ["https://user:secret@proxy:3128", "http://user:secret@proxy", "user:secret@proxy:3128", "%"]
        {
            let error = Target::parse("https://b:1", None, Some(proxy), false).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{proxy}");
        }
        let error = Target::parse("https://user:secret@b:1", None, None, false).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn the_password_of_a_proxy_may_have_any_characters() {
        let proxy = Proxy::parse("http://user:p%40ss%3Aword@proxy:3128").unwrap();
        assert_eq!(proxy.credentials.as_deref(), Some(&b"user:p@ss:word"[..]));
    }
}
