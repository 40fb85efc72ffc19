//! `health`: asks the running daemon whether it works, for container engines and scripts: an image without a shell has nothing
//! else that could ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CommandError, Context, Exit, tell};
use crate::config;
use crate::daemon::control::{self, Request, Response};

/// Whoever asks for health in a script does not wait long.
const PATIENCE: Duration = Duration::from_secs(5);
/// A few words on each of a thousand connectors.
const LONGEST: u64 = 256 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether every connector succeeded lately (/readyz), and not only whether the process works (/healthz).
    #[arg(long)]
    ready: bool,
}

/// Exits 0 when all is well, 1 when the daemon says that it is not, and 69 when it does not answer.
pub(super) async fn run(context: Context, args: HealthArgs) -> Result<Exit, CommandError> {
    let silent = |why: String| CommandError::new(Exit::Unavailable, format!("the daemon does not answer: {why}"));
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let (state_dir, listen) = match context.config_without_secrets() {
        Ok(config) => (config.state_dir, config.http.listen),
        // It goes on by its former configuration, and knows where.
        Err(problems) => running(&context).await.ok_or(problems)?,
    };
    let Some(address) = listen.filter(|address| address.port() != 0) else {
        // Nothing is served, so that it answers at all is what can be known.
        let asked = control::ask(&state_dir, &Request::Status);
        return match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(Some(_))) if args.ready => {
                let words = "http.listen names no address, so the daemon cannot be asked whether it is ready; see: torq-connector status";
                Err(CommandError::new(Exit::Unavailable, words))
            }
            Ok(Ok(Some(_))) => Ok(Exit::Done),
            Ok(Ok(None)) => Err(silent("none runs with this state_dir".to_owned())),
            Ok(Err(error)) => Err(silent(error.to_string())),
            Err(_) => Err(silent(format!("not within {} s", PATIENCE.as_secs()))),
        };
    };
    let address = reachable(address);
    let (status, body) = match tokio::time::timeout(PATIENCE, get(address, path)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(silent(format!("{address}: {error}"))),
        Err(_) => return Err(silent(format!("{address}: not within {} s", PATIENCE.as_secs()))),
    };
    // Somebody else's daemon may have the address, and this one may have died of that.
    let asked = control::ask(&state_dir, &Request::Ping);
    if let Ok(Ok(None)) = tokio::time::timeout(PATIENCE, asked).await {
        return Err(silent(format!(
            "none runs with this state_dir, and what answers at {address} is another one"
        )));
    }
    tell(body.trim_end());
    Ok(if status == 200 { Exit::Done } else { Exit::Unexpected })
}

/// The daemon that runs although its configuration file has problems by now: its folder, and where it serves its page.
async fn running(context: &Context) -> Option<(PathBuf, Option<SocketAddr>)> {
    let state_dir = config::state_dir(&context.path, &context.env)?;
    let asked = control::ask(&state_dir, &Request::Address);
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Some(Response::Address(listen)))) => Some((state_dir, listen)),
        _ => None,
    }
}

/// Where a daemon that listens there is reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status and the body of one answer. (The client for the peers would bring TLS and proxies along.)
async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| std::io::Error::other("that is not torq-connector's answer"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_on_loopback() {
        let asked = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:8686"), "127.0.0.1:8686");
        assert_eq!(asked("[::]:8686"), "[::1]:8686");
        assert_eq!(asked("127.0.0.1:1"), "127.0.0.1:1");
        assert_eq!(asked("192.0.2.7:80"), "192.0.2.7:80");
    }

    #[test]
    fn only_an_answer_of_http_is_one() {
        assert_eq!(
            parse("HTTP/1.1 200 OK\r\na: b\r\n\r\nok\n"),
            Some((200, "ok\n".to_owned()))
        );
        assert_eq!(parse("HTTP/1.1 2"), None);
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n\r\n"), None);
    }
}
