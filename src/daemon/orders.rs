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

/// Orders that came while a run was going on, and wait for their turn.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<Order>);

/// An order whose turn it is.
pub(super) struct Turn {
    pub(super) order: Order,
    /// Who else asked for a run and gets that one: it begins after they asked. Otherwise a day without a peer would be followed by a
    /// run for each time that somebody's timer asked for one.
    pub(super) others: Vec<oneshot::Sender<Answer>>,
    /// Older orders that would undo it, were they carried out after it, and where they stood.
    pub(super) overruled: Vec<(usize, Order)>,
}

impl Turn {
    pub(super) fn alone(order: Order) -> Self {
        Self {
            order,
            others: Vec::new(),
            overruled: Vec::new(),
        }
    }
}

impl Waiting {
    pub(super) fn push(&mut self, order: Order) {
        self.0.push_back(order);
    }

    /// Puts one in front of all others.
    pub(super) fn push_front(&mut self, order: Order) {
        self.0.push_front(order);
    }

    /// Puts back what was overruled by something that did not come about.
    pub(super) fn put_back(&mut self, overruled: Vec<(usize, Order)>) {
        for (place, order) in overruled {
            self.0.insert(place.min(self.0.len()), order);
        }
    }

    /// The order that has waited longest, whatever it is.
    pub(super) fn oldest(&mut self) -> Option<Order> {
        self.0.pop_front()
    }

    /// The order whose turn it is. They take turns as they came, but
    /// - no run begins while somebody waits who wants none: a removal comes first, and overrules whoever asked before it to set the
    ///   connector up again; whoever asked for a run before a pause is told that it is paused;
    /// - a run that somebody asks for is by the secrets that somebody else wants to be read;
    /// - whoever asked for a run and went away gets none, for the schedule goes on without them.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let asks_run = |order: &Order| order.action == Action::Sync;
        let reconnects = |order: &Order| order.action == Action::Reconnect;
        let place_of = |waiting: &VecDeque<Order>, wanted: &dyn Fn(&Order) -> bool| waiting.iter().position(wanted);
        self.0.retain(|order| !(asks_run(order) && order.reply.is_closed()));
        if let Some(at) = place_of(&self.0, &|order| matches!(order.action, Action::Remove(_))) {
            let order = self.0.remove(at)?;
            let mut overruled = Vec::new();
            for (no, other) in std::mem::take(&mut self.0).into_iter().enumerate() {
                match no < at && reconnects(&other) {
                    true => overruled.push((no, other)),
                    false => self.0.push_back(other),
                }
            }
            return Some(Turn {
                overruled,
                ..Turn::alone(order)
            });
        }
        if place_of(&self.0, &|order| order.action == Action::Pause).is_some() {
            let at = place_of(&self.0, &|order| !asks_run(order) && !reconnects(order))?;
            return self.0.remove(at).map(Turn::alone);
        }
        if let Some(at) = place_of(&self.0, &|order| !asks_run(order))
            && reconnects(&self.0[at])
        {
            return self.0.remove(at).map(Turn::alone);
        }
        let order = self.0.pop_front()?;
        let together = asks_run(&order);
        let others = std::iter::from_fn(|| self.0.pop_front_if(|order| together && asks_run(order)));
        Some(Turn {
            others: others.map(|order| order.reply).collect(),
            ..Turn::alone(order)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::RemovalTerms;

    const REMOVE: Action = Action::Remove(RemovalTerms {
        keep_accounts: false,
        keep_application: false,
    });

    struct Queue {
        waiting: Waiting,
        askers: Vec<oneshot::Receiver<Answer>>,
    }

    impl Queue {
        fn of(actions: &[Action]) -> Self {
            let mut queue = Self {
                waiting: Waiting::default(),
                askers: Vec::new(),
            };
            for action in actions {
                queue.ask(*action, true);
            }
            queue
        }

        fn ask(&mut self, action: Action, stays: bool) {
            let (reply, answer) = oneshot::channel();
            self.waiting.push(Order { action, reply });
            self.askers.extend(Some(answer).filter(|_| stays));
        }

        /// What is carried out, for how many others at once, and how many it overrules.
        fn carried_out(mut self) -> Vec<(Action, usize, usize)> {
            let turns = std::iter::from_fn(|| self.waiting.next());
            turns
                .map(|turn| (turn.order.action, turn.others.len(), turn.overruled.len()))
                .collect()
        }
    }

    #[test]
    fn orders_for_a_run_that_waited_for_one_are_one_run_and_those_of_nobody_are_none() {
        let mut queue = Queue::of(&[]);
        // Nobody waits for the first two any more; a person's decision is carried out all the same.
        for (action, stays) in [
            (Action::Sync, false),
            (Action::Sync, false),
            (Action::Retry, false),
            (Action::Sync, true),
            (Action::Sync, false),
            (Action::Sync, true),
            (Action::Resume, true),
            (Action::Sync, true),
        ] {
            queue.ask(action, stays);
        }
        assert_eq!(
            queue.carried_out(),
            [
                (Action::Retry, 0, 0),
                (Action::Sync, 1, 0),
                (Action::Resume, 0, 0),
                (Action::Sync, 0, 0)
            ]
        );
    }

    #[test]
    fn nobody_who_asked_before_a_pause_gets_a_run_before_it_or_undoes_it() {
        use Action::{Pause, Reconnect, Resume, Retry, Sync};
        let queue = Queue::of(&[Sync, Resume, Reconnect, Retry, Pause, Sync]);
        assert_eq!(
            queue.carried_out(),
            [
                (Resume, 0, 0),
                (Retry, 0, 0),
                (Pause, 0, 0),
                (Reconnect, 0, 0),
                (Sync, 1, 0)
            ]
        );
        // Whoever thinks better of it later, does.
        let queue = Queue::of(&[Pause, Resume, Sync]);
        assert_eq!(queue.carried_out(), [(Pause, 0, 0), (Resume, 0, 0), (Sync, 0, 0)]);
    }

    #[test]
    fn a_removal_comes_first_and_overrules_whoever_wanted_it_set_up_before_and_nobody_who_does_later() {
        use Action::{Pause, Reconnect, Resume, Sync};
        let queue = Queue::of(&[Sync, Reconnect, Resume, Reconnect, REMOVE, Reconnect, Pause]);
        assert_eq!(
            queue.carried_out(),
            [
                (REMOVE, 0, 2),
                (Resume, 0, 0),
                (Pause, 0, 0),
                (Reconnect, 0, 0),
                (Sync, 0, 0)
            ]
        );
    }

    #[test]
    fn what_was_overruled_by_a_removal_that_is_refused_stands_where_it_stood() {
        use Action::{Reconnect, Resume, Sync};
        let mut queue = Queue::of(&[Resume, Reconnect, Sync, Reconnect, REMOVE]);
        let turn = queue.waiting.next().unwrap();
        assert_eq!(turn.order.action, REMOVE);
        queue.waiting.put_back(turn.overruled);
        let order = std::iter::from_fn(|| queue.waiting.oldest()).map(|order| order.action);
        assert_eq!(order.collect::<Vec<_>>(), [Resume, Reconnect, Sync, Reconnect]);
    }

    #[test]
    fn whoever_wants_secrets_to_be_read_again_comes_before_whoever_just_asks_for_a_run() {
        use Action::{Reconnect, Resume, Sync};
        let queue = Queue::of(&[Sync, Sync, Reconnect, Sync]);
        assert_eq!(queue.carried_out(), [(Reconnect, 0, 0), (Sync, 2, 0)]);
        let queue = Queue::of(&[Sync, Resume, Reconnect]);
        assert_eq!(queue.carried_out(), [(Sync, 0, 0), (Resume, 0, 0), (Reconnect, 0, 0)]);
    }
}
