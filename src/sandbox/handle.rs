//! The handle by which tests, the demo and the control API look at the world and change it. Every method locks, does
//! its work and unlocks; none but the two that wait for requests is asynchronous.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;

use super::Options;
use super::behaviour::Behaviour;
use super::exchange::{Asked, Reply};
use super::fault::{Fault, FaultRule};
use super::journal::{Endpoint, Peer, RequestLog};
use super::people::{Account, Application, DirectoryUser, Person};
use super::world::{TORQ_APP, World};

/// The world of a sandbox. Clones are the same world.
#[derive(Clone, Debug)]
pub struct WorldHandle {
    world: Arc<Mutex<World>>,
    /// Told of every request that arrived or was answered.
    stirred: watch::Sender<()>,
    plans: Arc<Mutex<Vec<Plan>>>,
}

/// What is to happen right before a request.
struct Plan {
    endpoint: Endpoint,
    /// So many more requests of the endpoint come first.
    after: usize,
    happens: Box<dyn FnOnce(&WorldHandle) + Send>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({:?} after {})", self.endpoint, self.after)
    }
}

/// What became of a request on arrival.
pub(super) struct Received {
    pub(super) number: u64,
    pub(super) fault: Option<Fault>,
    /// `None` while the fault keeps the request from an answer.
    pub(super) reply: Option<Reply>,
}

impl WorldHandle {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new(options))),
            stirred: watch::Sender::new(()),
            plans: Arc::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The people of the Torq workspace.

    /// Everybody, in the order of ids.
    pub fn people(&self) -> Vec<Person> {
        self.lock().people.values().cloned().collect()
    }

    /// So many new people join now; the shares of the options hold for them, too.
    pub fn add_people(&self, count: usize) -> Vec<Person> {
        let mut world = self.lock();
        let now = Timestamp::now();
        (0..count).map(|_| world.arrive(now)).collect()
    }

    /// This person joins, or takes the place of the one with the same id. The directory is not touched.
    pub fn add_person(&self, person: Person) {
        self.lock().people.insert(person.id.clone(), person);
    }

    /// The person with this id leaves. Returns who it was.
    pub fn remove_person(&self, id: &str) -> Option<Person> {
        self.lock().people.remove(id)
    }

    /// Changes the person with this id; the id itself stays. Returns whether there is one.
    pub fn update_person(&self, id: &str, change: impl FnOnce(&mut Person)) -> bool {
        let mut world = self.lock();
        let Some(person) = world.people.get_mut(id) else {
            return false;
        };
        change(person);
        person.id = id.to_owned();
        true
    }

    // JumpCloud: the directory.

    /// Adds a directory user with this e-mail, unless there is one. Returns the id.
    pub fn add_to_directory(&self, email: &str) -> String {
        let name = email.split('@').next().unwrap_or_default();
        self.lock().add_to_directory(email, name)
    }

    /// Deletes the directory user with this e-mail; their accounts stay, without an owner.
    pub fn remove_from_directory(&self, email: &str) {
        self.lock().remove_from_directory(email);
    }

    /// The directory, in the order of ids.
    pub fn directory(&self) -> Vec<DirectoryUser> {
        self.lock().directory.users().to_vec()
    }

    // JumpCloud: applications and accounts.

    /// All applications.
    pub fn applications(&self) -> Vec<Application> {
        let world = self.lock();
        let applications = world.applications.iter();
        applications.map(|(one, _)| one.clone()).collect()
    }

    /// The Torq application, where there is one.
    pub fn application(&self) -> Option<Application> {
        self.applications()
            .into_iter()
            .find(|one| one.catalog_app_id == TORQ_APP)
    }

    /// Deletes the Torq application with all its accounts.
    pub fn delete_application(&self) {
        self.lock()
            .applications
            .retain(|(one, _)| one.catalog_app_id != TORQ_APP);
    }

    /// Deletes another application than Torq's.
    pub fn delete_other_application(&self, id: &str) {
        self.lock()
            .applications
            .retain(|(one, _)| one.id != id || one.catalog_app_id == TORQ_APP);
    }

    /// The accounts of the Torq application, in the order of ids.
    pub fn accounts(&self) -> Vec<Account> {
        self.lock()
            .torq_accounts()
            .map(|accounts| accounts.rows().to_vec())
            .unwrap_or_default()
    }

    /// Adds an account to the Torq application, which is made where there is none. Returns the account's id.
    pub fn add_account(&self, account: Account) -> String {
        self.lock().add_account(account)
    }

    /// Changes an account of the Torq application, as an administrator does; the id itself stays. Returns whether there is one.
    pub fn update_account(&self, id: &str, change: impl FnOnce(&mut Account)) -> bool {
        let mut world = self.lock();
        let Some(accounts) = world.torq_accounts() else {
            return false;
        };
        let Some(mut account) = accounts.remove(id) else {
            return false;
        };
        change(&mut account);
        account.id = id.to_owned();
        accounts.insert(account);
        true
    }

    /// Deletes an account of the Torq application. Returns it.
    pub fn delete_account(&self, id: &str) -> Option<Account> {
        self.lock().torq_accounts()?.remove(id)
    }

    // Credentials.

    /// Torq's API key is revoked: no token is issued for it, and those that were are no good.
    pub fn revoke_torq_key(&self) {
        self.revoke(Peer::Torq);
    }

    /// Torq's API key is valid again; new tokens are needed.
    pub fn restore_torq_key(&self) {
        self.lock().torq_tokens.revoked = false;
    }

    /// JumpCloud's service account is revoked: no token is issued for it, and those that were are no good.
    pub fn revoke_jumpcloud_key(&self) {
        self.revoke(Peer::JumpCloud);
    }

    /// JumpCloud's service account is valid again; new tokens are needed.
    pub fn restore_jumpcloud_key(&self) {
        self.lock().jumpcloud_tokens.revoked = false;
    }

    fn revoke(&self, peer: Peer) {
        let mut world = self.lock();
        let tokens = world.tokens(peer);
        tokens.revoked = true;
        tokens.forget_all();
    }

    /// Whether the role of Torq's key has `user.read`.
    pub fn set_torq_scope(&self, granted: bool) {
        self.lock().torq_scope = granted;
    }

    /// Replaces Torq's client secret. Tokens issued before stay valid.
    pub fn set_torq_secret(&self, secret: &str) {
        self.lock().torq_tokens.client_secret = secret.to_owned();
    }

    /// Replaces JumpCloud's client secret. Tokens issued before stay valid.
    pub fn set_jumpcloud_secret(&self, secret: &str) {
        self.lock().jumpcloud_tokens.client_secret = secret.to_owned();
    }

    /// Replaces JumpCloud's administrator key.
    pub fn set_jumpcloud_api_key(&self, key: &str) {
        self.lock().api_key = key.to_owned();
    }

    /// From now on `x-org-id` is required to be this; `None`: the credentials manage one organisation.
    pub fn set_org_id(&self, org_id: Option<&str>) {
        self.lock().org_id = org_id.map(str::to_owned);
    }

    /// The tokens issued so far count as expired: Torq answers 302, JumpCloud 401.
    pub fn expire_tokens(&self, peer: Peer) {
        self.lock().tokens(peer).expire_all(Instant::now());
    }

    /// The tokens issued so far are unknown: both peers answer 401.
    pub fn forget_tokens(&self, peer: Peer) {
        self.lock().tokens(peer).forget_all();
    }

    /// Every token that either peer issued, also those that are no good any more; the newest thousands: for tests
    /// that look for them where they must not be.
    pub fn issued_tokens(&self) -> Vec<String> {
        let world = self.lock();
        let desks = [&world.torq_tokens, &world.jumpcloud_tokens];
        desks.iter().flat_map(|desk| desk.ever_issued()).collect()
    }

    // How the peers behave.

    /// Changes the switches.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.lock().behaviour);
    }

    /// The requests a second that each peer bears; 0 for no limit.
    pub fn set_rates(&self, torq: u32, jumpcloud: u32) {
        let mut world = self.lock();
        world.torq_rate = torq;
        world.jumpcloud_rate = jumpcloud;
    }

    /// Torq's page tokens given out so far are stale.
    pub fn expire_page_tokens(&self) {
        self.lock().page_generation += 1;
    }

    /// Adds a fault rule, behind those that are there.
    pub fn fault(&self, rule: FaultRule) {
        self.lock().faults.add(rule);
    }

    /// Removes all fault rules.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    // What was asked.

    /// The requests to both APIs, oldest first; the newest 200,000 of them.
    pub fn requests(&self) -> Vec<RequestLog> {
        self.lock().journal.entries().cloned().collect()
    }

    /// The requests that would change something in JumpCloud, oldest first, whatever became of them
    /// ([`RequestLog::handled`]).
    pub fn writes(&self) -> Vec<RequestLog> {
        let world = self.lock();
        let entries = world.journal.entries();
        entries.filter(|entry| entry.is_write()).cloned().collect()
    }

    /// How many requests an endpoint has received.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.lock().journal.count(endpoint)
    }

    /// Forgets the requests and their counts.
    pub fn clear_requests(&self) {
        self.lock().journal.clear();
    }

    /// Waits until an endpoint has received so many requests. A request counts when it took effect, unless a fault
    /// keeps it from that. Give it a deadline.
    pub async fn seen(&self, endpoint: Endpoint, count: usize) {
        self.until(|world| world.count(endpoint) >= count).await;
    }

    /// Waits until a condition holds; it is looked at now, and whenever a request arrives or is answered. Give it a
    /// deadline.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut stirred = self.stirred.subscribe();
        // The sender lives in this handle, so a change can always come.
        while !condition(self) && stirred.changed().await.is_ok() {}
    }

    /// Lets something happen right before an endpoint answers: `after` so many more requests of it. Whoever asked has the answers
    /// so far, and will see what happened in this one: what happens between two pages of a list.
    pub fn before(&self, endpoint: Endpoint, after: usize, happens: impl FnOnce(&WorldHandle) + Send + 'static) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).push(Plan {
            endpoint,
            after,
            happens: Box::new(happens),
        });
    }

    /// Carries out what is planned for right before a request.
    fn carry_out_plans(&self, endpoint: Endpoint) {
        let mut due = Vec::new();
        {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            for plan in std::mem::take(&mut *plans) {
                match plan.after {
                    _ if plan.endpoint != endpoint => plans.push(plan),
                    0 => due.push(plan.happens),
                    after => plans.push(Plan {
                        after: after - 1,
                        ..plan
                    }),
                }
            }
        }
        for happens in due {
            happens(self);
        }
    }

    /// One small thing happens, chosen by the seed: somebody joins, leaves, logs in, changes role or listing, and so on.
    /// Returns a line about it; `None` for a quiet moment.
    pub fn tick(&self) -> Option<String> {
        super::life::tick(&mut self.lock())
    }

    // For the server.

    /// Notes a request. Unless a fault keeps it waiting or away, it takes effect in the same breath: whoever sees it in
    /// the journal sees its effect, too.
    pub(super) fn receive(&self, mut entry: RequestLog, asked: &Asked) -> Received {
        self.carry_out_plans(entry.endpoint);
        let mut world = self.lock();
        let peer = entry.peer;
        let fault = world.faults.choose(entry.endpoint);
        entry.fault = fault.as_ref().map(Fault::name);
        let number = world.journal.open(entry);
        let (reply, handled) = match &fault {
            Some(Fault::Reset | Fault::Hang | Fault::Delay(_)) => (None, None),
            Some(Fault::Status {
                status,
                retry_after,
                body,
            }) => {
                let reply = if body.is_empty() {
                    Reply::error(peer, *status, "ordered by a fault rule")
                } else if body.starts_with(['{', '[']) {
                    Reply::raw_json(*status, body)
                } else {
                    Reply::text(*status, body)
                };
                let reply = match retry_after {
                    Some(pause) => reply.with_header("retry-after", pause.clone()),
                    None => reply,
                };
                (Some(reply), None)
            }
            Some(Fault::LateStatus(status, _)) => (Some(Reply::error(peer, *status, "ordered by a fault rule")), None),
            Some(Fault::Redirect(location)) => {
                let page = Reply::html(307, "<!doctype html><title>Elsewhere</title>");
                (Some(page.with_header("location", location.clone())), None)
            }
            Some(Fault::Html) => {
                let page = "<!doctype html><title>Gateway</title><p>Please wait.";
                (Some(Reply::html(200, page)), None)
            }
            other => {
                if *other == Some(Fault::ExpireTokensFirst) {
                    world.tokens(peer).expire_all(Instant::now());
                }
                let reply = world.answer(peer, asked);
                let handled = Some(reply.status);
                match other {
                    Some(Fault::LostAnswer) => (None, handled),
                    Some(Fault::EffectThen(status)) => {
                        (Some(Reply::error(peer, *status, "ordered by a fault rule")), handled)
                    }
                    Some(Fault::NotUtf8) => (Some(not_utf8(reply)), handled),
                    Some(Fault::WrongType) => (Some(wrong_type()), handled),
                    _ => (Some(reply), handled),
                }
            }
        };
        let status = reply.as_ref().map(|reply| reply.status);
        world.journal.close(number, status, handled);
        drop(world);
        self.stirred.send_replace(());
        Received { number, fault, reply }
    }

    /// Answers a request that a fault kept waiting.
    pub(super) fn handle_late(&self, number: u64, peer: Peer, asked: &Asked) -> Reply {
        let mut world = self.lock();
        let reply = world.answer(peer, asked);
        let status = Some(reply.status);
        world.journal.close(number, status, status);
        drop(world);
        self.stirred.send_replace(());
        reply
    }
}

/// The reply with two bytes in its first text that no UTF-8 has.
fn not_utf8(mut reply: Reply) -> Reply {
    let text = b":\"";
    let at = reply
        .body
        .windows(text.len())
        .position(|window| window == text)
        .map_or(0, |at| at + text.len());
    reply.body.splice(at..at, [0xff, 0xfe]);
    Reply { status: 200, ..reply }
}

/// Valid JSON in which everything that a client reads has the wrong type.
fn wrong_type() -> Reply {
    Reply::json(
        200,
        &json!({"users": "none", "roles": 7, "results": {"0": "none"}, "id": ["x"], "_id": 1,
            "access_token": {"is": "none"}, "email": 5}),
    )
}
