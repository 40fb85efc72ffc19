//! Orders: what people ask of a connector while it is attended, and how they wait for their turn.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};

use super::control::{Action, Answer};

/// Something asked of a connector, and where the answer goes.
pub(super) struct Order {
    pub(super) action: Action,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Where orders for a connector are taken.
#[derive(Clone)]
pub(super) struct Desk(mpsc::Sender<Order>);

impl Desk {
    /// A desk, and where its orders come out. They wait there until somebody takes them.
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (desk, orders) = mpsc::channel(16);
        (Self(desk), orders)
    }

    /// Passes an order on and waits for its answer; `None` when the daemon is stopping.
    pub(super) async fn ask(&self, action: Action) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Order { action, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// Takes the order that has waited longest, and whoever is answered with it: who else asked for a run, one right after the other,
/// while one was going on, gets one run together, which begins after they asked. Whoever asked for one and went away gets none,
/// for the schedule goes on without them. Otherwise a day without a peer would be followed by a run for each time that somebody's
/// timer asked for one.
pub(super) fn next_waiting(waiting: &mut VecDeque<Order>) -> Option<(Order, Vec<oneshot::Sender<Answer>>)> {
    let asks_run = |order: &mut Order| order.action == Action::Sync;
    while waiting
        .pop_front_if(|order| asks_run(order) && order.reply.is_closed())
        .is_some()
    {}
    let mut first = waiting.pop_front()?;
    let together = asks_run(&mut first);
    let others = std::iter::from_fn(|| waiting.pop_front_if(|order| together && asks_run(order)));
    let others = others.map(|order| order.reply).collect();
    Some((first, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_for_a_run_that_waited_for_one_are_one_run_and_those_of_nobody_are_none() {
        let mut waiting = VecDeque::new();
        let mut askers = Vec::new();
        let mut ask = |waiting: &mut VecDeque<Order>, action, stays| {
            let (reply, answer) = oneshot::channel();
            waiting.push_back(Order { action, reply });
            askers.extend(Some(answer).filter(|_| stays));
        };
        // Nobody waits for the first two any more; a person's decision is carried out all the same.
        for (action, stays) in [
            (Action::Sync, false),
            (Action::Sync, false),
            (Action::Retry, false),
            (Action::Sync, true),
            (Action::Sync, false),
            (Action::Sync, true),
            (Action::Pause, true),
            (Action::Sync, true),
        ] {
            ask(&mut waiting, action, stays);
        }
        let carried_out: Vec<_> = std::iter::from_fn(|| next_waiting(&mut waiting))
            .map(|(order, others)| (order.action, others.len()))
            .collect();
        assert_eq!(
            carried_out,
            [
                (Action::Retry, 0),
                (Action::Sync, 2),
                (Action::Pause, 0),
                (Action::Sync, 0)
            ],
            "and nothing that was asked before a pause is done after it"
        );
    }
}
