//! Both peers on loopback, in a process of their own, as plain as can be: threads, no judgement. The sandbox is the one that
//! behaves like the real ones.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::world;

/// The process with the peers. It ends with this handle: its standard input closes then.
pub struct Peers {
    process: Child,
    pub address: String,
}

impl Peers {
    pub fn start(users: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["serve", &users.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Self {
            process,
            address: address.trim().to_owned(),
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Serves until standard input ends; prints the address first.
pub fn serve(users: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the client's business.
            std::thread::spawn(move || converse(stream, users).ok());
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).ok();
}

fn converse(stream: TcpStream, users: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let target = first.split(' ').nth(1).unwrap_or("/");
        let answer = answer(target, &body, users);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        writer.write_all(&[head.as_bytes(), answer.as_bytes()].concat())?;
    }
}

fn answer(target: &str, body: &[u8], users: usize) -> String {
    let url = url::Url::parse(&format!("http://peers{target}")).unwrap();
    let parameter = |name: &str| {
        let pair = url.query_pairs().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    let application = r#"{"id":"aaaaaaaaaaaaaaaaaaaaaaaa","catalog_app_id":"torq"}"#;
    match path[..] {
        [.., "token"] => r#"{"access_token":"bench","token_type":"bearer","expires_in":3600}"#.to_owned(),
        [.., "roles"] => r#"{"roles":[]}"#.to_owned(),
        ["torq", "users"] => {
            let at = parameter("page_token").trim_end_matches('=').parse().unwrap_or(0);
            world::torq_page(users, parameter("sso_provision") == "true", at)
        }
        [.., "accounts"] => world::accounts_page(users, parameter("offset").parse().unwrap_or(0)),
        [.., "applications"] if parameter("offset") == "0" => format!(r#"{{"results":[{application}]}}"#),
        [.., "applications"] => r#"{"results":[]}"#.to_owned(),
        [.., "applications", _] => application.to_owned(),
        [.., "systemusers"] => {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let wanted = body["filter"]["or"].as_array().into_iter().flatten();
            world::directory_page(wanted.filter_map(|wanted| wanted["email"].as_str()))
        }
        _ => panic!("nobody asked for {target} before"),
    }
}
