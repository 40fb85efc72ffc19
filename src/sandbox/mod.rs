//! The sandbox: Torq's and JumpCloud's APIs on loopback, with invented people, for demonstration, development and tests.
//!
//! It stands alone: it shares no code with the two clients, or it would share their mistakes.
//!
//! ```text
//!  wire ──▶ server ──▶ handle (one lock) ──▶ world ──▶ torq                 people, life
//!                 │          │ journal, fault    └───▶ jumpcloud ──▶ saas   behaviour, tokens
//!                 └──▶ control
//! ```
//!
//! Tests start one with [`Sandbox::start`], act on its [`WorldHandle`] and look at what it was asked.

mod behaviour;
mod control;
mod exchange;
mod fault;
mod handle;
mod journal;
mod jumpcloud;
mod life;
mod people;
mod saas;
mod server;
mod tenants;
#[cfg(test)]
mod tests;
mod tokens;
mod torq;
mod wire;
mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use behaviour::{Behaviour, Licence, ListShape, PageTokens, TotalCount};
pub use fault::{Fault, FaultRule};
pub use handle::WorldHandle;
pub use journal::{AuthorizationKind, Endpoint, Peer, RequestLog};
pub use people::{Account, Application, DirectoryUser, Person, Role, roles};
pub use tenants::Tenants;

/// What a sandbox is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens: a loopback address, port 0 for a free one.
    pub listen: SocketAddr,
    /// The same seed makes the same people, and lets the same things happen to them.
    pub seed: u64,
    /// How many people the workspace has.
    pub people: usize,
    /// The share of them whom SSO provisioned.
    pub sso_share: f64,
    /// The share of them who are in the JumpCloud directory.
    pub directory_share: f64,
    /// The share of them who have an account already; it belongs to their directory user, where they have one.
    pub existing_share: f64,
    /// The share of them whose e-mail Torq spells with capitals, while the directory keeps lower case.
    pub mixed_case_share: f64,
    /// Accounts that have neither e-mail nor user name.
    pub anonymous_accounts: usize,
    /// Directory users who are not in Torq.
    pub other_directory_users: usize,
    /// Applications besides Torq.
    pub other_applications: usize,
    /// Whether the Torq application is there. `None`: when it has accounts.
    pub application_exists: Option<bool>,
    /// Torq's API key, first half.
    pub torq_client_id: String,
    /// Torq's API key, second half.
    pub torq_client_secret: String,
    /// JumpCloud's service account.
    pub jumpcloud_client_id: String,
    /// Its secret.
    pub jumpcloud_client_secret: String,
    /// JumpCloud's administrator key.
    pub jumpcloud_api_key: String,
    /// The organisation, where the credentials manage several and `x-org-id` is required.
    pub org_id: Option<String>,
    /// How long Torq's tokens live.
    pub torq_token_lifetime: Duration,
    /// How long JumpCloud's tokens live.
    pub jumpcloud_token_lifetime: Duration,
    /// Requests a second that Torq bears; 0 for no limit.
    pub torq_rate: u32,
    /// Requests a second that JumpCloud bears; 0 for no limit.
    pub jumpcloud_rate: u32,
    /// The switches to begin with.
    pub behaviour: Behaviour,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            people: 120,
            sso_share: 0.7,
            directory_share: 0.8,
            existing_share: 0.0,
            mixed_case_share: 0.0,
            anonymous_accounts: 0,
            other_directory_users: 0,
            other_applications: 2,
            application_exists: None,
            torq_client_id: "sandbox-torq-id".to_owned(),
            torq_client_secret: "sandbox-torq-secret".to_owned(),
            jumpcloud_client_id: "sandbox-jumpcloud-id".to_owned(),
            jumpcloud_client_secret: "sandbox-jumpcloud-secret".to_owned(),
            jumpcloud_api_key: "sandbox-jumpcloud-key".to_owned(),
            org_id: None,
            torq_token_lifetime: Duration::from_secs(3600),
            jumpcloud_token_lifetime: Duration::from_secs(3600),
            torq_rate: 50,
            jumpcloud_rate: 100,
            behaviour: Behaviour::default(),
        }
    }
}

/// The first line of [`Sandbox::config_toml`], by which a configuration is known that may be written over.
pub const CONFIG_HEADING: &str = "# A connector between the two APIs of the sandbox.";

/// A running sandbox. Dropping it ends it: every connection is closed at once.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    world: WorldHandle,
    server: JoinHandle<io::Result<()>>,
    open: wire::Open,
    stop: DropGuard,
}

impl Sandbox {
    /// Makes a world and serves it.
    ///
    /// # Errors
    /// When the address is not a loopback address, or cannot be listened on.
    pub async fn start(options: Options) -> io::Result<Self> {
        Self::resume(options.listen, WorldHandle::new(&options)).await
    }

    /// Serves a world that another sandbox served: after [`Self::stop`], on the same address, this is a peer that was
    /// away for a while.
    ///
    /// # Errors
    /// When the address is not a loopback address, or cannot be listened on.
    pub async fn resume(listen: SocketAddr, world: WorldHandle) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the sandbox listens on loopback addresses only, and {listen} is none"),
            ));
        }
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let app =
            server::router(server::Served::One(world.clone())).into_make_service_with_connect_info::<wire::Line>();
        let open = wire::Open::default();
        let served = axum::serve(wire::Tap::new(listener, stop.clone(), open.clone()), app)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        Ok(Self {
            address,
            world,
            server: tokio::spawn(async move { served.await }),
            open,
            stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Torq's API: users are at `/users` below it.
    pub fn torq_api_url(&self) -> String {
        format!("http://{}/torq/public/v1alpha", self.address)
    }

    /// Torq's token endpoint.
    pub fn torq_token_url(&self) -> String {
        format!("http://{}/torq/v1/auth/token", self.address)
    }

    /// JumpCloud's console: v1 is at `/api` below it, v2 at `/api/v2`.
    pub fn console_url(&self) -> String {
        format!("http://{}/jumpcloud", self.address)
    }

    /// JumpCloud's token endpoint.
    pub fn jumpcloud_token_url(&self) -> String {
        format!("http://{}/jumpcloud/oauth2/token", self.address)
    }

    /// The control API and its help.
    pub fn control_url(&self) -> String {
        format!("http://{}/sandbox", self.address)
    }

    /// The world that it serves.
    pub fn world(&self) -> WorldHandle {
        self.world.clone()
    }

    /// Resolves when nobody is connected: after a client was killed, when all that it sent has had its effect. Give it a deadline.
    pub async fn quiet(&self) {
        self.open.none().await;
    }

    /// Ends it, and returns when nothing listens any more.
    pub async fn stop(self) {
        drop(self.stop);
        // It ends without a result that would matter: the listener is gone either way.
        self.server.await.ok();
    }

    /// A configuration with one connector, `demo`, between the two APIs. Tables can be appended to it.
    pub fn config_toml(&self, state_dir: &str, poll_interval: &str) -> String {
        let world = self.world.lock();
        let (torq, jumpcloud) = (&world.torq_tokens, &world.jumpcloud_tokens);
        let (api, torq_token) = (self.torq_api_url(), self.torq_token_url());
        let (console, jumpcloud_token) = (self.console_url(), self.jumpcloud_token_url());
        let mut lines = vec![
            CONFIG_HEADING.to_owned(),
            setting("state_dir", state_dir),
            "\n[connectors.demo]".to_owned(),
            setting("poll_interval", poll_interval),
            "\n[connectors.demo.torq]".to_owned(),
            setting("region", "us"),
            setting("api_url", &api),
            setting("token_url", &torq_token),
            setting("client_id", &torq.client_id),
            setting("client_secret", &torq.client_secret),
            "\n[connectors.demo.jumpcloud]".to_owned(),
            setting("region", "us"),
            setting("console_url", &console),
            setting("token_url", &jumpcloud_token),
            setting("client_id", &jumpcloud.client_id),
            setting("client_secret", &jumpcloud.client_secret),
        ];
        if let Some(org_id) = &world.org_id {
            lines.push(setting("org_id", org_id));
        }
        lines.join("\n") + "\n"
    }

    /// Lets the world live, one step each `every`, with a line in the log for each. Never returns; drop it to end it.
    pub async fn live(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Some(happened) = self.world.tick() {
                tracing::info!("{happened}");
            }
        }
    }
}

/// One line of TOML; JSON's way to quote a text is one of TOML's.
fn setting(key: &str, value: &str) -> String {
    format!("{key} = {}", serde_json::Value::from(value))
}
