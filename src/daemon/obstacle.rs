//! What keeps a connector from its work, as it is shown while that lasts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::http::Trouble;
use crate::state::{State, StateError};
use crate::sync::{self, Connector};
use crate::view::ConnectorState;
use crate::web::Overlay;
use crate::wording::{self, BY_ITSELF};

/// A peer that does not answer as it should for so long is noted in the state, while the run goes on.
const WORTH_NOTING: SignedDuration = SignedDuration::from_secs(60);

/// Whether a trouble has lasted so long that it is worth noting: before anybody is told that nothing succeeds.
pub(super) fn lasts(trouble: &Trouble, poll_interval: Duration) -> bool {
    let worth = SignedDuration::try_from(poll_interval).map_or(WORTH_NOTING, |interval| interval.min(WORTH_NOTING));
    Timestamp::now().duration_since(trouble.since) >= worth
}

/// Notes in the state what a connector meets while its run goes on.
pub(super) async fn note(state: &State, connector: &Connector) -> Result<(), StateError> {
    let Some(trouble) = connector.trouble() else {
        return Ok(());
    };
    // Without the moments of this process, which nobody keeps when it is gone.
    let action = sync::again_by_itself(trouble.cause, trouble.peer);
    state
        .call(move |store| {
            let now = Timestamp::now();
            sync::note_retrying(store, now, trouble.reason, trouble.since, Some(&action))
        })
        .await
}

/// A peer that does not answer as it should, if one does not.
pub(super) fn overlay_of(connector: &Connector) -> Option<Overlay> {
    let trouble = connector.trouble()?;
    Some(Overlay {
        state: ConnectorState::Retrying,
        reason: Some(format!("{} (since {})", trouble.reason, wording::moment(trouble.since))),
        action: Some(format!(
            "{}{} is {}",
            sync::about_cause(trouble.cause, trouble.peer)
                .map_or_else(|| "nothing: ".to_owned(), |advice| format!("{advice}; ")),
            trouble.peer,
            match trouble.next_attempt > Timestamp::now() {
                true => format!("asked again at {}", wording::moment(trouble.next_attempt)),
                false => format!("being asked again, since {}", wording::moment(trouble.next_attempt)),
            }
        )),
    })
}

/// What a state that cannot be used means for its connector.
pub(super) fn trouble(error: &StateError) -> Overlay {
    Overlay {
        state: ConnectorState::Retrying,
        reason: Some(error.to_string()),
        action: Some(format!("{}; {BY_ITSELF}", wording::about_state(error))),
    }
}
