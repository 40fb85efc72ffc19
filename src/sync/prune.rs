//! Pruning: after a delivery, what is older than it is to be kept goes, a little at a time.

use jiff::{SignedDuration, Timestamp};

use super::{Connector, Halt};
use crate::state::Pruned;

/// How many small transactions a run spends on it at most; the next run goes on.
const MOST: u32 = 40;

/// Prunes what need not be kept any more. Not while this machine's clock is in doubt: by one that is ahead, everything is old.
pub(super) async fn prune(connector: &Connector) -> Result<(), Halt> {
    let retention = connector
        .config
        .retention
        .and_then(|age| SignedDuration::try_from(age).ok());
    let Some(before) = retention.and_then(|age| Timestamp::now().checked_sub(age).ok()) else {
        return Ok(());
    };
    if connector.clock_ahead().is_some() || !connector.state.call(move |store| store.is_to_be_pruned(before)).await? {
        return Ok(());
    }
    let mut pruned = Pruned::default();
    for _ in 0..MOST {
        connector.go_on()?;
        let some = connector.state.call(move |store| store.prune(before)).await?;
        pruned += some;
        if !some.is_full() {
            break;
        }
    }
    let Pruned {
        events,
        users,
        accounts,
        runs,
    } = pruned;
    tracing::info!(connector = %connector.name(), %before, events, users, accounts, runs, "what is older than it is to be kept was pruned");
    Ok(())
}
