//! Accounts that were there before: adopted, and neither made a second time nor harmed.

use torq_connector::sandbox::{Account, Endpoint, Options, Person};
use torq_connector::view::AccountStanding;

use crate::world::{Scene, assert_in_step, writes};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_were_there_are_adopted_and_none_is_made_twice() {
    let scene = Scene::new(Options {
        people: 50,
        existing_share: 0.4,
        mixed_case_share: 0.5,
        anonymous_accounts: 5,
        ..Options::default()
    })
    .await;
    let world = scene.world();
    world.add_account(Account {
        email: Some("somebody.else@example.net".to_owned()),
        ..Account::default()
    });
    let (before, others) = (world.accounts(), scene.accounts_of_others());
    assert_eq!((before.len(), others.len()), (26, 6));

    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (20, 30));
    assert_in_step(&scene);
    assert_eq!(world.accounts().len(), 56);
    // Theirs had their directory users already: no adopted account was written to at all.
    let after = world.accounts();
    assert!(before.iter().all(|account| after.contains(account)));
    assert_eq!(scene.accounts_of_others(), others);
    assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 30);
    assert!(writes(&scene, Endpoint::AccountAssociate).is_empty());

    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts, Default::default());
    assert!(world.writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_in_another_case_or_with_only_a_user_name_is_the_same_account() {
    let scene = Scene::new(Options {
        people: 20,
        directory_share: 0.5,
        application_exists: Some(true),
        ..Options::default()
    })
    .await;
    let world = scene.world();
    let people = world.people();
    // A server that would make duplicates, so that only adoption can prevent them.
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    for person in &people[..4] {
        world.add_account(Account {
            email: Some(person.email.to_uppercase()),
            ..Account::default()
        });
    }
    for person in &people[4..8] {
        world.add_account(Account {
            username: Some(person.email.clone()),
            ..Account::default()
        });
    }
    let nameless = [
        Account::default(),
        Account {
            email: Some(String::new()),
            username: Some(String::new()),
            ..Account::default()
        },
    ];
    let nameless = nameless.map(|account| world.add_account(account));
    let before = world.accounts();

    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (8, 12));
    assert_in_step(&scene);
    for id in nameless {
        let of = |accounts: &[Account]| accounts.iter().find(|account| account.id == id).cloned();
        assert_eq!(of(&world.accounts()), of(&before));
    }
    for person in &people[..8] {
        assert_eq!(scene.user(&person.id).account, AccountStanding::Found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_whose_account_was_there_all_the_time_gets_no_second_one() {
    let scene = Scene::with_people(5).await;
    let world = scene.world();
    // A server that would make duplicates, so that only adoption can prevent them.
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    let theirs = world.add_account(Account {
        email: Some("new.colleague@example.com".to_owned()),
        ..Account::default()
    });
    // One process, so that the second run knows what the first one has read a moment ago.
    let connector = scene.connector().await;
    connector.run().await.unwrap();
    let person = Person::with_email("New.Colleague@example.com");
    world.add_person(person.clone());
    let end = connector.run().await.unwrap();
    drop(connector);
    assert_eq!((end.counts.found, end.counts.created), (1, 0));
    assert_eq!(scene.user(&person.id).account_id, Some(theirs));
    assert_in_step(&scene);
}
