//! `pause`, `resume`, `approve`, `retry`, `reconnect`: through the socket where a daemon runs, under the lock where none does, with the
//! same effect.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use serde_json::Value;
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Person, Sandbox, WorldHandle};

use crate::binary::{Connector, Daemon, Place, account_emails, eventually, people_emails, sandbox};
use crate::world::times;

/// A place in which a daemon works, or none.
struct Office {
    place: Place,
    daemon: Option<Daemon>,
}

impl Office {
    /// After a first run.
    async fn open(connector: Connector, with_daemon: bool) -> Self {
        let place = Place::new(&[connector]);
        let daemon = match with_daemon {
            true => Some(place.daemon().await),
            false => {
                place.run(&["sync"]).await;
                None
            }
        };
        let office = Self { place, daemon };
        office.status(|status| !status["last_run"].is_null()).await;
        office
    }

    /// The status, when it is as wanted: at once without a daemon.
    async fn status(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(daemon) = &self.daemon {
            return daemon.status("main", wanted).await;
        }
        let report = self.place.run(&["status", "--format", "json"]).await.exits(0).json();
        let status = report["connectors"][0].clone();
        assert!(wanted(&status), "{status}");
        status
    }

    /// What was asked for is carried out: by the daemon by itself, otherwise by the next run.
    async fn carried_out(&self) {
        if self.daemon.is_none() {
            self.place.run(&["sync"]).await.exits(0);
        }
    }

    async fn close(self) {
        if let Some(daemon) = self.daemon {
            daemon.stop().await;
        }
    }
}

fn main(sandbox: &Sandbox) -> Connector {
    Connector::new("main", sandbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(4).await;
        let office = Office::open(main(&sandbox), with_daemon).await;
        let ran = office.place.run(&["pause", "main"]).await.exits(0);
        ran.tells(&["main: paused", "torq-connector resume main"]);
        let status = office.status(|status| status["state"] == "paused").await;
        assert!(status["action"].as_str().unwrap().contains("resume main"));
        sandbox.world().clear_requests();
        sandbox.world().add_people(1);
        office.place.run(&["sync", "main"]).await.exits(75);
        assert!(sandbox.world().requests().is_empty());
        office.place.run(&["pause"]).await.exits(0);

        let ran = office.place.run(&["retry", "main"]).await.exits(0);
        ran.tells(&["nothing was refused", "it is paused until: torq-connector resume main"]);
        office.place.run(&["resume", "main"]).await.exits(0).tells(&["resumed"]);
        office.carried_out().await;
        office
            .status(|status| status["accounts"] == 5 && status["state"] == "connected")
            .await;
        office.close().await;
    }
}

impl Office {
    async fn takes_back_eight(&self) {
        let ran = self.place.run(&["approve", "main", "--withdraw"]).await.exits(0);
        ran.tells(&["main: the approval is withdrawn: 8 removals are held again"]);
    }
}

/// Twelve people, of whom eight left at once; accounts go with whoever is gone.
async fn with_eight_held(with_daemon: bool, arrange: impl FnOnce(&WorldHandle)) -> (Sandbox, Office) {
    let sandbox = sandbox(12).await;
    let world = sandbox.world();
    arrange(&world);
    let office = Office::open(
        main(&sandbox).with("removals", "delete").with("poll_interval", "1h"),
        with_daemon,
    )
    .await;
    for person in &world.people()[..8] {
        world.remove_person(&person.id);
    }
    for _ in 0..2 {
        office.place.run(&["sync"]).await;
    }
    office.status(|status| status["held"] == 8).await;
    (sandbox, office)
}

#[tokio::test(flavor = "multi_thread")]
async fn approve() {
    for with_daemon in [false, true] {
        let (sandbox, office) = with_eight_held(with_daemon, |world| {
            // Two of those who will leave have an account that somebody else made.
            for person in &world.people()[..2] {
                world.add_account(Account {
                    email: Some(person.email.clone()),
                    ..Account::default()
                });
            }
        })
        .await;
        let world = sandbox.world();
        assert_eq!(world.count(Endpoint::AccountDelete), 0);
        let approve = async |more: &[&str]| office.place.run(&[&["approve", "main"], more].concat()).await;
        // Not as many as somebody saw; and nothing is approved yet that could be taken back.
        approve(&["--count", "6"])
            .await
            .exits(75)
            .tells(&["main: 8 held by now, and not 6: nothing is approved"]);
        approve(&["--withdraw"])
            .await
            .exits(0)
            .tells(&["main: nothing is approved that was not carried out"]);
        approve(&["--count", "8"]).await.exits(0).tells(&[
            "main: 8 removals approved",
            "deletes the 6 accounts that this connector created",
        ]);
        office.carried_out().await;
        office
            .status(|status| status["removed"] == 8 && status["held"] == 0 && status["state"] == "connected")
            .await;
        assert_eq!(world.count(Endpoint::AccountDelete), 6);
        assert_eq!(world.accounts().len(), 6);
        approve(&[]).await.exits(0).tells(&["main: nothing is held"]);
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_while_a_run_is_going_on_waits_for_no_interval() {
    let (sandbox, office) = with_eight_held(true, |_| {}).await;
    let world = sandbox.world();
    let created = world.count(Endpoint::AccountCreate);
    world.add_people(1);
    world.fault(FaultRule::once(
        Endpoint::AccountCreate,
        Fault::Delay(Duration::from_secs(8)),
    ));
    // By the time of the approval this run has seen who is missing, and held them.
    let run = office.place.run(&["sync"]);
    let approve = async {
        world.seen(Endpoint::AccountCreate, created + 1).await;
        office.place.run(&["approve", "main", "--count", "8"]).await.exits(0)
    };
    let (run, _) = tokio::join!(run, approve);
    run.exits(75).tells(&["8 approved removals wait for the next run"]);
    office
        .status(|status| status["removed"] == 8 && status["state"] == "connected")
        .await;
    assert_eq!((world.count(Endpoint::AccountDelete), world.accounts().len()), (8, 5));
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_is_refused_or_of_nothing_starts_no_run() {
    let (sandbox, office) = with_eight_held(true, |_| {}).await;
    let before = office
        .status(|status| status["held"] == 8 && !status["next_poll"].is_null())
        .await;
    sandbox.world().clear_requests();
    for (more, code) in [("--count=6", 75), ("--withdraw", 0), ("--count=7", 75)] {
        office.place.run(&["approve", "main", more]).await.exits(code);
    }
    // One order after the other: what the first two set off would be seen by now.
    let after = office.status(|_| true).await;
    for member in ["next_poll", "last_run", "state"] {
        assert_eq!(before[member], after[member], "{member}");
    }
    assert!(sandbox.world().requests().is_empty());
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(5).await;
        let world = sandbox.world();
        let refused = world.people()[0].email.clone();
        world.behave(|behaviour| behaviour.refused_emails = vec![refused]);
        let office = Office::open(main(&sandbox), with_daemon).await;
        office.status(|status| status["parked"] == 1).await;
        world.behave(|behaviour| behaviour.refused_emails.clear());
        office
            .place
            .run(&["retry", "main"])
            .await
            .exits(0)
            .tells(&["main: 1 user is pending again"]);
        if !with_daemon {
            let status = office.status(|status| status["pending"] == 1).await;
            let (reason, action) = (status["reason"].as_str().unwrap(), status["action"].as_str().unwrap());
            assert!(
                reason.contains("pending again") && !reason.contains("parked"),
                "{reason}"
            );
            assert!(action.contains("torq-connector sync main"), "{action}");
        }
        office.carried_out().await;
        office
            .status(|status| status["parked"] == 0 && status["accounts"] == 5 && status["state"] == "connected")
            .await;
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_also_tries_what_was_not_offered() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(3).await;
        let world = sandbox.world();
        world.behave(|behaviour| behaviour.account_create_refused = Some(405));
        let office = Office::open(main(&sandbox), with_daemon).await;
        office.status(|status| status["state"] == "report_only").await;
        world.behave(|behaviour| behaviour.account_create_refused = None);
        office
            .place
            .run(&["retry", "main"])
            .await
            .exits(0)
            .tells(&["main: the next run tries again what JumpCloud did not offer"]);
        if !with_daemon {
            office
                .status(|status| {
                    status["reason"]
                        .as_str()
                        .is_some_and(|reason| reason.contains("is tried again"))
                })
                .await;
        }
        office.carried_out().await;
        office
            .status(|status| status["accounts"] == 3 && status["state"] == "connected")
            .await;
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(4).await;
        let world = sandbox.world();
        world.revoke_torq_key();
        let office = Office::open(main(&sandbox), with_daemon).await;
        let status = office.status(|status| status["state"] == "reconnect_required").await;
        let advised = match with_daemon {
            true => office.place.advised("reconnect main"),
            false => "torq-connector reconnect main".to_owned(),
        };
        assert!(status["action"].as_str().unwrap().contains(&advised), "{status}");
        world.restore_torq_key();
        let ran = office.place.run(&["reconnect", "main"]).await.exits(0);
        if with_daemon {
            ran.tells(&["main: 4 users; 4 new, 4 accounts created"]);
        } else {
            ran.tells(&["no daemon is running; the next run"]);
            // It has seen nobody yet.
            office
                .status(|status| status["state"] == "collecting" && status["action"].is_null())
                .await;
        }
        office.carried_out().await;
        office.status(|status| status["state"] == "connected").await;
        assert_eq!(account_emails(&world), people_emails(&world));
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_for_asks_the_directory_again_as_its_dry_run_does() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(4).await;
        let world = sandbox.world();
        world.add_person(Person::with_email("late@elsewhere.example"));
        let office = Office::open(main(&sandbox).with("poll_interval", "1h"), with_daemon).await;
        let before = office.status(|status| status["state"] == "connected").await;
        world.add_to_directory("late@elsewhere.example");
        let ran = office
            .place
            .run(&["sync", "--dry-run", "--format", "json"])
            .await
            .exits(0);
        let changes = ran.json()["connectors"][0]["changes"].clone();
        let changes = changes.as_array().unwrap();
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0]["kind"], "account_associated");
        let ran = office.place.run(&["sync"]).await.exits(0);
        ran.tells(&["main: 5 users; 1 associated"]);
        let associated = before["associated"].as_u64().unwrap() + 1;
        office.status(|status| status["associated"] == associated).await;
        let ran = office.place.run(&["sync"]).await.exits(0);
        ran.tells(&["main: 5 users; nothing changed"]);
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_run_while_one_is_going_on_shares_the_next_one() {
    let sandbox = sandbox(3).await;
    let world = sandbox.world();
    let place = Place::new(&[main(&sandbox).with("poll_interval", "1h")]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    world.clear_requests();
    world.fault(FaultRule::once(
        Endpoint::TorqUsers,
        Fault::Delay(Duration::from_secs(3)),
    ));
    let first = place.run(&["sync"]);
    let others = async {
        world.seen(Endpoint::TorqUsers, 1).await;
        futures_util::future::join_all((0..5).map(|_| place.run(&["sync"]))).await
    };
    let (first, others) = tokio::join!(first, others);
    for ran in others.into_iter().chain([first]) {
        ran.exits(0).tells(&["main: 3 users; nothing changed"]);
    }
    // Two listings each. Under load, somebody may come so late that theirs is a third.
    let polls = world.count(Endpoint::TorqUsers) / 2;
    assert!((2..=3).contains(&polls), "{polls} polls for six who asked");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_taken_back_before_it_is_carried_out() {
    for with_daemon in [false, true] {
        let (sandbox, office) = with_eight_held(with_daemon, |_| {}).await;
        let world = sandbox.world();
        // Paused, so that nobody carries it out, it is not out of sight.
        office.place.run(&["pause", "main"]).await.exits(0);
        office.place.run(&["approve", "main"]).await.exits(0);
        let status = office.status(|status| status["held"] == 0).await;
        assert!(
            status["reason"]
                .as_str()
                .unwrap()
                .contains("8 removals to be carried out when it goes on"),
            "{status}"
        );
        assert!(status["action"].as_str().unwrap().contains("--withdraw"), "{status}");
        office.takes_back_eight().await;
        office.place.run(&["resume", "main"]).await.exits(0);
        office.place.run(&["sync"]).await.exits(75);
        let status = office
            .status(|status| status["held"] == 8 && status["state"] == "held")
            .await;
        assert!(
            status["reason"].as_str().unwrap().starts_with("8 removals are held: "),
            "{status}"
        );
        assert_eq!(world.count(Endpoint::AccountDelete), 0);
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jumpcloud_refused_to_delete_is_taken_back_too() {
    for with_daemon in [false, true] {
        let (sandbox, office) = with_eight_held(with_daemon, |_| {}).await;
        let world = sandbox.world();
        world.fault(times(2, Endpoint::AccountDelete, Fault::status(400)));
        office.place.run(&["approve", "main"]).await.exits(0);
        if !with_daemon {
            office.place.run(&["sync"]).await;
        }
        office
            .status(|status| status["deletions_parked"] == 2 && status["deletions_pending"] == 0)
            .await;
        let ran = office.place.run(&["approve", "main", "--withdraw"]).await.exits(0);
        ran.tells(&["2 removals are held again"]);
        let ran = office.place.run(&["retry", "main"]).await.exits(0);
        ran.tells(&["nothing was refused"]);
        office.place.run(&["sync"]).await.exits(75);
        office.status(|status| status["held"] == 2).await;
        assert_eq!(world.accounts().len(), 6);
        office.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_is_not_out_of_sight_where_nothing_runs() {
    let (sandbox, office) = with_eight_held(false, |_| {}).await;
    let approve = async |more: &[&str]| office.place.run(&[&["approve", "main"], more].concat()).await;
    sandbox.world().revoke_torq_key();
    office.place.run(&["sync"]).await.exits(77);
    let ran = approve(&["--count", "8"]).await.exits(0);
    ran.tells(&[
        "8 removals approved",
        "no run begins before: torq-connector reconnect main",
    ]);
    let ran = approve(&["--count", "8"]).await.exits(75);
    ran.tells(&[
        "nothing is held; 8 removals were approved earlier, for the next run",
        "approve main --withdraw",
    ]);
    let ran = approve(&[]).await.exits(0);
    ran.tells(&["nothing is held; 8 removals were approved earlier"]);
    let status = office.status(|status| status["state"] == "reconnect_required").await;
    let told = |member: &str| status[member].as_str().unwrap().to_owned();
    assert!(
        told("reason").ends_with("; 8 removals to be carried out when it goes on"),
        "{status}"
    );
    assert!(
        told("action").starts_with("to take back the approval: torq-connector approve main --withdraw; "),
        "{status}"
    );
    office.takes_back_eight().await;
    office.place.run(&["pause", "main"]).await.exits(0);
    office
        .place
        .run(&["reconnect", "main"])
        .await
        .exits(75)
        .tells(&["main: is paused; to go on: torq-connector resume main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_approved_and_is_not_deleted_yet_is_taken_back_too() {
    for with_daemon in [false, true] {
        let (sandbox, office) = with_eight_held(with_daemon, |_| {}).await;
        let world = sandbox.world();
        world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::status(503)));
        office.place.run(&["approve", "main", "--count", "8"]).await.exits(0);
        if !with_daemon {
            office.place.run(&["sync"]).await;
        }
        // The users are gone, and not one account is: JumpCloud does not do it yet.
        office
            .status(|status| status["removed"] == 8 && status["deletions_pending"] == 8)
            .await;
        office.takes_back_eight().await;
        world.clear_faults();
        office.place.run(&["sync"]).await.exits(75);
        office.status(|status| status["held"] == 8).await;
        assert_eq!(world.accounts().len(), 12);
        // Held by themselves, they are approved as ever.
        office
            .place
            .run(&["approve", "main", "--count", "3"])
            .await
            .exits(75)
            .tells(&["8 held by now, and not 3: nothing is approved. Look at them again: accounts whose e-mail nobody has any more: "]);
        office.place.run(&["approve", "main", "--count", "8"]).await.exits(0);
        office.carried_out().await;
        eventually("they are deleted", async || (world.accounts().len() == 4).then_some(())).await;
        office
            .status(|status| status["held"] == 0 && status["state"] == "connected")
            .await;
        office.close().await;
    }
}
