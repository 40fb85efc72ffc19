//! E-mails that change, all at once, step by step, or only in one of the two listings; and ids that mean somebody else all of a
//! sudden.

use jiff::Timestamp;
use serde_json::json;
use torq_connector::sandbox::{Endpoint, Options, Person, WorldHandle};
use torq_connector::view::{AccountStanding, ConnectorState, EventKind, RunCounts};

use crate::world::{Scene, assert_in_step, writes};

/// A workspace in step under `delete`, half of whose accounts were there before.
async fn workspace(people: usize) -> Scene {
    let mut scene = Scene::new(Options {
        people,
        existing_share: 0.5,
        ..Options::default()
    })
    .await;
    scene.set("REMOVALS", "delete");
    scene.run_to_the_end().await;
    scene.world().clear_requests();
    scene
}

/// Gives these people an e-mail of another domain.
fn move_to(world: &WorldHandle, people: &[Person], domain: &str) {
    for person in people {
        let (local, _) = person.email.split_once('@').unwrap();
        world.update_person(&person.id, |one| one.email = format!("{local}@{domain}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_changes_its_domain_gets_new_accounts_and_loses_none_unasked() {
    for comes_back in [false, true] {
        let scene = workspace(30).await;
        let world = scene.world();
        let before = world.people();
        let ours = scene
            .users()
            .iter()
            .filter(|one| one.account == AccountStanding::Created)
            .count();
        move_to(&world, &before, "renamed.example");
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.changed, end.counts.created), (30, 30));
        assert_eq!(
            (end.status.users, end.status.held),
            (30, 0),
            "nobody is new, and nobody is missing"
        );
        for _ in 0..3 {
            let end = scene.run().await;
            assert_eq!(end.status.state, ConnectorState::Held);
            assert_eq!(
                end.status.held, ours as u64,
                "of the old accounts, those that could be deleted"
            );
        }
        assert_eq!(world.count(Endpoint::AccountDelete), 0);
        assert_eq!(world.accounts().len(), 60);
        assert!(scene.events(EventKind::UserDisappeared).is_empty());
        assert_in_step(&scene);

        let names = |people: &[Person]| people.iter().filter(|one| scene.account(&one.email).is_some()).count();
        if comes_back {
            for person in &before {
                world.update_person(&person.id, |one| one.email.clone_from(&person.email));
            }
            // It was a mistake: everybody has their old account again, and the new ones are too many to go unasked.
            assert_eq!(scene.run().await.counts.created, 0);
            let end = scene.run().await;
            assert_eq!((end.status.held, end.counts.deleted), (30, 0));
        }
        let held = scene.status().held;
        assert_eq!(scene.act(|store| store.approve(Timestamp::now())).await, held);
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.deleted, end.status.held), (held, 0));
        assert_eq!(end.status.state, ConnectorState::Connected);
        assert_eq!(names(&before), if comes_back { 30 } else { 30 - ours });
        assert_eq!(names(&world.people()), 30);
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_changes_its_domain_step_by_step_is_held_when_a_day_brings_too_many() {
    let scene = workspace(40).await;
    let world = scene.world();
    let users = scene.users();
    let ours: Vec<_> = world
        .people()
        .into_iter()
        .filter(|person| {
            users
                .iter()
                .any(|one| one.id == person.id && one.account == AccountStanding::Created)
        })
        .collect();
    for (step, some) in ours.chunks(2).take(4).enumerate() {
        move_to(&world, some, "renamed.example");
        for _ in 0..2 {
            scene.run().await;
        }
        let gone = writes(&scene, Endpoint::AccountDelete).len();
        assert_eq!(gone, [2, 4, 4, 4][step], "five a day");
    }
    assert_eq!(scene.status().held, 4);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_torq_gives_to_somebody_else_leaves_the_first_persons_account_alone_for_two_polls() {
    let scene = workspace(20).await;
    let world = scene.world();
    let users = scene.users();
    let somebody = |standing| users.iter().find(|one| one.account == standing).unwrap().clone();
    for (before, deleted) in [
        (somebody(AccountStanding::Created), 1),
        (somebody(AccountStanding::Found), 1),
    ] {
        world.update_person(&before.id, |one| {
            *one = Person {
                id: one.id.clone(),
                ..Person::with_email(&format!("somebody.else.{}", before.email))
            };
        });
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.changed, end.counts.created, end.counts.appeared), (1, 1, 0));
        assert!(scene.account(&before.email).is_some());
        let event = scene.events(EventKind::UserChanged).pop().unwrap();
        let told = (event.user_id, event.before.unwrap()["email"].clone());
        assert_eq!(
            told,
            (Some(before.id.clone()), json!(before.email)),
            "who they were is not lost"
        );
        scene.run_to_the_end().await;
        assert_eq!(
            scene.account(&before.email).is_none(),
            before.account == AccountStanding::Created
        );
        assert_eq!(writes(&scene, Endpoint::AccountDelete).len(), deleted);
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_both_listings_with_different_data_is_the_one_whom_the_identity_provider_knows() {
    // Some pages: one of the doubles is met early in one listing and late in the other, the other one the other way round.
    let scene = workspace(400).await;
    let world = scene.world();
    let people = world.people();
    let doubles = [
        (
            people.iter().rfind(|one| one.sso_provision).unwrap(),
            "the.first@example.com",
        ),
        (
            people.iter().find(|one| !one.sso_provision).unwrap(),
            "the.second@example.com",
        ),
    ];
    for (person, email) in &doubles {
        let mut other = Person::with_email(email);
        // The same id again, in the other listing.
        other.sso_provision = !person.sso_provision;
        other.raw = Some(json!({"id": person.id, "email": email, "sso_provision": other.sso_provision}));
        world.add_person(other);
    }
    let [(first, their_other), (second, counts)] = doubles;
    for poll in 0..8 {
        let end = scene.run_to_the_end().await;
        assert_eq!(end.status.users, 400);
        assert!(
            poll < 2 || end.counts == RunCounts::default(),
            "poll {poll}: {:?}",
            end.counts
        );
        assert_eq!(scene.user(&first.id).email, first.email, "poll {poll}");
        assert_eq!(scene.user(&second.id).email, counts, "poll {poll}");
    }
    assert!(scene.account(their_other).is_none());
    assert!(scene.account(counts).is_some());
    // At most the account that the second had under the e-mail that counts no more.
    assert!(world.count(Endpoint::AccountDelete) <= 1);
    assert!(scene.events(EventKind::UserDisappeared).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_that_changes_its_unicode_form_is_another_one_and_takes_nobody_elses_account() {
    let (composed, decomposed) = ("zo\u{eb}@example.com", "zoe\u{308}@example.com");
    let scene = workspace(10).await;
    let world = scene.world();
    let person = Person::with_email(composed);
    world.add_person(person.clone());
    scene.run_to_the_end().await;
    let account = scene.account(composed).unwrap();
    world.clear_requests();
    world.update_person(&person.id, |one| one.email = decomposed.to_owned());
    scene.run_to_the_end().await;
    assert_eq!(
        scene.account(composed),
        Some(account),
        "one poll without it is an accident"
    );
    assert_in_step(&scene);
    // There and back again, it keeps the account that it had.
    world.update_person(&person.id, |one| one.email = composed.to_owned());
    for _ in 0..2 {
        scene.run_to_the_end().await;
    }
    assert!(scene.account(decomposed).is_none());
    assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 1);
    assert_in_step(&scene);
}
