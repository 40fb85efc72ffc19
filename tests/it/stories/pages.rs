//! Torq's pages: every way of paging that Torq does not rule out, and every way in which it may go wrong.

use serde_json::json;
use torq_connector::http::FailureKind;
use torq_connector::model::Peer;
use torq_connector::sandbox::{Behaviour, Endpoint, Options, PageTokens, Person};
use torq_connector::view::{EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, refusal};

/// Page tokens that lead nowhere new: before and after a first collection the run fails and gives the poll up, nobody is
/// removed and nothing is written; once Torq has come to itself, all is well.
async fn going_in_circles(tokens: PageTokens) {
    let scene = Scene::with_people(60).await;
    let world = scene.world();
    let spoil = |tokens| {
        scene.behave(|behaviour| {
            behaviour.torq_page_cap = 7;
            behaviour.page_tokens = tokens;
        })
    };
    for round in 0..2 {
        spoil(tokens);
        world.clear_requests();
        for _ in 0..3 {
            let end = scene.run().await;
            assert_eq!(end.outcome, RunOutcome::Failed);
            assert_eq!(refusal(&end), (Peer::Torq, FailureKind::Unintelligible));
            let text = end.halt.unwrap().to_string();
            assert!(text.contains("never end"), "{text}");
            assert!(end.status.progress.is_none(), "given up");
            assert_eq!(end.status.removed, 0);
        }
        assert!(world.writes().is_empty());
        assert!(world.count(Endpoint::TorqUsers) < 3 * 2 * 25, "not for ever");
        spoil(PageTokens::Honest);
        let end = scene.run_to_the_end().await;
        assert_eq!((end.status.users, end.status.accounts), (60, 60), "round {round}");
        assert_in_step(&scene);
    }
    assert!(scene.events(EventKind::UserDisappeared).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_repeats_at_once_is_an_error_and_no_endless_loop() {
    going_in_circles(PageTokens::Repeat).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_comes_back_later_is_an_error_and_no_endless_loop() {
    going_in_circles(PageTokens::Alternate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_page_with_ever_new_tokens_is_an_error_and_no_endless_loop() {
    going_in_circles(PageTokens::FreshForSamePage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_goes_stale_starts_the_listing_again() {
    for status in [400, 404] {
        let scene = Scene::with_people(60).await;
        let world = scene.world();
        scene.behave(|behaviour| {
            behaviour.torq_page_cap = 7;
            behaviour.stale_token_status = status;
        });
        let connector = scene.connector().await;
        let age = async {
            world.seen(Endpoint::TorqUsers, 5).await;
            world.expire_page_tokens();
        };
        let (end, ()) = tokio::join!(connector.run(), age);
        assert_eq!(end.unwrap().outcome, RunOutcome::Done);
        assert!(world.requests().iter().any(|one| one.status == Some(status)));
        assert_in_step(&scene);
        assert_eq!(world.accounts().len(), 60);
    }
}

/// Two runs under a way of paging: everybody is there once, and stays.
async fn pages_like(change: impl Fn(&mut Behaviour)) {
    let scene = Scene::with_people(60).await;
    scene.behave(change);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.status.users, end.counts.created), (60, 60));
    assert_in_step(&scene);
    scene.world().clear_requests();
    for _ in 0..2 {
        assert_eq!(scene.run_to_the_end().await.counts, Default::default());
    }
    assert!(scene.world().writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_shorter_than_asked_for_are_not_the_end() {
    pages_like(|behaviour| behaviour.torq_page_cap = 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_pages_with_a_token_are_not_the_end() {
    pages_like(|behaviour| {
        behaviour.torq_page_cap = 7;
        behaviour.empty_pages = true;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_behind_the_last_page_does_no_harm() {
    pages_like(|behaviour| {
        behaviour.torq_page_cap = 10;
        behaviour.trailing_page_token = true;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_camel_case_with_every_default_spelled_out_are_read() {
    pages_like(|behaviour| {
        behaviour.torq_page_cap = 7;
        behaviour.torq_camel_case = true;
        behaviour.emit_defaults = true;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_the_filter_and_sends_everybody_twice_makes_nobody_double() {
    pages_like(|behaviour| {
        behaviour.torq_page_cap = 7;
        behaviour.ignore_sso_filter = true;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_moves_between_the_listings_during_a_poll_is_neither_lost_nor_double() {
    for to_sso in [true, false] {
        // The listing they move to is short and read to its end, the one they leave is long and not read that far.
        let scene = Scene::new(Options {
            people: 40,
            sso_share: if to_sso { 0.1 } else { 0.9 },
            ..Options::default()
        })
        .await;
        let world = scene.world();
        scene.behave(|behaviour| behaviour.torq_page_cap = 4);
        scene.run_to_the_end().await;
        let people = world.people();
        let mover = people.iter().rfind(|person| person.sso_provision != to_sso).unwrap();

        world.clear_requests();
        let connector = scene.connector().await;
        let moving = async {
            world.seen(Endpoint::TorqUsers, 8).await;
            world.update_person(&mover.id, |person| person.sso_provision = to_sso);
        };
        let (end, ()) = tokio::join!(connector.run(), moving);
        let end = end.unwrap();
        drop(connector);
        assert_eq!((end.outcome, end.status.users), (RunOutcome::Done, 40));
        assert_eq!(end.counts.changed, 0, "nobody saw them in this poll");
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.changed, end.status.users), (1, 40));
        scene.run_to_the_end().await;
        assert!(scene.events(EventKind::UserDisappeared).is_empty());
        assert!(world.writes().is_empty());

        // And the other way: seen in both, counted once.
        let everywhere = people.iter().find(|person| person.sso_provision == to_sso).unwrap();
        world.clear_requests();
        let connector = scene.connector().await;
        let moving = async {
            world.seen(Endpoint::TorqUsers, 2).await;
            world.update_person(&everywhere.id, |person| person.sso_provision = !to_sso);
        };
        let (end, ()) = tokio::join!(connector.run(), moving);
        drop(connector);
        assert_eq!(end.unwrap().status.users, 40);
        scene.run_to_the_end().await;
        assert!(world.writes().is_empty());
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_missing_null_or_new_cost_nobody_an_account() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    let sparse = [
        json!({"email": "bare@example.com"}),
        json!({"email": "nulls@example.com", "role_id": null, "status": null, "sso_provision": null,
            "created_time": null, "last_login_time": null}),
        json!({"email": "later@example.com", "status": "STATUS_OF_TOMORROW", "manager": {"id": 5}, "tags": []}),
        json!({"email": "number@example.com", "status": 7}),
        json!({"email": "odd@example.com", "created_time": 5, "role_id": ["a"], "sso_provision": "yes"}),
    ];
    for record in sparse {
        let mut person = Person::with_email(record["email"].as_str().unwrap());
        let mut record = record;
        record["id"] = json!(person.id);
        person.raw = Some(record);
        world.add_person(person);
    }
    let mut nobody = Person::with_email("");
    nobody.raw = Some(json!({"id": nobody.id}));
    world.add_person(nobody.clone());

    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Partial, "one has no e-mail");
    assert_eq!((end.counts.created, end.status.parked), (15, 1));
    assert_eq!(
        scene.user(&nobody.id).reason.unwrap(),
        "Torq has no e-mail for this user"
    );
    assert_in_step(&scene);
    world.clear_requests();
    assert_eq!(scene.run().await.counts, Default::default());
    assert!(world.writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_are_none_or_far_away_cost_nobody_an_account_and_are_shown_as_they_came() {
    let scene = Scene::with_people(3).await;
    let world = scene.world();
    let times = [
        "2024-02-29T23:59:60Z",
        "2023-02-29T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "+292277026596-12-04T15:30:08Z",
        "1969-12-31T23:59:59-23:59",
        "now",
        "-9223372036854775808",
    ];
    for (number, time) in times.iter().enumerate() {
        let mut person = Person::with_email(&format!("times.{number}@example.com"));
        person.raw = Some(json!({
            "id": person.id, "email": person.email, "created_time": time, "last_login_time": time,
        }));
        world.add_person(person);
    }
    for _ in 0..2 {
        scene.run_to_the_end().await;
    }
    assert_eq!(world.accounts().len(), 3 + times.len());
    assert!(scene.events(EventKind::UserChanged).is_empty());
    let users = scene.users();
    for (number, time) in times.iter().enumerate() {
        let email = format!("times.{number}@example.com");
        let user = users.iter().find(|one| one.email == email).unwrap();
        assert_eq!(
            (user.created.as_deref(), user.last_login.as_deref()),
            (Some(*time), Some(*time))
        );
    }
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_cannot_be_read_any_more_stays_as_it_was_known() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    let person = world.people().swap_remove(3);
    for email in [json!(5), json!(null), json!({"address": "x"})] {
        let raw = json!({"id": person.id, "email": email, "status": "VERIFIED"});
        world.update_person(&person.id, |person| person.raw = Some(raw));
        world.clear_requests();
        for _ in 0..3 {
            assert_eq!(scene.run().await.counts.disappeared, 0);
        }
        assert!(world.writes().is_empty());
        assert_eq!(scene.user(&person.id).email, person.email);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_readable_id_is_named_and_its_poll_removes_nobody() {
    for record in [
        json!({"email": "x@example.com"}),
        json!({"id": 7}),
        json!("text"),
        json!(null),
    ] {
        let mut scene = Scene::with_people(20).await;
        scene.set("REMOVALS", "delete");
        let world = scene.world();
        scene.run_to_the_end().await;
        let gone = &world.people()[..2];
        for person in gone {
            world.remove_person(&person.id);
        }
        let mut unreadable = Person::with_email("");
        unreadable.raw = Some(record.clone());
        world.add_person(unreadable.clone());
        world.add_people(1);
        world.clear_requests();
        for _ in 0..3 {
            let end = scene.run().await;
            assert_eq!((end.counts.disappeared, end.status.removed), (0, 0), "{record}");
            let (reason, action) = (end.status.reason.unwrap(), end.status.action.unwrap());
            assert!(reason.contains("nobody is removed as long as it does"), "{reason}");
            assert!(action.contains("--kind record_unreadable"), "{action}");
        }
        assert_eq!(world.writes().len(), 1, "the new user is delivered all the same");
        let events = scene.events(EventKind::RecordUnreadable);
        assert_eq!(events.len(), 1, "named once, not at every poll");
        assert!(events[0].reason.as_ref().unwrap().contains("record"), "{events:?}");
        assert_eq!(world.accounts().len(), 21);

        // It can be read again: two complete polls, and the two are gone.
        world.remove_person(&unreadable.id);
        assert_eq!(scene.run_to_the_end().await.counts.disappeared, 0);
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.disappeared, end.counts.deleted), (2, 2));
        assert_eq!(end.status.reason, None);
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_removals_that_wait_because_of_a_record_without_an_id_are_not_silent() {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    for person in &world.people()[..8] {
        world.remove_person(&person.id);
    }
    scene.run().await;
    assert_eq!(scene.run().await.status.held, 8);
    let mut unreadable = Person::with_email("");
    unreadable.raw = Some(json!({"id": null}));
    world.add_person(unreadable.clone());
    scene.act(|store| store.approve(jiff::Timestamp::now())).await;
    let end = scene.run().await;
    assert_eq!((end.status.held, end.status.removed), (0, 0));
    assert!(end.status.reason.unwrap().contains("8 approved removals wait"));
    world.remove_person(&unreadable.id);
    let end = scene.run().await;
    assert_eq!((end.status.removed, end.status.reason), (8, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn page_tokens_that_die_faster_than_pages_come_end_the_run_and_forget_nobody() {
    for status in [400, 404] {
        let scene = Scene::with_people(60).await;
        let world = scene.world();
        scene.run_to_the_end().await;
        scene.behave(|behaviour| {
            behaviour.torq_page_cap = 7;
            behaviour.stale_token_status = status;
        });
        // Before every page, on both listings.
        for page in 0..60 {
            world.before(Endpoint::TorqUsers, page, |world| world.expire_page_tokens());
        }
        world.clear_requests();
        let end = scene.run().await;
        assert_eq!(end.outcome, RunOutcome::Failed);
        assert_eq!(refusal(&end).0, Peer::Torq);
        assert!(end.status.progress.is_none(), "the next poll begins afresh");
        assert!(world.count(Endpoint::TorqUsers) < 30, "not for ever");
        assert!(world.writes().is_empty());
        while world
            .requests()
            .iter()
            .filter(|one| one.endpoint == Endpoint::TorqUsers)
            .count()
            < 60
        {
            scene.run().await;
        }
        let end = scene.run_to_the_end().await;
        assert_eq!((end.status.users, end.status.removed), (60, 0));
        assert!(scene.events(EventKind::UserDisappeared).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_goes_stale_on_either_listing_starts_that_listing_again() {
    for sso_share in [0.1, 0.9] {
        let scene = Scene::new(Options {
            people: 50,
            sso_share,
            ..Options::default()
        })
        .await;
        let world = scene.world();
        scene.behave(|behaviour| behaviour.torq_page_cap = 5);
        world.before(Endpoint::TorqUsers, 6, |world| world.expire_page_tokens());
        let end = scene.run_to_the_end().await;
        assert_eq!(
            (end.status.users, end.counts.appeared),
            (50, 50),
            "nobody appears twice"
        );
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_who_swap_their_e_mails_while_a_poll_runs_keep_both_accounts() {
    let mut scene = Scene::with_people(40).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.behave(|behaviour| behaviour.torq_page_cap = 5);
    scene.run_to_the_end().await;
    let accounts = world.accounts();
    for round in 0..4 {
        let people = world.people();
        // One of them is read before they swap, the other one after.
        let local: Vec<_> = people.iter().filter(|person| !person.sso_provision).collect();
        let (first, last) = (local[0].clone(), local[local.len() - 1].clone());
        world.before(Endpoint::TorqUsers, 3 + round, move |world| {
            world.update_person(&first.id, |one| one.email = last.email.clone());
            world.update_person(&last.id, |one| one.email = first.email.clone());
        });
        scene.run_to_the_end().await;
        scene.run_to_the_end().await;
        assert_eq!(
            world.accounts(),
            accounts,
            "no account was made, deleted or changed owner"
        );
        assert_in_step(&scene);
    }
    for _ in 0..2 {
        scene.run_to_the_end().await;
    }
    assert_eq!(world.accounts(), accounts);
    assert!(scene.events(EventKind::UserDisappeared).is_empty());
}
