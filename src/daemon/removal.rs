//! A connector that a person removes while the daemon runs, and one that was removed: it is neither polled nor delivered, and takes
//! no order but to be set up again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::attend::{Attendant, LOOK};
use super::control::{Action, Answer};
use super::orders::Order;
use crate::http::Patience;
use crate::state::{self, State, StateError};
use crate::sync::{self, Connector, Removal, RemovalTerms};
use crate::view::ConnectorState;
use crate::web::{Live, Overlay};
use crate::wording;

impl Attendant {
    /// The connector for somebody who waits for an answer, with the secrets as they are now.
    fn for_removal(&self, state: &State) -> Result<Connector, String> {
        let mut config = self.config.clone();
        config.read_secrets_again();
        let [_, (_, what, secret)] = config.secrets();
        if let Some(problem) = &secret.problem {
            return Err(format!("the {what} for JumpCloud cannot be read: {problem}"));
        }
        Connector::new(
            Arc::new(config),
            &self.network,
            state.clone(),
            Patience::COMMAND,
            self.stop.child_token(),
        )
        .map_err(|error| error.to_string())
    }

    /// Looks what a removal would take away, beside whatever is going on.
    pub(super) fn plan_removal(&self, state: &State, reply: oneshot::Sender<Answer>) {
        let neighbourhood = Arc::clone(&self.neighbourhood);
        let connector = self.for_removal(state);
        tokio::spawn(async move {
            let answer = match connector {
                Ok(connector) => match connector.plan_removal(&neighbourhood).await {
                    Ok(plan) => Answer::Plan(Box::new(plan)),
                    Err(error) => Answer::Refused(error.to_string()),
                },
                Err(words) => Answer::Refused(words),
            };
            let _ = reply.send(answer);
        });
    }

    /// Removes the connector. From its first moment on nothing is polled or delivered any more; where it does not come to its
    /// end, it can be repeated.
    pub(super) async fn remove(&mut self, terms: RemovalTerms, state: &State) -> Result<Answer, StateError> {
        let removal = if terms.keep_accounts {
            Removal::untouched()
        } else {
            match self.for_removal(state) {
                Ok(connector) => {
                    let removal = self.take_down(&connector, terms).await?;
                    // Its state says that it is being removed.
                    sync::forget_tenant(self.name());
                    removal
                }
                Err(words) => return Ok(Answer::Refused(words)),
            }
        };
        if removal.is_complete() {
            state.remove(Timestamp::now()).await?;
            // Not before: as long as it may go on, the others are not alone.
            sync::forget_tenant(self.name());
            // Before anybody looks again: there is no state any more, and that is no trouble.
            self.show_removed();
            self.sit(None);
        }
        Ok(Answer::Removal(Box::new(removal)))
    }

    /// The removal, while which the connector shows that it works, and takes orders for later.
    async fn take_down(&mut self, connector: &Connector, terms: RemovalTerms) -> Result<Removal, StateError> {
        let neighbourhood = Arc::clone(&self.neighbourhood);
        let removal = connector.remove(terms, &neighbourhood);
        tokio::pin!(removal);
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                removal = &mut removal => return removal,
                _ = beat.tick() => {
                    self.live.send_replace(Live::new());
                }
                Some(order) = self.orders.recv() => match order.action {
                    Action::PlanRemoval => self.plan_removal(connector.state(), order.reply),
                    action => {
                        if action == Action::Reconnect {
                            // Somebody changed their mind: between two accounts.
                            connector.stop();
                        }
                        self.waiting.push(order);
                    }
                },
            }
        }
    }

    /// Forgets a connector whose state cannot be opened, and leaves JumpCloud as it is.
    pub(super) async fn forget(&mut self) -> Answer {
        let (dir, name) = (self.state_dir.clone(), self.name().clone());
        let forgotten = tokio::task::spawn_blocking(move || state::forget(&dir, &name, Timestamp::now(), true)).await;
        match forgotten {
            Ok(Ok(())) => Answer::Removal(Box::new(Removal::untouched())),
            Ok(Err(error)) => Answer::Refused(error.to_string()),
            Err(_) => Answer::Refused(StateError::Ending.to_string()),
        }
    }

    /// Waits until a removed connector is set up again, or the attendant is told to stop.
    pub(super) async fn stay_removed(&mut self) {
        sync::forget_tenant(self.name());
        tracing::info!(connector = %self.name(), "was removed: it is neither polled nor delivered");
        while !self.stop.is_cancelled() && self.show_removed() {
            let order = match self.waiting.oldest() {
                Some(order) => order,
                None => {
                    let look = Instant::now() + LOOK;
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return,
                        Some(order) = self.orders.recv() => order,
                        Ok(()) = self.settings.changed() => {
                            self.take_settings();
                            self.sit(None);
                            continue;
                        }
                        () = tokio::time::sleep_until(look) => continue,
                    }
                }
            };
            let Order { action, reply } = order;
            match action {
                Action::Reconnect => match self.set_up_again().await {
                    Ok(()) => {
                        // Carried out when there is a state again.
                        self.waiting.push_front(Order { action, reply });
                        self.schedule.poll_now();
                        self.show(None);
                        return;
                    }
                    Err(error) => {
                        let _ = reply.send(Answer::Refused(error.to_string()));
                    }
                },
                Action::Remove(_) => {
                    let _ = reply.send(self.forget().await);
                }
                _ => {
                    let _ = reply.send(Answer::Removed);
                }
            }
        }
    }

    async fn set_up_again(&self) -> Result<(), StateError> {
        let (dir, name) = (self.state_dir.clone(), self.name().clone());
        let done = tokio::task::spawn_blocking(move || state::set_up_again(&dir, &name)).await;
        done.unwrap_or(Err(StateError::Ending))
    }

    /// Shows the connector as removed, if it is.
    fn show_removed(&self) -> bool {
        let Some(removed) = state::removed(&self.state_dir, self.name()) else {
            return false;
        };
        self.show(Some(Overlay {
            state: ConnectorState::Removed,
            reason: Some(wording::removed_reason(removed.at)),
            action: Some(wording::removed_action(self.name(), !removed.left.is_empty())),
        }));
        true
    }
}
