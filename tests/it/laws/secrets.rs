//! Law 4: no secret and no token in the state, in an event, in a message, in the log.

use std::cell::RefCell;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing_subscriber::EnvFilter;

use super::history::{JUMPCLOUD_SECRET, TORQ_SECRET};
use super::law::Verdict;
use super::trial::Trial;

thread_local! {
    /// What was logged in this case, which has this thread for itself.
    static SAID: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Ear;

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SAID.with_borrow_mut(|said| said.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a case, and listens to what it logs. `LAWS_LOG` says how closely.
pub fn listening<T>(case: impl FnOnce() -> T) -> T {
    SAID.with_borrow_mut(Vec::clear);
    let level =
        std::env::var("LAWS_LOG").unwrap_or_else(|_| "torq_connector=debug,torq_connector::sandbox=off".to_owned());
    let ear = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(|| Ear)
        .finish();
    tracing::subscriber::with_default(ear, case)
}

/// After a whole case.
pub fn law_4_no_secret_is_anywhere(trial: &mut Trial) -> Verdict {
    let mut secrets: Vec<String> = trial
        .towns
        .iter()
        .flat_map(|town| town.world().issued_tokens())
        .collect();
    for (id, secret) in [
        ("sandbox-torq-id", TORQ_SECRET),
        ("sandbox-jumpcloud-id", JUMPCLOUD_SECRET),
    ] {
        secrets.push(secret.to_owned());
        secrets.push(STANDARD.encode(format!("{id}:{secret}")));
    }
    let said = SAID.with_borrow(Clone::clone);
    let mut places = vec![("the log".to_owned(), said)];
    if let Ok(entries) = std::fs::read_dir(trial.state_dir()) {
        for entry in entries {
            let path = entry.unwrap().path();
            places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    if let Some(store) = trial.store() {
        let events = store.events(&Default::default()).unwrap();
        places.push(("an event".to_owned(), serde_json::to_vec(&events).unwrap()));
        let status = store.status().unwrap();
        places.push(("the status".to_owned(), serde_json::to_vec(&status).unwrap()));
    }
    for (place, content) in places {
        let text = String::from_utf8_lossy(&content);
        if let Some(secret) = secrets.iter().find(|secret| text.contains(secret.as_str())) {
            let at = text.find(secret.as_str()).unwrap_or_default();
            let around: String = text[..at]
                .chars()
                .rev()
                .take(200)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect();
            return Err(format!("law 4: {secret} is in {place}, after: {around}"));
        }
    }
    Ok(())
}
