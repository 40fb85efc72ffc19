//! The sandbox from outside, over real connections: each fact of the two APIs that clients are built on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control;
mod faults;
mod jumpcloud;
mod torq;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, redirect, retry};
use serde_json::Value;

use super::{Options, Peer, Sandbox, WorldHandle};

/// A sandbox and a plain client with tokens for both peers.
struct Guest {
    sandbox: Sandbox,
    client: Client,
    torq_token: String,
    jumpcloud_token: String,
}

fn client() -> Client {
    // The client wants a crypto provider even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

impl Guest {
    async fn new(options: Options) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        let mut guest = Self {
            sandbox,
            client: client(),
            torq_token: String::new(),
            jumpcloud_token: String::new(),
        };
        guest.renew().await;
        guest.world().clear_requests();
        guest
    }

    async fn with_people(people: usize) -> Self {
        Self::new(Options {
            people,
            ..Options::default()
        })
        .await
    }

    fn world(&self) -> WorldHandle {
        self.sandbox.world()
    }

    /// Fetches new tokens from both peers.
    async fn renew(&mut self) {
        let token = async |peer| {
            let answer: Value = self.token_request(peer).send().await.unwrap().json().await.unwrap();
            answer["access_token"].as_str().unwrap().to_owned()
        };
        let (torq, jumpcloud) = (token(Peer::Torq).await, token(Peer::JumpCloud).await);
        (self.torq_token, self.jumpcloud_token) = (torq, jumpcloud);
    }

    /// A correct request for a token.
    fn token_request(&self, peer: Peer) -> RequestBuilder {
        let (url, id, secret, body) = match peer {
            Peer::Torq => (
                self.sandbox.torq_token_url(),
                "sandbox-torq-id",
                "sandbox-torq-secret",
                "grant_type=client_credentials",
            ),
            Peer::JumpCloud => (
                self.sandbox.jumpcloud_token_url(),
                "sandbox-jumpcloud-id",
                "sandbox-jumpcloud-secret",
                "grant_type=client_credentials&scope=api",
            ),
        };
        self.client
            .post(url)
            .basic_auth(id, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    fn torq(&self, path: &str) -> RequestBuilder {
        self.client
            .get(format!("{}{path}", self.sandbox.torq_api_url()))
            .bearer_auth(&self.torq_token)
    }

    fn console(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.sandbox.console_url()))
            .bearer_auth(&self.jumpcloud_token)
    }

    fn saas(&self, method: Method, path: &str) -> RequestBuilder {
        self.console(method, &format!("/api/v2/saas-management{path}"))
    }

    /// The path of the Torq application's accounts.
    fn accounts_path(&self) -> String {
        let application = self.world().application().unwrap();
        format!("/applications/{}/accounts", application.id)
    }

    async fn create(&self, body: Value) -> Response {
        self.saas(Method::POST, &self.accounts_path())
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    /// One page of a listing.
    async fn users(&self, query: &[(&str, &str)]) -> (u16, Value) {
        read(self.torq("/users").query(query)).await
    }

    /// All pages of a listing, with the number of pages.
    async fn listing(&self, sso: &str, size: &str) -> (Vec<Value>, usize) {
        let (mut rows, mut pages, mut token) = (Vec::new(), 0, String::new());
        loop {
            let query = [("sso_provision", sso), ("page_size", size), ("page_token", &token)];
            let (status, answer) = self.users(&query).await;
            assert_eq!(status, 200, "{answer}");
            pages += 1;
            rows.extend(answer["users"].as_array().cloned().unwrap_or_default());
            match answer["next_page_token"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return (rows, pages),
            }
        }
    }
}

/// Status and JSON of an answer; null where it has no body.
async fn read(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}
