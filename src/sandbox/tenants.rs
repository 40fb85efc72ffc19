//! Many worlds at one address, each below a path of its own: as JumpCloud serves all its organisations from one console. What
//! shares an address shares its limits, and a client's road to it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::handle::WorldHandle;
use super::server::Served;
use super::{Options, server, wire};

/// Running worlds at one address. Dropping them ends them.
#[derive(Debug)]
pub struct Tenants {
    address: SocketAddr,
    worlds: Arc<BTreeMap<String, WorldHandle>>,
    _stop: DropGuard,
}

impl Tenants {
    /// Makes the worlds and serves each below `/NAME`. Where they listen is not theirs to say.
    ///
    /// # Errors
    /// When no loopback address can be listened on.
    pub async fn start(worlds: impl IntoIterator<Item = (String, Options)>) -> io::Result<Self> {
        let worlds = worlds.into_iter();
        let worlds: BTreeMap<_, _> = worlds
            .map(|(name, options)| (name, WorldHandle::new(&options)))
            .collect();
        let worlds = Arc::new(worlds);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let app = server::router(Served::Many(Arc::clone(&worlds)));
        let app = app.into_make_service_with_connect_info::<wire::Line>();
        let tap = wire::Tap::new(listener, stop.clone(), wire::Open::default());
        let served = axum::serve(tap, app).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { served.await });
        Ok(Self {
            address,
            worlds,
            _stop: stop.drop_guard(),
        })
    }

    /// The world of this name, where there is one.
    pub fn world(&self, name: &str) -> Option<WorldHandle> {
        self.worlds.get(name).cloned()
    }

    /// Torq's API for the workspace of this name.
    pub fn torq_api_url(&self, name: &str) -> String {
        format!("http://{}/{name}/torq/public/v1alpha", self.address)
    }

    /// Torq's token endpoint for it.
    pub fn torq_token_url(&self, name: &str) -> String {
        format!("http://{}/{name}/torq/v1/auth/token", self.address)
    }

    /// JumpCloud's console for the organisation of this name.
    pub fn console_url(&self, name: &str) -> String {
        format!("http://{}/{name}/jumpcloud", self.address)
    }

    /// JumpCloud's token endpoint for it.
    pub fn jumpcloud_token_url(&self, name: &str) -> String {
        format!("http://{}/{name}/jumpcloud/oauth2/token", self.address)
    }
}
