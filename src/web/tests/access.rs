//! Who may look, and what keeps everybody else out: passwords, hosts, methods, headers, and clients that mean no good.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn every_answer_carries_the_protecting_headers() {
    let world = peopled(open()).await;
    for path in PERSONAL.into_iter().chain(ANYBODYS).chain(["/metrics", "/nothing"]) {
        let response = world.request(Method::GET, path).send().await.unwrap();
        let headers = response.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"));
        for directive in [
            "script-src 'self';",
            "form-action 'self';",
            "base-uri 'none';",
            "frame-ancestors 'none';",
        ] {
            assert!(policy.contains(directive), "{policy}");
        }
        assert!(policy.contains("require-trusted-types-for 'script'"), "{policy}");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn nothing_can_be_changed_and_head_is_answered() {
    let world = peopled(open()).await;
    for path in PERSONAL.into_iter().chain(ANYBODYS).chain(["/metrics"]) {
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ] {
            let (status, _) = told(world.request(method.clone(), path)).await;
            assert_eq!(status, 405, "{method} {path}");
        }
    }
    let (status, body) = told(world.request(Method::HEAD, "/api/status")).await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(world.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn without_a_password_only_this_machine_is_told_about_people() {
    let world = peopled(Access::default()).await;
    for path in PERSONAL {
        let (status, words) = world.get(path).await;
        assert_eq!(status, 403, "{path}");
        assert!(words.contains("http.password_file"), "{words}");
    }
    assert_eq!(world.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn the_password_opens_and_nothing_else_does() {
    let local_with_password = Access {
        local: true,
        ..guarded()
    };
    for access in [guarded(), local_with_password] {
        let world = peopled(access).await;
        for path in PERSONAL {
            let refused = world.request(Method::GET, path).send().await.unwrap();
            assert_eq!(refused.status(), 401, "{path}");
            let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
            for user in ["", "anybody"] {
                let known = world.request(Method::GET, path).basic_auth(user, Some("pa:ss wörd"));
                assert_eq!(told(known).await.0, 200, "{path}");
            }
            for wrong in ["", "pa", "pa:ss wörd ", "ss wörd", "PA:SS WÖRD"] {
                let unknown = world.request(Method::GET, path).basic_auth("anybody", Some(wrong));
                assert_eq!(told(unknown).await.0, 401, "{wrong}");
            }
            for wrong in ["Basic", "Basic !!!", "Bearer pa:ss", "Basic cGE="] {
                let unknown = world.request(Method::GET, path).header("authorization", wrong);
                assert_eq!(told(unknown).await.0, 401, "{wrong}");
            }
        }
        for path in ["/healthz", "/metrics"] {
            assert_ne!(world.get(path).await.0, 401);
        }
    }
}

/// Sends bytes as they are; answers with everything that comes until the end.
pub(super) async fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn pages_elsewhere_cannot_read_through_a_browser() {
    let access = Access {
        local: true,
        password: None,
        hosts: vec!["status.example.com".to_owned()],
    };
    let world = peopled(access).await;
    let answer = async |path: &str, hosts: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        raw(&world.address, &request).await
    };
    for path in PERSONAL {
        for ours in ["127.0.0.1", "[::1]:8686", "localhost:1", "STATUS.example.com"] {
            let told = answer(path, &format!("Host: {ours}\r\n")).await;
            assert!(told.starts_with("HTTP/1.1 200"), "{ours}: {told}");
        }
        for foreign in [
            "",
            "Host: evil.example\r\n",
            "Host: localhost.evil.example\r\n",
            "Host: \r\n",
            "Host: localhost\r\nHost: evil.example\r\n",
        ] {
            let told = answer(path, foreign).await;
            assert!(told.starts_with("HTTP/1.1 421"), "{foreign}: {told}");
            assert!(told.contains("http.hosts"), "{told}");
        }
    }
    let told = answer("http://evil.example/api/status", "Host: localhost\r\n").await;
    assert!(told.starts_with("HTTP/1.1 421"), "{told}");
    for path in ["/healthz", "/metrics"] {
        let told = answer(path, "Host: 10-1-2-3.pod.cluster.local\r\n").await;
        assert!(!told.starts_with("HTTP/1.1 421"), "{told}");
    }
}

#[tokio::test]
async fn silent_clients_do_not_keep_others_waiting_nor_the_process_alive() {
    let mut world = world(open()).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&world.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        silent.push(stream);
    }
    assert_eq!(world.get("/healthz").await.0, 200);
    let asked = Instant::now();
    world.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), &mut world.server).await;
    ended.unwrap().unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(8));
    assert!(TcpStream::connect(&world.address).await.is_err());
    drop(silent);
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let world = world(open()).await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let answer = raw(&world.address, &long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(world.get("/healthz").await.0, 200);
}
