//! Opening the state of a connector, and what is done while that cannot be: it is said once, shown, and tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::attend::{Attendant, LOOK};
use super::control::{Action, Answer};
use super::obstacle::trouble;
use super::orders::Order;
use crate::state::{self, State, StateError};

/// What became of opening a connector's state.
pub(super) enum Opened {
    State(State),
    /// The connector was removed, so there is none.
    Removed,
    /// The daemon stops.
    Stopped,
}

impl Attendant {
    /// Opens the state. Until that succeeds the connector is shown as failing; everybody else goes on.
    pub(super) async fn open_state(&mut self) -> Opened {
        while !self.stop.is_cancelled() {
            let (dir, name, displaced) = (self.state_dir.clone(), self.name().clone(), self.displaced);
            let open = move || match state::removed(&dir, &name) {
                // Before the lock is asked for, which somebody who looks may hold for a moment more.
                Some(_) => Err(StateError::Removed { name: name.to_string() }),
                None if displaced => State::open_again(&dir, &name),
                None => State::open(&dir, &name),
            };
            let error = match tokio::task::spawn_blocking(open).await {
                Ok(Ok(state)) => {
                    self.displaced = false;
                    return Opened::State(state);
                }
                Ok(Err(StateError::Removed { .. })) => return Opened::Removed,
                Ok(Err(error)) => error,
                Err(_) => StateError::Ending,
            };
            self.says(&error);
            self.show(Some(trouble(&error)));
            self.pause_for(LOOK, true).await;
        }
        Opened::Stopped
    }

    /// Says what is wrong with the state, unless that was said last. Whether it was said now.
    pub(super) fn says(&mut self, error: &StateError) -> bool {
        let name = self.name().clone();
        self.said.of_state(&name, error)
    }

    /// Waits, answering whoever asks meanwhile that the connector cannot be worked with. Where its state cannot be opened
    /// (`closed`), it can still be forgotten.
    pub(super) async fn pause_for(&mut self, wait: Duration, closed: bool) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(Order { action, reply }) = self.orders.recv() => {
                    match action {
                        Action::Remove(terms) if closed && terms.keep_accounts => {
                            let _ = reply.send(self.forget().await);
                            return;
                        }
                        // What was read for it counts all the same.
                        Action::Remove(_) | Action::Reconnect | Action::PlanRemoval => drop(self.take_settings()),
                        _ => {}
                    }
                    let reason = self.live.borrow().overlay.as_ref().and_then(|overlay| overlay.reason.clone());
                    let _ = reply.send(Answer::Refused(reason.unwrap_or_else(|| "its state cannot be used".to_owned())));
                }
                Ok(()) = self.settings.changed() => {
                    self.take_settings();
                    return;
                }
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }
}
