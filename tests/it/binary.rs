//! The real binary, used as a person would: a configuration file, commands, exit codes, and what is said where.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use torq_connector::sandbox::{Options, Sandbox, WorldHandle};

/// After this long a test gives up waiting.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Looks again and again until there is something to see.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look).await
}

/// The same, where it may take longer: a daemon waits for up to two minutes between two attempts.
pub async fn eventually_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looked = async || look().await.ok_or_else(String::new);
    eventually_or(limit, what, looked).await
}

/// The same, where a look that sees nothing says what there was instead. The one place where tests wait for what only shows when it is
/// looked at.
pub async fn eventually_or<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) => assert!(began.elapsed() < limit, "not within {limit:?}: {what}\n{instead}"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A sandbox with so many people, and nothing else out of the ordinary.
pub async fn sandbox(people: usize) -> Sandbox {
    let options = Options {
        people,
        torq_rate: 0,
        jumpcloud_rate: 0,
        ..Options::default()
    };
    Sandbox::start(options).await.unwrap()
}

/// A sandbox that was taken down. Its port is kept, so that nobody else is found there or takes it meanwhile, and nobody listens.
pub struct Away {
    address: SocketAddr,
    world: WorldHandle,
    port: TcpSocket,
}

impl Away {
    pub async fn of(sandbox: Sandbox) -> Self {
        let (address, world) = (sandbox.addr(), sandbox.world());
        sandbox.stop().await;
        // A child that is being forked has it for a moment.
        let port = eventually("its port is free", async || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).is_ok().then_some(socket)
        });
        Self {
            port: port.await,
            address,
            world,
        }
    }

    /// The same sandbox again.
    pub async fn back(self) -> Sandbox {
        let back = Sandbox::resume(self.address, self.world).await.unwrap();
        drop(self.port);
        back
    }
}

/// Takes a sandbox down for good.
pub async fn goes_away(sandbox: Sandbox) {
    std::mem::forget(Away::of(sandbox).await.port);
}

/// The accounts' e-mails, folded and sorted: what a delivery is about.
pub fn account_emails(world: &WorldHandle) -> Vec<String> {
    let mut emails: Vec<_> = world
        .accounts()
        .into_iter()
        .filter_map(|account| account.email)
        .map(|email| email.to_lowercase())
        .collect();
    emails.sort();
    emails
}

/// The people's e-mails, folded and sorted.
pub fn people_emails(world: &WorldHandle) -> Vec<String> {
    let mut emails: Vec<_> = world.people().iter().map(|one| one.email.to_lowercase()).collect();
    emails.sort();
    emails
}

/// `[connectors.NAME]` between the two APIs of a sandbox; every value can be another one.
pub struct Connector {
    pub name: String,
    pub settings: Vec<(&'static str, String)>,
}

impl Connector {
    pub fn new(name: &str, sandbox: &Sandbox) -> Self {
        let settings = [
            ("poll_interval", "1m".to_owned()),
            ("torq.api_url", sandbox.torq_api_url()),
            ("torq.token_url", sandbox.torq_token_url()),
            ("torq.client_id", "sandbox-torq-id".to_owned()),
            ("torq.client_secret", "sandbox-torq-secret".to_owned()),
            ("jumpcloud.console_url", sandbox.console_url()),
            ("jumpcloud.token_url", sandbox.jumpcloud_token_url()),
            ("jumpcloud.client_id", "sandbox-jumpcloud-id".to_owned()),
            ("jumpcloud.client_secret", "sandbox-jumpcloud-secret".to_owned()),
        ];
        Self {
            name: name.to_owned(),
            settings: settings.to_vec(),
        }
    }

    /// The same with this setting.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, value.into()));
        self
    }

    /// With Torq's client secret in a file of this name.
    pub fn torq_secret_in(self, file: impl Into<String>) -> Self {
        self.without("torq.client_secret").with("torq.client_secret_file", file)
    }

    /// The same without this setting.
    pub fn without(mut self, key: &str) -> Self {
        self.settings.retain(|(known, _)| *known != key);
        self
    }

    fn toml(&self) -> String {
        let lines = self.settings.iter().map(|(key, value)| {
            let value = Value::from(value.as_str());
            format!("{key} = {value}\n")
        });
        format!("\n[connectors.{}]\n{}", self.name, lines.collect::<String>())
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Ran {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Standard error says all of this, and so it did not go to standard output.
    #[track_caller]
    pub fn tells(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in stderr:\n{}", self.err);
        }
        self
    }

    /// Standard output says all of this.
    #[track_caller]
    pub fn shows(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "{word:?} is not in stdout:\n{}", self.out);
        }
        self
    }

    /// Standard output says none of this.
    #[track_caller]
    pub fn hides(self, words: &[&str]) -> Self {
        for word in words {
            assert!(!self.out.contains(word), "{word:?} is in stdout:\n{}", self.out);
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.out, self.err))
    }

    /// The lines of a CSV output, header first.
    pub fn csv(&self) -> Vec<Vec<String>> {
        let mut lines = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(self.out.as_bytes());
        lines
            .records()
            .map(|line| line.unwrap().iter().map(str::to_owned).collect())
            .collect()
    }
}

/// The folders in which programs are found; the binary is installed in the first of them.
pub fn search() -> OsString {
    let installed = Path::new(env!("CARGO_BIN_EXE_torq-connector")).parent().unwrap();
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([installed.to_owned()].into_iter().chain(std::env::split_paths(&others))).unwrap()
}

/// The binary, with nothing of the environment but the path.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torq-connector"));
    command
        .env_clear()
        .env("PATH", search())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Ran {
    let began = Instant::now();
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .expect("the command ends")
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        took: began.elapsed(),
    }
}

/// Where a connector lives: its configuration and its state, in a folder of their own.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new(connectors: &[Connector]) -> Self {
        Self::with("", connectors)
    }

    /// The same, with further sections.
    pub fn with(sections: &str, connectors: &[Connector]) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        place.configure(sections, connectors);
        place
    }

    pub fn configure(&self, sections: &str, connectors: &[Connector]) {
        let connectors: String = connectors.iter().map(Connector::toml).collect();
        let http = if sections.contains("[http]") {
            ""
        } else {
            "[http]\nlisten = \"127.0.0.1:0\"\n"
        };
        self.write(
            "config.toml",
            &format!("state_dir = \"state\"\n{sections}\n{http}{connectors}"),
        );
    }

    /// Writes a private file into the folder.
    pub fn write(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// A command as this place's daemon advises it: to somebody who has nothing of its environment.
    pub fn advised(&self, command: &str) -> String {
        format!(
            "torq-connector --config {} {command}",
            self.path("config.toml").display()
        )
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bare();
        command
            .env("TORQ_CONNECTOR_CONFIG", self.path("config.toml"))
            .args(args);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args)).await
    }

    /// Starts the daemon and waits until it listens.
    pub async fn daemon(&self) -> Daemon {
        self.daemon_by(self.command(&["run"])).await
    }

    /// The same, with something else about the command.
    pub async fn daemon_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command(&["run"]);
        change(&mut command);
        self.daemon_by(command).await
    }

    /// The same, after a line of shell: what a service manager sets before it starts one.
    pub async fn daemon_after(&self, line: &str) -> Daemon {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{line} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_torq-connector"))
            .arg("--config")
            .arg(self.path("config.toml"))
            .arg("run")
            .env_clear()
            .env("PATH", search())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        self.daemon_by(command).await
    }

    /// The same by a command of one's own.
    pub async fn daemon_by(&self, mut command: Command) -> Daemon {
        let log = self.path(&format!("daemon-{}.log", fastrand::u32(..)));
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut daemon = Daemon {
            child: command.spawn().unwrap(),
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        daemon.address = eventually("the daemon listens", async || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", daemon.said());
            }
            address_in(&daemon.said())
        })
        .await;
        daemon
    }

    /// Every file in the state folder, and what is in it.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.state_dir())
    }
}

pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            // A socket, or a file that went away since, has no content.
            let content = fs::read(&path).unwrap_or_default();
            (path, content)
        })
        .collect()
}

/// The address in the line that says where the daemon listens, as text or as JSON.
fn address_in(log: &str) -> Option<SocketAddr> {
    let line = log
        .lines()
        .find(|line| line.contains("status page, health and metrics"))?;
    let rest = line
        .split_once("address=")
        .or_else(|| line.split_once("\"address\":\""))?
        .1;
    rest.split(['"', ' ']).next()?.parse().ok()
}

/// A running daemon; it is killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    pub address: SocketAddr,
}

impl Daemon {
    /// What it wrote to standard error so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it still runs")
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it still runs").to_string();
        let status = std::process::Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success(), "kill -s {signal} {pid}");
    }

    /// Waits for its end: the exit code (128 and the signal, when one ended it), and how long that took.
    pub async fn ended(&mut self) -> (i32, Duration) {
        use std::os::unix::process::ExitStatusExt;
        let began = Instant::now();
        let status = tokio::time::timeout(DEADLINE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the daemon does not end:\n{}", self.said()))
            .unwrap();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        (code.unwrap(), began.elapsed())
    }

    /// Tells it to stop, and expects that it does so in good order.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let (code, _) = self.ended().await;
        assert_eq!(code, 0, "{}", self.said());
    }

    /// `GET`: status, headers and body together.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).await
    }

    pub async fn json(&self, path: &str) -> Value {
        let (status, answer) = self.get(path).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(body(&answer)).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Waits until a connector's status is as wanted, and returns it.
    pub async fn status(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually_or(DEADLINE, "the status is as wanted", async || {
            let report = self.json("/api/status").await;
            let all = report["connectors"].as_array().unwrap();
            let status = all.iter().find(|one| one["name"] == name).cloned().unwrap_or_default();
            match wanted(&status) {
                true => Ok(status),
                false => Err(format!("{status}\n{}", self.said())),
            }
        })
        .await
    }

    /// Waits until a connector is in this state.
    pub async fn state(&self, name: &str, state: &str) -> Value {
        self.status(name, |status| status["state"] == state).await
    }
}

/// One request on a connection of its own; status, and the answer with its headers.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(address, "GET", path, "").await
}

/// The same with a method of its own and JSON.
pub async fn exchange(address: SocketAddr, method: &str, path: &str, json: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let about = match json.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{about}\r\n{json}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// What follows the headers.
pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The keys of a JSON object, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
