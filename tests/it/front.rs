//! What stands between the connector and a peer, byte by byte: plain TCP listeners that let everything through to a sandbox, or
//! answer in its stead, with and without TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What becomes of a connection.
#[derive(Clone)]
pub enum Mode {
    /// Everything goes through to this address.
    Through(SocketAddr),
    /// Whatever is asked, these bytes are the answer, and the end of the connection.
    Answer(Arc<Vec<u8>>),
    /// The answer begins with these bytes; then this comes again and again, without an end.
    Endless(Arc<Vec<u8>>, Arc<Vec<u8>>),
    /// The answer is these bytes, and then silence.
    Silent(Arc<Vec<u8>>),
    /// The answer comes a byte at a time, with a pause after each.
    Trickle(Arc<Vec<u8>>, std::time::Duration),
    /// Whatever is asked by HTTP/2, the stream is reset for this reason.
    Reset(h2::Reason),
    /// As soon as something is asked by HTTP/2, the connection is: go away, for this reason.
    GoAway(h2::Reason),
    /// A proxy: it notes the head of each request, and connects to this address, whatever name it is asked for.
    Proxy(Arc<Proxy>),
}

/// What a proxy goes by, and what it was asked.
pub struct Proxy {
    /// Where every connection leads.
    pub to: SocketAddr,
    /// Who may use it: what stands behind `Basic ` once it is decoded.
    pub user: Option<&'static str>,
    pub heads: Mutex<Vec<String>>,
}

impl Proxy {
    fn lets_through(&self, head: &str) -> bool {
        let Some(user) = self.user else { return true };
        let encoded = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
            .and_then(|(_, value)| value.strip_prefix("Basic "));
        let decoded = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
        decoded.as_deref() == Some(user.as_bytes())
    }
}

impl Mode {
    /// A whole answer.
    pub fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        Self::Answer(Arc::new(bytes))
    }

    pub fn json(body: impl AsRef<[u8]>) -> Self {
        Self::answer("200 OK", "Content-Type: application/json\r\n", body)
    }
}

/// A listener that does with each connection what its mode says.
pub struct Front {
    pub address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    connections: Arc<Mutex<usize>>,
    fate: watch::Sender<Fate>,
    task: JoinHandle<()>,
}

/// What becomes of the connections that are open.
#[derive(Clone, Copy)]
enum Fate {
    /// They go on.
    Alive,
    /// Nothing comes through any more, and nobody is told: as when something in between forgets a connection.
    Silent,
    /// They break.
    Broken,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    pub async fn new(mode: Mode) -> Self {
        Self::listen(mode, None).await
    }

    /// With TLS, by this certificate.
    pub async fn tls(mode: Mode, acceptor: TlsAcceptor) -> Self {
        Self::listen(mode, Some(acceptor)).await
    }

    /// On the loopback of IPv6, with or without TLS.
    pub async fn six(mode: Mode, acceptor: Option<TlsAcceptor>) -> Self {
        Self::at("[::1]:0", mode, acceptor).await
    }

    async fn listen(mode: Mode, acceptor: Option<TlsAcceptor>) -> Self {
        Self::at("127.0.0.1:0", mode, acceptor).await
    }

    async fn at(address: &str, mode: Mode, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new(mode));
        let connections = Arc::new(Mutex::new(0));
        let fate = watch::Sender::new(Fate::Alive);
        let (how, count, fates) = (Arc::clone(&mode), Arc::clone(&connections), fate.clone());
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let (how, acceptor) = (how.lock().unwrap().clone(), acceptor.clone());
                // What is decided later concerns this connection; what was decided before does not.
                let mut fate = fates.subscribe();
                open.spawn(async move {
                    let serving = async {
                        match acceptor {
                            None => serve(stream, how).await,
                            Some(acceptor) => serve(acceptor.accept(stream).await?, how).await,
                        }
                    };
                    let mut serving = std::pin::pin!(serving);
                    tokio::select! {
                        // Whoever goes away in the middle is no concern of ours.
                        _ = &mut serving => {}
                        _ = fate.changed() => {
                            if matches!(*fate.borrow(), Fate::Silent) {
                                // Still open, and nobody does anything about it.
                                std::future::pending().await
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            mode,
            connections,
            fate,
            task,
        }
    }

    /// The connections that are open fall silent; new ones are served.
    pub fn silence(&self) {
        self.fate.send_replace(Fate::Silent);
    }

    /// The connections that are open break; new ones are served.
    pub fn cut(&self) {
        self.fate.send_replace(Fate::Broken);
    }

    /// From now on, for new connections.
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mode: Mode) -> std::io::Result<()> {
    if let Mode::Through(address) = mode {
        let mut peer = TcpStream::connect(address).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut peer).await?;
        return Ok(());
    }
    if let Mode::Reset(reason) | Mode::GoAway(reason) = mode {
        let mut connection = h2::server::handshake(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok((_, mut answer))) = connection.accept().await {
            match mode {
                Mode::GoAway(_) => connection.abrupt_shutdown(reason),
                _ => answer.send_reset(reason),
            }
        }
        return Ok(());
    }
    let head = read_request(&mut stream).await?;
    match mode {
        Mode::Through(_) | Mode::Reset(_) | Mode::GoAway(_) => {}
        Mode::Proxy(proxy) => {
            let lets = proxy.lets_through(&head);
            proxy.heads.lock().unwrap().push(head);
            if !lets {
                let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await?;
                return stream.shutdown().await;
            }
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            let mut peer = TcpStream::connect(proxy.to).await?;
            tokio::io::copy_bidirectional(&mut stream, &mut peer).await?;
        }
        Mode::Answer(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
        }
        Mode::Endless(head, again) => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&again).await?;
            }
        }
        Mode::Silent(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            // Until the other side has had enough.
            let mut rest = [0; 64];
            while stream.read(&mut rest).await? > 0 {}
        }
        Mode::Trickle(bytes, pause) => {
            for byte in bytes.iter() {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
        }
    }
    Ok(())
}

/// Reads the head of a request, and the body that it announces. Returns the head.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..count]);
        // Whoever begins with TLS where there is none gets the answer at once.
        if seen[0] == 0x16 {
            return Ok(String::new());
        }
        let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
        let length = head
            .to_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok())
            .unwrap_or_default();
        if seen.len() >= end + 4 + length {
            return Ok(head);
        }
    }
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// For `network.ca_file`.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What serves TLS as this name, until this year.
    pub fn acceptor(&self, name: &str, until: i32) -> TlsAcceptor {
        self.acceptor_speaking(name, until, &[])
    }

    /// The same, speaking these protocols alone: whoever offers none of them is turned away. Without any, it is HTTP/1.1.
    pub fn acceptor_speaking(&self, name: &str, until: i32, protocols: &[&str]) -> TlsAcceptor {
        // A second installation is refused, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
