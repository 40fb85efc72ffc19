//! The cases. Each checks what it did.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use torq_connector::config::{self, MaxRemovals, Removals, UserFilter};
use torq_connector::http::{Answer, Patience};
use torq_connector::model::{ConnectorName, EmailKey, Listing};
use torq_connector::state::{EventQuery, RemovalRules, State};
use torq_connector::sync::Connector;
use torq_connector::torq::{PAGE_SIZE, UsersPage, read_page};
use torq_connector::view::RunOutcome;

use crate::measure::{Figures, Meter};
use crate::world;

/// What a case is given.
pub struct Case<'a> {
    pub users: usize,
    /// The folder of the state, shared by cases that build on one another.
    pub dir: &'a Path,
    /// Where the peers listen.
    pub address: &'a str,
    /// Requests a second.
    pub rate: f64,
}

impl Case<'_> {
    pub fn run(&self, name: &str) -> Vec<Figures> {
        match name {
            "decode" => vec![self.decode()],
            "fingerprint" => vec![self.fingerprint()],
            "collect-first" => vec![self.apply("first collection, no HTTP", true)],
            "compare" => vec![self.apply("compare, no HTTP", false)],
            "plan-first" => vec![self.plan("plan, everybody pending", self.users)],
            "plan-again" => vec![self.plan("plan, nothing to do", 0)],
            "run-first" => self.runs(&["first run"]),
            "run-again" => self.runs(&["run after a start", "run after that", "run, unchanged"]),
            _ => panic!("no case {name}"),
        }
    }

    /// Both listings, page by page, as Torq sends them.
    fn bodies(&self) -> impl Iterator<Item = (Listing, Answer)> {
        let users = self.users;
        Listing::BOTH.into_iter().flat_map(move |listing| {
            let sso = listing.sso_provision();
            let pages = (0..world::listing(users, sso).len()).step_by(PAGE_SIZE);
            pages.map(move |at| {
                let answer = Answer {
                    status: http::StatusCode::OK,
                    body: world::torq_page(users, sso, at).into(),
                    retry_after: None,
                };
                (listing, answer)
            })
        })
    }

    fn pages(&self) -> impl Iterator<Item = (Listing, UsersPage)> {
        self.bodies()
            .map(|(listing, answer)| (listing, read_page(&answer).unwrap()))
    }

    fn decode(&self) -> Figures {
        let mut meter = Meter::new("decode", self.users);
        let mut users = 0;
        for (_, answer) in self.bodies() {
            // Freeing a page is part of its price.
            users += meter.measure(|| black_box(read_page(black_box(&answer)).unwrap()).users.len());
        }
        assert_eq!(users, self.users);
        meter.finish()
    }

    fn fingerprint(&self) -> Figures {
        let mut meter = Meter::new("fingerprint", self.users);
        let mut scratch = Vec::new();
        let mut prints = Vec::new();
        for (_, page) in self.pages() {
            meter.measure(|| prints.extend(page.users.iter().map(|user| user.fingerprint(&mut scratch))));
        }
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), self.users, "no two users have the same");
        meter.finish()
    }

    /// A poll without the network: what the state does with pages that were read.
    fn apply(&self, name: &str, first: bool) -> Figures {
        let (runtime, state) = (runtime(), self.state());
        let filter = Arc::new(UserFilter::default());
        let mut meter = Meter::new(name, self.users);
        let for_begin = Arc::clone(&filter);
        meter.measure(|| {
            let begin = state.call(move |store| {
                store.begin_run(Timestamp::now())?;
                store.begin_poll(Timestamp::now(), &for_begin)
            });
            runtime.block_on(begin).unwrap()
        });
        let (mut appeared, mut changed, mut seen) = (0, 0, 0);
        for (listing, page) in self.pages() {
            let filter = Arc::clone(&filter);
            let applied = meter.measure(|| {
                let apply = state.call(move |store| store.apply_page(Timestamp::now(), listing, &page, &filter));
                runtime.block_on(apply).unwrap()
            });
            (appeared, changed, seen) = (appeared + applied.appeared, changed + applied.changed, applied.seen);
        }
        let rules = RemovalRules {
            removals: Removals::Report,
            max: MaxRemovals::Percent(10.0),
        };
        let end = meter.measure(|| {
            let finish = state.call(move |store| {
                let end = store.finish_poll(Timestamp::now(), &rules)?;
                store.end_run(Timestamp::now(), RunOutcome::Done, None)?;
                Ok(end)
            });
            runtime.block_on(finish).unwrap()
        });
        let users = self.users as u64;
        assert_eq!((appeared, changed, seen), (if first { users } else { 0 }, 0, users));
        assert_eq!(end.missing, 0);
        meter.finish()
    }

    /// What a delivery asks of the state: whom to look for in the directory, what to create, what to associate.
    fn plan(&self, name: &str, pending: usize) -> Figures {
        let (runtime, state) = (runtime(), self.state());
        let mut meter = Meter::new(name, self.users);
        let planned = meter.measure(|| {
            let plan = state.call(|store| {
                let (mut matches, mut creates, mut associations) = (0, 0, 0);
                let mut after = EmailKey::fold("");
                while let Some(last) = store.to_match(&after, 400)?.last() {
                    (after, matches) = (last.clone(), matches + 1);
                }
                after = EmailKey::fold("");
                loop {
                    let rows = store.to_create(&after, 256)?;
                    let Some(last) = rows.last() else { break };
                    creates += rows.len();
                    after = last.key.clone();
                }
                after = EmailKey::fold("");
                while let Some(last) = store.to_associate(&after, 256)?.last() {
                    (after, associations) = (last.key.clone(), associations + 1);
                }
                Ok((matches, creates, associations))
            });
            runtime.block_on(plan).unwrap()
        });
        assert_eq!(planned, (pending.div_ceil(400), pending, 0));
        meter.finish()
    }

    /// Whole runs, over HTTP, one after the other in this process.
    fn runs(&self, names: &[&str]) -> Vec<Figures> {
        // As the program's own.
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        let connector = Arc::new(self.connector());
        let newest_event = || {
            let newest = EventQuery {
                limit: Some(1),
                ..EventQuery::default()
            };
            let events = connector.state().call(move |store| store.events(&newest));
            runtime.block_on(events).unwrap().pop()
        };
        let first = newest_event().is_none();
        let mut all = Vec::new();
        for name in names {
            let mut meter = Meter::new(name, self.users);
            let run = {
                let connector = Arc::clone(&connector);
                async move { connector.run().await }
            };
            // On a worker thread, as in the daemon.
            let end = meter.measure(|| runtime.block_on(runtime.spawn(run)).unwrap().unwrap());
            all.push(meter.finish());
            assert_eq!(end.outcome, RunOutcome::Done, "{end:?}");
            let (users, status) = (self.users as u64, &end.status);
            assert_eq!(
                (status.users, status.accounts, status.associated),
                (users, users, users)
            );
            assert_eq!((status.pending, status.associations_pending), (0, 0));
            let fresh = if first { users } else { 0 };
            assert_eq!(
                (end.counts.appeared, end.counts.changed, end.counts.found),
                (fresh, 0, fresh)
            );
            // Only that the run began and ended: an unchanged user leaves no event.
            assert!(newest_event().is_some_and(|event| event.user_id.is_none()));
        }
        all
    }

    fn connector(&self) -> Connector {
        let (address, state_dir) = (self.address, self.dir.display());
        let text = format!(
            r#"
            state_dir = "{state_dir}"
            [connectors.main.torq]
            region = "us"
            api_url = "http://{address}/torq"
            token_url = "http://{address}/torq/token"
            client_id = "bench"
            client_secret = "bench-secret"
            [connectors.main.jumpcloud]
            region = "us"
            console_url = "http://{address}/jumpcloud"
            token_url = "http://{address}/jumpcloud/token"
            client_id = "bench"
            client_secret = "bench-secret"
            "#
        );
        let config = config::parse(&text, self.dir, Some(0o600), &BTreeMap::new()).unwrap();
        let connector = Arc::new(config.connectors[0].clone());
        let stop = CancellationToken::new();
        Connector::new(connector, &config.network, self.state(), Patience::COMMAND, stop)
            .unwrap()
            .at_rate(self.rate)
    }

    fn state(&self) -> State {
        State::open(self.dir, &ConnectorName::parse("main").unwrap()).unwrap()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
