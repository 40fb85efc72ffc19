//! Peers that are none: sockets behind which nobody speaks the API, or HTTP, or at all.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Their addresses.
pub struct Wild {
    /// Takes connections and says nothing.
    pub silent: SocketAddr,
    /// Resets every connection.
    pub resets: SocketAddr,
    /// Nobody listens there.
    pub closed: SocketAddr,
    /// A page to log in to, whatever is asked.
    pub portal: SocketAddr,
    /// A byte now and then, under the length of a page.
    pub drips: SocketAddr,
    /// A body without an end.
    pub floods: SocketAddr,
    /// No HTTP.
    pub babbles: SocketAddr,
    /// A list of users that goes on for ever, all of them new.
    pub endless: SocketAddr,
    /// Keeps the port where nobody listens, or somebody else might be given it.
    _closed: TcpSocket,
}

impl Wild {
    pub async fn start() -> Self {
        let closed = TcpSocket::new_v4().unwrap();
        closed.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self {
            closed: closed.local_addr().unwrap(),
            _closed: closed,
            silent: serve(|mut stream| async move { while read(&mut stream).await {} }).await,
            resets: serve(|stream| async move { stream.set_zero_linger().unwrap() }).await,
            portal: serve(|mut stream| async move {
                let page = "<!doctype html><title>Welcome to our network</title><form>…</form>";
                while read(&mut stream).await {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
                        page.len()
                    );
                    if !write(&mut stream, &(head + page)).await {
                        break;
                    }
                }
            })
            .await,
            drips: serve(|mut stream| async move {
                read(&mut stream).await;
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 40000\r\n\r\n{\"users\": [";
                let mut goes_on = write(&mut stream, head).await;
                while goes_on {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    goes_on = write(&mut stream, " ").await;
                }
            })
            .await,
            floods: serve(|mut stream| async move {
                read(&mut stream).await;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut goes_on = write(&mut stream, head).await;
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                while goes_on {
                    goes_on = write(&mut stream, &chunk).await;
                }
            })
            .await,
            babbles: serve(|mut stream| async move {
                read(&mut stream).await;
                write(&mut stream, "220 mail.example.com ESMTP\r\n").await;
            })
            .await,
            endless: serve(|mut stream| async move {
                while read(&mut stream).await {
                    let fresh = || uuid::Uuid::new_v4();
                    let body = format!(
                        r#"{{"users": [{{"id": "{}", "email": "{}@example.com"}}], "next_page_token": "{}"}}"#,
                        fresh(),
                        fresh(),
                        fresh()
                    );
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    if !write(&mut stream, &(head + &body)).await {
                        break;
                    }
                }
            })
            .await,
        }
    }
}

async fn serve<F: Future<Output = ()> + Send + 'static>(with: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with(stream));
        }
    });
    address
}

/// Reads a request, or what comes of one; whether there was anything.
async fn read(stream: &mut TcpStream) -> bool {
    let mut request = [0; 8192];
    stream.read(&mut request).await.is_ok_and(|length| length > 0)
}

async fn write(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).await.is_ok()
}
