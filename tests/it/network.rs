//! The network as it is in companies: proxies with and without passwords, authorities of one's own, a trust store, IPv6. Each thing
//! that can be wrong with it is named as what it is, and never as wrong credentials.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine};
use torq_connector::sandbox::Sandbox;

use crate::binary::{Connector, Place, Ran, finish, sandbox};
use crate::front::{Authority, Front, Mode, Proxy};

/// A connector both of whose peers are below this address instead of the sandbox's.
pub fn below(url: &str, sandbox: &Sandbox) -> Connector {
    let there = format!("http://{}", sandbox.addr());
    let mut connector = Connector::new("main", sandbox);
    for (_, value) in &mut connector.settings {
        *value = value.replace(&there, url);
    }
    connector
}

/// A place that trusts this authority, with a connector to peers below this address. Nobody waits long.
fn place(url: &str, sandbox: &Sandbox, authority: &Authority) -> Place {
    let network = "[network]\nca_file = \"ca.pem\"\nconnect_timeout = \"2s\"\ntimeout = \"10s\"\n";
    let place = Place::with(network, &[below(url, sandbox)]);
    place.write("ca.pem", &authority.pem());
    place
}

/// The sandbox, as a server with this name and TLS.
async fn peers(sandbox: &Sandbox, authority: &Authority, name: &str) -> Front {
    Front::tls(Mode::Through(sandbox.addr()), authority.acceptor(name, 2100)).await
}

fn proxy(to: SocketAddr, user: Option<&'static str>) -> Arc<Proxy> {
    let heads = Mutex::default();
    Arc::new(Proxy { to, user, heads })
}

async fn run(place: &Place, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = place.command(args);
    command.envs(env.iter().copied());
    finish(command).await
}

/// Nobody can listen there as long as this lives.
fn closed() -> (tokio::net::TcpSocket, SocketAddr) {
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    (taken, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_told_who_we_are_and_nobody_else_hears_of_it() {
    let sandbox = sandbox(3).await;
    let authority = Authority::new();
    let peers = peers(&sandbox, &authority, "peers.invalid").await;
    let place = place("https://peers.invalid", &sandbox, &authority);
    let asked = proxy(peers.address, Some("us@er:p:a/s%s#word"));
    let front = Front::new(Mode::Proxy(Arc::clone(&asked))).await;
    let at = |user: &str| format!("http://{user}{}", front.address);
    let (right, wrong) = (at("us%40er:p%3Aa%2Fs%25s%23word@"), at("us%40er:n0t%2Ath3%2Aw0rd@"));
    let encoded = BASE64_STANDARD.encode("us@er:n0t*th3*w0rd");
    let secrets = ["a/s%s", "a%2Fs", "n0t%2A", "n0t*", "us@er", "us%40er", &encoded[..20]];
    let silent = |ran: &Ran| {
        for secret in secrets {
            assert!(
                !ran.out.contains(secret) && !ran.err.contains(secret),
                "{secret}: {ran:?}"
            );
        }
    };

    let ran = run(&place, &["-vvv", "sync"], &[("HTTPS_PROXY", &right)])
        .await
        .exits(0);
    silent(&ran);
    // Every connection was made by it, to where it was to lead; the names need not even resolve here.
    let heads = std::mem::take(&mut *asked.heads.lock().unwrap());
    assert!(!heads.is_empty());
    for head in heads {
        assert!(head.starts_with("CONNECT peers.invalid:443 HTTP/1.1\r\n"), "{head}");
    }
    for request in sandbox.world().requests() {
        assert!(
            !format!("{request:?}").to_lowercase().contains("proxy-auth"),
            "{request:?}"
        );
    }
    let road = format!("peers.invalid:443 through the proxy {}", front.address);
    let ran = run(&place, &["check"], &[("HTTPS_PROXY", &right)]).await.exits(0);
    silent(&ran.shows(&[&format!("{road}: name, TLS and answer")]));

    for (url, words) in [
        (wrong, "the proxy does not accept its user name and password"),
        (at(""), "the proxy wants a user name and a password"),
    ] {
        let ran = run(&place, &["-vvv", "check"], &[("HTTPS_PROXY", &url)])
            .await
            .exits(69);
        silent(&ran);
        ran.shows(&[
            "FAILED  Torq connection",
            words,
            &road,
            "http://USER:PASSWORD@HOST:PORT",
        ])
        .hides(&["Torq credentials", "client secret"]);
    }
    // Not encoded, a part of it could be taken for something else.
    let ran = run(
        &place,
        &["check"],
        &[("HTTPS_PROXY", "http://user:1234#n0t*@proxy.invalid:3128")],
    )
    .await;
    silent(&ran.exits(78).tells(&["HTTPS_PROXY", "%40 for @"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_in_which_a_proxy_fails_is_named() {
    let sandbox = sandbox(1).await;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let place = place("https://peers.invalid", &sandbox, &ours);
    let answer = |status: &str| Mode::answer(status, "Content-Type: text/html\r\n", "<html>no</html>");
    let forbids = Front::new(answer("403 Forbidden")).await;
    let cannot = Front::new(answer("502 Bad Gateway")).await;
    let busy = Front::new(answer("503 Service Unavailable")).await;
    let hangs_up = Front::new(Mode::Answer(Default::default())).await;
    let another = Front::new(Mode::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec().into())).await;
    let silent = Front::new(Mode::Silent(Default::default())).await;
    let inspected = Front::tls(answer("403 Forbidden"), theirs.acceptor("localhost", 2100)).await;
    let (_taken, away) = closed();
    let refused = "the proxy did not connect us: it forbids this address, or cannot reach it";
    let its_log = "its log says why";
    for (proxy, words, advice) in [
        (format!("http://{}", forbids.address), refused, its_log),
        (format!("http://{}", cannot.address), refused, its_log),
        (format!("http://{}", busy.address), refused, its_log),
        (format!("http://{}", another.address), refused, its_log),
        (
            format!("http://{}", hangs_up.address),
            "the proxy does not answer",
            "whether it works",
        ),
        (
            format!("http://{}", silent.address),
            "no connection through the proxy within the connect time-out",
            "whether it works",
        ),
        (
            format!("http://{away}"),
            "the proxy does not answer: Connection refused",
            "whether it works",
        ),
        (
            "http://proxy.invalid:3128".to_owned(),
            "the name of the proxy does not resolve",
            "HTTPS_PROXY",
        ),
        (
            format!("https://localhost:{}", inspected.address.port()),
            "the TLS certificate of the proxy is not trusted",
            "network.ca_file",
        ),
    ] {
        let ran = run(&place, &["check"], &[("HTTPS_PROXY", &proxy)]).await.exits(69);
        let (_, address) = proxy.split_once("://").unwrap();
        let road = format!("(peers.invalid:443 through the proxy {address})");
        ran.shows(&[
            "FAILED  Torq connection",
            "FAILED  JumpCloud connection",
            words,
            &road,
            advice,
        ])
        .hides(&["Torq credentials", "JumpCloud credentials", "client secret"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_proxy_is_away_goes_on_when_it_is_back() {
    let sandbox = sandbox(3).await;
    let authority = Authority::new();
    let peers = peers(&sandbox, &authority, "peers.invalid").await;
    let place = place("https://peers.invalid", &sandbox, &authority);
    let front = Front::new(Mode::answer("503 Service Unavailable", "", "")).await;
    let url = format!("http://{}", front.address);
    let daemon = place
        .daemon_with(|command| {
            command.env("HTTPS_PROXY", &url);
        })
        .await;
    let status = daemon.state("main", "retrying").await;
    assert!(
        status["reason"]
            .as_str()
            .unwrap()
            .contains("the proxy did not connect us"),
        "{status}"
    );
    front.set(Mode::Proxy(proxy(peers.address, None)));
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_names_hosts_with_what_is_below_them_and_networks() {
    let sandbox = sandbox(1).await;
    let authority = Authority::new();
    let front = Front::new(Mode::answer("403 Forbidden", "", "")).await;
    let through = format!("http://{}", front.address);
    let by_name = peers(&sandbox, &authority, "localhost").await;
    let by_number = peers(&sandbox, &authority, "127.0.0.1").await;
    let named = format!("https://localhost:{}", by_name.address.port());
    let numbered = format!("https://{}", by_number.address);
    let below = "https://api.peers.invalid".to_owned();
    let port = format!("localhost:{}", by_name.address.port());
    for (url, no_proxy, passes) in [
        (&named, "localhost", true),
        (&named, "other.example, LOCALHOST", true),
        (&named, ".localhost", true),
        (&named, "*", true),
        (&named, "", false),
        (&named, "host", false),
        // A port makes another name of it, and an address is not looked up for one.
        (&named, &port, false),
        (&named, "127.0.0.0/8", false),
        (&numbered, "127.0.0.1", true),
        (&numbered, "127.0.0.0/8", true),
        (&numbered, "10.0.0.0/8", false),
        (&below, "peers.invalid", true),
        (&below, ".peers.invalid", true),
        (&below, "pi.peers.invalid", false),
    ] {
        let place = place(url, &sandbox, &authority);
        let before = front.connections();
        let ran = run(&place, &["check"], &[("https_proxy", &through), ("no_proxy", no_proxy)]).await;
        let asked = front.connections() > before;
        assert_eq!(asked, !passes, "{url}, {no_proxy:?}: {ran:?}");
        let words = match (passes, url == &below) {
            (false, _) => "the proxy did not connect us",
            (true, true) => "the host name does not resolve",
            (true, false) => "ok      Torq connection",
        };
        ran.shows(&[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_several_authorities_trusts_each_of_them_and_is_read_again() {
    let sandbox = sandbox(2).await;
    let (first, second, other) = (Authority::new(), Authority::new(), Authority::new());
    let at = |front: &Front| format!("https://localhost:{}", front.address.port());
    let torq = peers(&sandbox, &first, "localhost").await;
    let jumpcloud = peers(&sandbox, &second, "localhost").await;
    let mut connector = below(&at(&torq), &sandbox);
    for (key, value) in &mut connector.settings {
        if key.starts_with("jumpcloud.") {
            *value = value.replace(&at(&torq), &at(&jumpcloud));
        }
    }
    let place = Place::with("[network]\nca_file = \"ca.pem\"\n", &[connector]);
    place.write("ca.pem", &format!("{}{}", other.pem(), first.pem()));
    let daemon = place.daemon().await;
    let status = daemon.state("main", "retrying").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.contains("JumpCloud") && reason.contains("certificate is not trusted"),
        "{reason}"
    );
    // The same file, with more in it.
    place.write("ca.pem", &format!("{}{}{}", other.pem(), first.pem(), second.pem()));
    daemon.signal("HUP");
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_authorities_that_cannot_be_used_is_a_problem_of_the_configuration() {
    let sandbox = sandbox(1).await;
    let authority = Authority::new();
    let place = place("https://localhost", &sandbox, &authority);
    std::fs::remove_file(place.path("ca.pem")).unwrap();
    let told = async |words: &str| {
        let ran = place.run(&["check"]).await.exits(78);
        ran.tells(&["network.ca_file", words]);
    };
    told("cannot be read: No such file").await;
    place.write("ca.pem", "nothing of the kind");
    told("no certificate in it").await;
    place.write("ca.pem", &authority.pem().replace("MII", "AAA"));
    told("certificate 1").await;
    std::fs::remove_file(place.path("ca.pem")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.path("ca.pem")).status();
    assert!(made.unwrap().success());
    told("not a regular file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_store_of_the_system_is_believed_and_none_is_said() {
    let sandbox = sandbox(1).await;
    let authority = Authority::new();
    let front = peers(&sandbox, &authority, "localhost").await;
    let connector = below(&format!("https://localhost:{}", front.address.port()), &sandbox);
    let place = Place::new(&[connector]);
    // A system whose authorities these are, and one that has none.
    place.write("store.pem", &authority.pem());
    place.write("empty.pem", "");
    std::fs::create_dir(place.path("nothing")).unwrap();
    let (store, empty) = (place.path("store.pem"), place.path("empty.pem"));
    let (store, empty, nothing) = (store.to_str().unwrap(), empty.to_str().unwrap(), place.path("nothing"));
    let nothing = nothing.to_str().unwrap();
    let ran = run(&place, &["sync"], &[("SSL_CERT_FILE", store)]).await;
    ran.exits(0);
    let bare = [("SSL_CERT_FILE", empty), ("SSL_CERT_DIR", nothing)];
    let ran = run(&place, &["check"], &bare).await.exits(1);
    ran.tells(&["is a set of certificate authorities installed (Debian: ca-certificates)?"]);
    // Of another system's, this one is nobody.
    let ran = run(&place, &["check"], &[]).await;
    if ran.code != 1 {
        ran.exits(69).shows(&["the TLS certificate is not trusted"]);
    }
    // With an authority of one's own nothing else is needed.
    let text = std::fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &format!("network.ca_file = \"store.pem\"\n{text}"));
    run(&place, &["check"], &bare).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_proxy_and_page_are_reached_by_ipv6() {
    let sandbox = sandbox(3).await;
    let authority = Authority::new();
    let through = || Mode::Through(sandbox.addr());
    let plain = Front::six(through(), None).await;
    let secure = Front::six(through(), Some(authority.acceptor("::1", 2100))).await;
    // Without TLS, as on loopback of IPv4; the page there, too.
    let sections = "[http]\nlisten = \"[::1]:0\"\n";
    let place = Place::with(sections, &[below(&format!("http://{}", plain.address), &sandbox)]);
    let daemon = place.daemon().await;
    assert!(daemon.address.is_ipv6());
    daemon.state("main", "connected").await;
    // Names for machines and a page for people: loopback is loopback.
    let (status, page) = daemon.get("/").await;
    assert_eq!(status, 200, "{page}");
    let text = std::fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &text.replace("[::1]:0", &daemon.address.to_string()));
    place.run(&["health"]).await.exits(0);
    daemon.stop().await;

    let place = self::place(&format!("https://{}", secure.address), &sandbox, &authority);
    let ran = place.run(&["check"]).await.exits(0);
    ran.shows(&[&format!("{}: name, TLS and answer", secure.address)]);

    // And a proxy there.
    let peers = peers(&sandbox, &authority, "peers.invalid").await;
    let asked = proxy(peers.address, None);
    let front = Front::six(Mode::Proxy(Arc::clone(&asked)), None).await;
    let place = self::place("https://peers.invalid", &sandbox, &authority);
    let url = format!("http://{}", front.address);
    let ran = run(&place, &["check"], &[("HTTPS_PROXY", &url)]).await.exits(0);
    ran.shows(&[&format!("through the proxy {}: name, TLS and answer", front.address)]);
    assert!(!asked.heads.lock().unwrap().is_empty());

    // What does not go is an address of IPv6 behind a proxy, and that is said as what it is.
    let six = format!("https://{}", secure.address);
    let place = self::place(&six, &sandbox, &authority);
    let ran = run(&place, &["check"], &[("HTTPS_PROXY", &url)]).await.exits(69);
    ran.shows(&["an IPv6 address cannot be reached through a proxy", "NO_PROXY"])
        .hides(&["Torq credentials"]);
}
