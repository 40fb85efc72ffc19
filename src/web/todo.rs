//! What needs a person: derived from a connector's status and settings, gravest first, each with the command that acts.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::address::{self, Query};
use super::parts::{self, counted, number, said};
use super::settings::Settings;
use crate::config;
use crate::view::{ConnectorState, ConnectorStatus, EventKind};
use crate::wording::{self, Weight};

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// The connector's state.
    State,
    /// Removals that wait.
    Held,
    /// Users who were refused.
    Parked,
    /// The end of the API key.
    Key,
    /// That nothing has succeeded for long.
    Silence,
}

/// One thing that needs a person. The same for pages and for `status`.
pub(crate) struct Todo {
    /// Whose.
    pub connector: String,
    /// How much it matters.
    pub weight: Weight,
    /// What it is about.
    pub topic: Topic,
    /// What is the matter, in a few words.
    pub what: String,
    /// What a peer or the connector says about it.
    pub reason: Option<String>,
    /// What to do before or besides the command.
    pub advice: Option<String>,
    /// The command that acts.
    pub command: Option<String>,
    /// Where to look first: address and words.
    pub look: Option<(String, String)>,
}

/// The order of importance: smaller is graver.
pub(crate) fn rank(weight: Weight) -> u8 {
    match weight {
        Weight::Bad => 0,
        Weight::Warning => 1,
        Weight::Neutral => 2,
        Weight::Good => 3,
    }
}

/// What of this connector needs a person, gravest first.
pub(crate) fn of(status: &ConnectorStatus, settings: &Settings, now: Timestamp) -> Vec<Todo> {
    let name = &status.name;
    let todo = |topic, weight, what: String| Todo {
        connector: name.clone(),
        weight,
        topic,
        what,
        reason: None,
        advice: None,
        command: None,
        look: None,
    };
    let command = |verb: &str| Some(format!("torq-connector {verb} {name}"));
    let standing = |standing: &str, words: String| {
        let href = Query::default()
            .with("account", Some(standing))
            .at(&address::users(name));
        Some((href, words))
    };
    let mut todos = Vec::new();
    // What its status says is all there is to do: everything else would set it up again.
    if status.state == ConnectorState::Removed {
        return todos;
    }
    match status.state {
        ConnectorState::ReconnectRequired => todos.push(Todo {
            reason: status.reason.clone(),
            advice: status
                .action
                .as_deref()
                .map(|action| before_the_command(action, command("reconnect").as_deref())),
            command: command("reconnect"),
            ..todo(
                Topic::State,
                Weight::Bad,
                "Reconnect: credentials or permission were refused, and polling has stopped".to_owned(),
            )
        }),
        ConnectorState::NotLicensed => todos.push(Todo {
            reason: status.reason.clone(),
            advice: status.action.clone(),
            ..todo(
                Topic::State,
                Weight::Bad,
                "The JumpCloud organisation has no SaaS Management".to_owned(),
            )
        }),
        ConnectorState::Paused => todos.push(Todo {
            // Since when, and what is carried out as soon as it goes on.
            reason: status.reason.as_deref().map(capital),
            advice: status
                .action
                .as_deref()
                .map(|action| before_the_command(action, command("resume").as_deref())),
            command: command("resume"),
            ..todo(
                Topic::State,
                Weight::Neutral,
                "Paused: nothing is polled or delivered".to_owned(),
            )
        }),
        ConnectorState::ReportOnly => todos.push(Todo {
            reason: status.reason.clone(),
            advice: Some("Nothing is lost: it is tried again once a day. To try now:".to_owned()),
            command: command("retry"),
            look: (status.pending > 0)
                .then(|| standing("pending", counted(status.pending, "user") + " pending"))
                .flatten(),
            ..todo(
                Topic::State,
                Weight::Warning,
                "JumpCloud offers this organisation no account writes".to_owned(),
            )
        }),
        _ => {}
    }
    let holding = status.state == ConnectorState::Held;
    if holding && status.held == 0 {
        let weight = match status.action.as_deref().is_none_or(wording::asks_nothing) {
            true => Weight::Neutral,
            // What keeps it from being carried out, or something else that is noted beside it.
            false => Weight::Warning,
        };
        todos.push(Todo {
            advice: status.action.as_deref().map(capital),
            ..todo(
                Topic::Held,
                weight,
                status
                    .reason
                    .as_deref()
                    .map_or_else(|| "Approved removals wait for the next run".to_owned(), capital),
            )
        });
    }
    if status.held > 0 {
        let what = match status.held {
            1 => "1 removal waits for approval".to_owned(),
            more => format!("{} removals wait for approval", number(more)),
        };
        todos.push(Todo {
            reason: status.reason.as_deref().filter(|_| holding).map(|reason| {
                // How many they are was said.
                let parts = reason.split_once(" held: ").filter(|(many, _)| !many.contains(';'));
                capital(parts.map_or(reason, |(_, why)| why))
            }),
            advice: Some("Look at who it is. If they are really gone:".to_owned()),
            // As many as were looked at: by then it may be more.
            command: command("approve").map(|command| format!("{command} --count {}", status.held)),
            look: match status.accounts_held == status.held {
                true => Some((
                    Query::default()
                        .with("kind", Some(EventKind::RemovalHeld.as_str()))
                        .at(&address::events(name)),
                    "which accounts are held, whose e-mail nobody has any more".to_owned(),
                )),
                false => standing("held", "who is held".to_owned()),
            },
            ..todo(Topic::Held, Weight::Warning, what)
        });
    }
    if status.parked > 0 {
        let deletions = status.deletions_parked;
        let look = if deletions == status.parked {
            let refused = Query::default().with("kind", Some(EventKind::AccountRefused.as_str()));
            Some((refused.at(&address::events(name)), "which, and why".to_owned()))
        } else {
            standing("parked", "who is parked, and why".to_owned())
        };
        todos.push(Todo {
            advice: Some("See why. When that is settled:".to_owned()),
            command: command("retry"),
            look,
            ..todo(Topic::Parked, Weight::Warning, wording::parked(status))
        });
    }
    if let Some(days) = settings.key_days(now) {
        let (weight, what) = match days {
            ..0 => (
                Weight::Bad,
                "The Torq API key has expired, says the configuration".to_owned(),
            ),
            0 => (Weight::Bad, "The Torq API key expires today".to_owned()),
            1..=3 => (
                Weight::Warning,
                format!(
                    "The Torq API key expires in {}",
                    wording::counted(days.unsigned_abs().into(), "day")
                ),
            ),
            _ => (Weight::Warning, format!("The Torq API key expires in {days} days")),
        };
        let advice = "Extend it in Torq, or make a new one and put its client id and secret into the configuration; set key_expires.";
        // While it is paused no run could try the new one.
        let paused = status.state == ConnectorState::Paused;
        todos.push(Todo {
            advice: Some(if paused {
                advice.to_owned()
            } else {
                format!("{advice} Then:")
            }),
            command: command("reconnect").filter(|_| !paused),
            ..todo(Topic::Key, weight, what)
        });
    }
    if let Some(what) = silent(status, settings, now) {
        todos.push(Todo {
            reason: status.reason.clone(),
            advice: Some("It goes on trying by itself. To see which side fails:".to_owned()),
            command: command("check"),
            ..todo(Topic::Silence, Weight::Warning, what)
        });
    }
    // Whatever else it is that the last run asks of somebody.
    if todos.is_empty()
        && asks(status)
        && let Some(reason) = &status.reason
    {
        todos.push(Todo {
            advice: status.action.as_deref().map(capital),
            ..todo(Topic::State, Weight::Warning, capital(reason))
        });
    }
    todos.sort_by_key(|todo| rank(todo.weight));
    todos
}

/// Whether a connector that works asks something of a person all the same.
fn asks(status: &ConnectorStatus) -> bool {
    let works = matches!(status.state, ConnectorState::Connected | ConnectorState::Syncing);
    works
        && status
            .action
            .as_deref()
            .is_some_and(|action| !wording::asks_nothing(action))
}

/// Without success for three intervals although nobody stopped it.
fn silent(status: &ConnectorStatus, settings: &Settings, now: Timestamp) -> Option<String> {
    let trying = matches!(
        status.state,
        ConnectorState::Retrying | ConnectorState::Connected | ConnectorState::Syncing | ConnectorState::Held
    );
    let success = status.last_success.filter(|_| trying)?;
    let patience = SignedDuration::try_from(config::patience(settings.poll_interval)).unwrap_or(SignedDuration::MAX);
    (now.duration_since(success) > patience).then(|| {
        format!(
            "No success for more than three poll intervals; the last was {}",
            wording::relative(now, success)
        )
    })
}

/// The advice of an action whose end is the command that is shown beside it.
fn before_the_command(action: &str, command: Option<&str>) -> String {
    let before = command.and_then(|command| action.strip_suffix(command));
    for (joint, said) in [("then: ", "Then:"), ("to go on: ", "To go on:")] {
        if let Some(advice) = before.and_then(|before| before.strip_suffix(joint)) {
            let advice = capital(advice.trim_end_matches([' ', ',', ';']));
            return match advice.as_str() {
                "" => said.to_owned(),
                advice => format!("{advice}. {said}"),
            };
        }
    }
    capital(action)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

/// Whether a person put the connector aside. That asks nothing of anybody now, but it is not well, either: somebody may have forgotten it.
pub(crate) fn is_aside(state: ConnectorState) -> bool {
    matches!(state, ConnectorState::Paused | ConnectorState::Removed)
}

/// How much a connector asks of a person: by its state, or by what else is to be done.
pub(crate) fn weight(status: &ConnectorStatus, todos: &[Todo]) -> Weight {
    let of_state = wording::weight(status.state);
    let gravest = match todos.first() {
        Some(todo) => todo.weight,
        // Of whose settings nothing is known here.
        None if asks(status) => Weight::Warning,
        None => Weight::Good,
    };
    if rank(gravest) < rank(of_state) {
        gravest
    } else {
        of_state
    }
}

/// The list, with the connectors' names where it is about several.
pub(crate) fn list<'a>(todos: impl IntoIterator<Item = &'a Todo>, named: bool) -> Markup {
    html! {
        ul class="todo" {
            @for todo in todos {
                li class={ "notice " (parts::weight_class(todo.weight)) } {
                    p {
                        @if named { a href=(address::connector(&todo.connector)) { (todo.connector) } ": " }
                        strong { (todo.what) }
                        @if let Some((href, words)) = &todo.look { " – " a href=(href) { (words) } }
                    }
                    @if let Some(reason) = &todo.reason { p class="reason" { (said(reason)) } }
                    @if let Some(advice) = &todo.advice { p { (said(advice)) } }
                    @if let Some(command) = &todo.command { p { (parts::command(command)) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(state: ConnectorState) -> Vec<(Topic, Option<String>)> {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let settings = Settings {
            key_expires: Some("2026-11-26".parse().unwrap()),
            ..Settings::by_default()
        };
        let mut status = ConnectorStatus::unknown("main", state, None);
        status.last_success = Some(now - SignedDuration::from_hours(24));
        let todos = of(&status, &settings, now).into_iter();
        todos.map(|todo| (todo.topic, todo.command)).collect()
    }

    #[test]
    fn whatever_a_connector_asks_of_a_person_is_a_warning_and_what_it_does_by_itself_is_none() {
        let asked = |action: &str| {
            let mut status = ConnectorStatus::unknown(
                "main",
                ConnectorState::Connected,
                Some("this clock is wrong".to_owned()),
            );
            status.action = Some(action.to_owned());
            let settings = Settings::by_default();
            let todos = of(&status, &settings, Timestamp::UNIX_EPOCH);
            (weight(&status, &todos), weight(&status, &[]), todos)
        };
        let (weight, unconfigured, todos) = asked("set this machine's clock (NTP)");
        assert_eq!((weight, unconfigured), (Weight::Warning, Weight::Warning));
        assert_eq!(todos[0].what, "This clock is wrong");
        assert_eq!(todos[0].advice.as_deref(), Some("Set this machine's clock (NTP)"));
        for nothing in ["nothing: the next run tries again", "nothing, if that is meant"] {
            let (weight, unconfigured, todos) = asked(nothing);
            assert_eq!((weight, unconfigured, todos.len()), (Weight::Good, Weight::Good, 0));
        }
    }

    #[test]
    fn whoever_is_to_approve_is_told_why_people_are_held() {
        let said = |reason: &str| {
            let mut status = ConnectorStatus::unknown("main", ConnectorState::Held, Some(reason.to_owned()));
            status.held = 20;
            of(&status, &Settings::by_default(), Timestamp::UNIX_EPOCH)
                .remove(0)
                .reason
        };
        let why = said("20 removals are held: the whole workspace came back empty");
        assert_eq!(why.as_deref(), Some("The whole workspace came back empty"));
        let more = "the clock is wrong; 20 removals are held: nobody came back";
        assert_eq!(
            said(more).as_deref(),
            Some("The clock is wrong; 20 removals are held: nobody came back")
        );
    }

    #[test]
    fn what_is_approved_already_is_no_reason_to_approve() {
        let reason = "8 approved removals wait for the next run";
        let mut status = ConnectorStatus::unknown("main", ConnectorState::Held, Some(reason.to_owned()));
        status.action = Some(wording::about_approved("main"));
        let todos = of(&status, &Settings::by_default(), Timestamp::UNIX_EPOCH);
        assert_eq!(todos.len(), 1);
        let todo = &todos[0];
        assert_eq!(
            (todo.what.as_str(), &todo.command, todo.weight),
            (reason, &None, Weight::Neutral)
        );
        assert!(
            todo.advice
                .as_deref()
                .is_some_and(|advice| advice.ends_with("approve main --withdraw"))
        );
    }

    #[test]
    fn whoever_lets_a_paused_connector_go_on_knows_what_that_carries_out() {
        let said = |action: &str| {
            let reason = "paused by a person; 8 removals to be carried out when it goes on";
            let mut status = ConnectorStatus::unknown("main", ConnectorState::Paused, Some(reason.to_owned()));
            status.action = Some(action.to_owned());
            let mut todos = of(&status, &Settings::by_default(), Timestamp::UNIX_EPOCH);
            let todo = todos.remove(0);
            assert!(todo.reason.is_some_and(|reason| reason.contains("8 removals")));
            assert_eq!(todo.command.as_deref(), Some("torq-connector resume main"));
            todo.advice.unwrap_or_default()
        };
        assert_eq!(said("to go on: torq-connector resume main"), "To go on:");
        assert_eq!(
            said(
                "to take back the approval: torq-connector approve main --withdraw; to go on: torq-connector resume main"
            ),
            "To take back the approval: torq-connector approve main --withdraw. To go on:"
        );
    }

    #[test]
    fn nobody_is_advised_to_reconnect_what_a_person_removed_or_paused() {
        assert_eq!(commands(ConnectorState::Removed), []);
        let resume = Some("torq-connector resume main".to_owned());
        assert_eq!(
            commands(ConnectorState::Paused),
            [(Topic::Key, None), (Topic::State, resume)]
        );
        let connected = commands(ConnectorState::Connected);
        assert!(
            connected.contains(&(Topic::Key, Some("torq-connector reconnect main".to_owned()))),
            "{connected:?}"
        );
    }
}
