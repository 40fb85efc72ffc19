//! Carrying out what a person asks of a connector between two runs, and answering everybody whom that concerns.

use jiff::Timestamp;

use super::attend::Attendant;
use super::control::{Action, Answer, ApprovalTerms, RunReport};
use super::deeds;
use super::orders::{Order, Turn};
use crate::config::Removals;
use crate::http;
use crate::state::{State, StateError, Store};
use crate::sync::{self, Connector};

impl Attendant {
    /// Carries out an order, and answers everybody whom it concerns.
    pub(super) async fn take(
        &mut self,
        turn: Turn,
        state: &State,
        connector: &mut Option<Connector>,
    ) -> Result<(), StateError> {
        let Turn {
            order: Order { action, reply },
            others,
            overruled,
        } = turn;
        let result = self.carry_out(action, state, connector).await;
        let answer = match &result {
            Ok(answer) => answer.clone(),
            Err(error) => Answer::Refused(error.to_string()),
        };
        let overruling = match &result {
            // Nothing was begun, which overrules nobody.
            Ok(Answer::Refused(_)) => None,
            Ok(_) => Some(Answer::Removed),
            // It may have been begun.
            Err(_) => Some(answer.clone()),
        };
        match overruling {
            None => self.waiting.put_back(overruled),
            Some(answer) => {
                for (_, older) in overruled {
                    let _ = older.reply.send(answer.clone());
                }
            }
        }
        for other in others {
            let _ = other.send(answer.clone());
        }
        let _ = reply.send(answer);
        result.map(drop)
    }

    async fn carry_out(
        &mut self,
        action: Action,
        state: &State,
        connector: &mut Option<Connector>,
    ) -> Result<Answer, StateError> {
        let mut problems = Vec::new();
        if action == Action::Reconnect {
            self.take_settings();
            http::read_authorities_anew();
            problems = self.config.read_secrets_again().problems;
            self.sit(Some(state.clone()));
            *connector = None;
            let again = state
                .call(|store| {
                    store.forget_not_offered()?;
                    store.cancel_removal(Timestamp::now())
                })
                .await?;
            if again {
                tracing::info!(connector = %self.name(), "is not removed after all");
                // A neighbour again, before it delivers for the first time.
                sync::note_readable(&self.config, &state.call(|store| store.about()).await?);
            }
        } else if !matches!(action, Action::Remove(_)) && state.call(|store| store.about()).await?.removing.is_some() {
            return Ok(Answer::Removed);
        }
        Ok(match action {
            Action::Sync | Action::Reconnect => {
                let about = state.call(|store| store.about()).await?;
                if about.paused {
                    Answer::Paused
                } else {
                    // Whoever asks for a run wants to know of today's users, and of today's directory.
                    self.schedule.poll_next();
                    if let Some(connector) = connector {
                        connector.look_again();
                        connector.hurry();
                    }
                    let report = self.run(state, connector).await?;
                    Answer::Ran(Box::new(RunReport { problems, ..report }))
                }
            }
            Action::Pause => {
                let words = state.call(|store| deeds::pause(store, Timestamp::now())).await?;
                tracing::info!(connector = %self.name(), "paused by a person");
                Answer::Done(words)
            }
            Action::Resume => {
                let paused = state.call(|store| store.about()).await?.paused;
                let resume = |store: &mut Store| deeds::resume(store, Timestamp::now(), "a run starts now");
                let words = state.call(resume).await?;
                if paused {
                    tracing::info!(connector = %self.name(), "resumed by a person");
                    self.resumed = Some(std::time::Instant::now());
                    self.tell_herald();
                    self.schedule.poll_now();
                    // Also one that waited for a person when it was paused: a person is here.
                    *connector = None;
                }
                Answer::Done(words)
            }
            Action::Approve(terms) => {
                let answer = approve(state, terms, self.config.removals).await?;
                if state.call(|store| store.approved()).await? > 0 {
                    // Only a poll carries that out.
                    self.schedule.poll_now();
                }
                answer
            }
            Action::Retry => {
                let words = state.call(|store| deeds::retry(store, Timestamp::now())).await?;
                self.schedule.go_now();
                Answer::Done(words)
            }
            Action::Remove(terms) => {
                self.take_settings();
                *connector = None;
                let answer = self.remove(terms, state).await?;
                if matches!(answer, Answer::Refused(_)) {
                    // Nothing was begun, and a run was ended for it.
                    self.schedule.poll_now();
                }
                answer
            }
            // Looked at beside whatever is going on.
            Action::PlanRemoval => Answer::Refused("it was asked in the wrong place".to_owned()),
        })
    }
}

/// Approves what is held at this moment, or takes that back.
pub(super) async fn approve(state: &State, terms: ApprovalTerms, removals: Removals) -> Result<Answer, StateError> {
    let approved = state
        .call(move |store| deeds::approve(store, terms, removals, Timestamp::now()))
        .await?;
    Ok(match approved {
        Ok(words) => Answer::Done(words),
        Err(why) => Answer::Otherwise(why),
    })
}
