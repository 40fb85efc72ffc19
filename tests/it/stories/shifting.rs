//! JumpCloud's lists that change while they are read, and rows that are not what they should be. The server of these stories
//! would make a second account without complaint, so only a list that was read to its end prevents one.

use torq_connector::http::FailureKind;
use torq_connector::model::Peer;
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, ListShape, Options, WorldHandle};
use torq_connector::view::{AccountStanding, EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, refusal, writes};

/// Everybody has an account, some of them belong to nobody in Torq, and pages are short.
async fn full(people: usize, others: usize) -> Scene {
    let scene = Scene::new(Options {
        people,
        application_exists: Some(true),
        directory_share: 0.0,
        ..Options::default()
    })
    .await;
    let world = scene.world();
    scene.behave(|behaviour| {
        behaviour.accept_duplicates = true;
        behaviour.list_cap = 10;
    });
    for number in 0..others {
        let email = Some(format!("other{number}@example.net"));
        world.add_account(Account {
            email,
            ..Account::default()
        });
    }
    for person in world.people() {
        let email = Some(person.email);
        world.add_account(Account {
            email,
            ..Account::default()
        });
    }
    scene
}

fn delete_front(world: &WorldHandle, count: usize) {
    for account in &world.accounts()[..count] {
        world.delete_account(&account.id);
    }
}

fn accounts_with(raw: &str) -> Fault {
    Fault::Status {
        status: 200,
        retry_after: None,
        body: raw.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_slides_over_a_page_boundary_is_not_missed() {
    // One, a few, a whole page, several pages of others go before each of the pages in turn.
    for gone in [1, 3, 10, 25] {
        for page in 1..6 {
            let scene = full(30, 30).await;
            let world = scene.world();
            world.before(Endpoint::Accounts, page, move |world| delete_front(world, gone));
            let end = scene.run_to_the_end().await;
            assert_eq!(
                (end.counts.found, end.counts.created),
                (30, 0),
                "{gone} before page {page}"
            );
            assert!(world.writes().is_empty());
            assert_in_step(&scene);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_and_go_at_every_page_cost_nobody_a_second_account() {
    let scene = full(30, 40).await;
    let world = scene.world();
    for page in 1..12 {
        world.before(Endpoint::Accounts, page, move |world| {
            delete_front(world, 1 + page % 3);
            let email = Some(format!("newcomer{page}@example.net"));
            // Its id puts it in front of all others.
            world.add_account(Account {
                id: format!("{page:024x}"),
                email,
                ..Account::default()
            });
        });
    }
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (30, 0));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_shrinks_to_nothing_while_it_is_read_is_read_from_the_front() {
    let scene = full(0, 30).await;
    let world = scene.world();
    world.before(Endpoint::Accounts, 2, move |world| delete_front(world, 30));
    scene.run_to_the_end().await;
    assert!(world.accounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_slides_over_a_page_boundary_is_not_made_a_second_time() {
    let scene = Scene::new(Options {
        people: 3,
        other_applications: 25,
        application_exists: Some(true),
        ..Options::default()
    })
    .await;
    let world = scene.world();
    scene.behave(|behaviour| {
        behaviour.list_cap = 26;
        behaviour.accept_duplicate_applications = true;
    });
    // It is the last of 26. The first page ends in front of it, and then one in front goes.
    world.before(Endpoint::Applications, 0, |world| {
        world.behave(|behaviour| behaviour.list_cap = 25)
    });
    world.before(Endpoint::Applications, 1, |world| {
        let first = world.applications().remove(0);
        world.delete_other_application(&first.id);
    });
    let connector = scene.connector().await;
    connector.run().await.unwrap();
    drop(connector);
    let torq = world
        .applications()
        .into_iter()
        .filter(|one| one.catalog_app_id == "torq");
    assert_eq!(torq.count(), 1);
    assert_eq!(world.count(Endpoint::ApplicationCreate), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes_and_caps_that_change_from_page_to_page_are_read() {
    let scene = full(45, 0).await;
    let world = scene.world();
    for page in 0..30 {
        world.before(Endpoint::Accounts, page, move |world| {
            world.behave(|behaviour| {
                behaviour.accounts_shape = if page % 2 == 0 {
                    ListShape::Bare
                } else {
                    ListShape::Envelope
                };
                behaviour.list_cap = [7, 1, 2, 10, 3][page % 5];
            });
        });
    }
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (45, 0));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_page_that_is_repeated_for_ever_ends_the_run_and_nothing_is_created() {
    let scene = full(30, 0).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.first_page_only = true);
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Failed);
    assert_eq!(refusal(&end), (Peer::JumpCloud, FailureKind::Unintelligible));
    let text = end.halt.unwrap().to_string();
    assert!(
        text.contains("repeats itself") && text.contains("list accounts"),
        "{text}"
    );
    assert!(world.writes().is_empty());
    assert!(
        world.count(Endpoint::Accounts) < 20,
        "{}",
        world.count(Endpoint::Accounts)
    );

    scene.behave(|behaviour| behaviour.first_page_only = false);
    assert_eq!(scene.run_to_the_end().await.status.accounts, 30);
    assert_in_step(&scene);
    assert!(world.writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lies_that_it_is_empty_costs_no_second_account_where_jumpcloud_refuses_one() {
    let scene = full(12, 0).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = false);
    for lie in ["[]", r#"{"results":[],"totalCount":0}"#] {
        world.fault(FaultRule::once(Endpoint::Accounts, accounts_with(lie)));
        let end = scene.run_to_the_end().await;
        assert_eq!(end.counts.created, 0);
        assert_in_step(&scene);
        for user in scene.users() {
            assert_eq!(
                user.account,
                AccountStanding::Found,
                "somebody else's, as it was before"
            );
        }
        std::fs::remove_dir_all(scene.state_dir()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lies_that_it_is_empty_makes_nobody_pending_whose_account_is_known() {
    let scene = full(12, 0).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    world.clear_requests();
    world.fault(FaultRule::always(Endpoint::Accounts, accounts_with("[]")));
    assert_eq!(scene.run_to_the_end().await.counts, Default::default());
    assert!(world.writes().is_empty());
    assert_eq!(world.count(Endpoint::AccountGet), 12, "each is asked for by its id");
    assert!(scene.events(EventKind::AccountLost).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_given_to_somebody_else_is_lost_to_its_user() {
    let mut scene = Scene::with_people(6).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    let people = world.people();
    let (theirs, other) = (people[0].clone(), "other@example.net");
    let account = scene.account(&theirs.email).unwrap();
    world.update_account(&account.id, |account| account.email = Some(other.to_owned()));
    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.created, 1, "they have none any more, and get one");
    let lost = scene.events(EventKind::AccountLost);
    assert_eq!(lost.len(), 1);
    assert!(lost[0].reason.as_ref().unwrap().contains("another e-mail"), "{lost:?}");
    assert_in_step(&scene);

    // And when the first one leaves, what was their account is not ours to delete any more.
    world.remove_person(&theirs.id);
    for _ in 0..2 {
        scene.run_to_the_end().await;
    }
    assert!(scene.account(&theirs.email).is_none());
    assert_eq!(scene.account(other).unwrap().id, account.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_given_to_somebody_else_since_the_last_look_is_not_deleted() {
    let mut scene = Scene::with_people(6).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    let gone = world.people()[0].clone();
    let account = scene.account(&gone.email).unwrap();
    world.remove_person(&gone.id);
    // One process, which has read the accounts and does not read them again today.
    let connector = scene.connector().await;
    connector.run().await.unwrap();
    world.update_account(&account.id, |account| {
        account.email = Some("heir@example.net".to_owned())
    });
    let end = connector.run().await.unwrap();
    drop(connector);
    assert_eq!((end.counts.disappeared, end.counts.deleted), (1, 0), "{end:?}");
    assert!(scene.account("heir@example.net").is_some());
    assert!(writes(&scene, Endpoint::AccountDelete).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_for_one_e_mail_stay_two_and_none_is_added_or_deleted() {
    let mut scene = full(4, 0).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    let person = world.people()[0].clone();
    world.add_account(Account {
        email: Some(person.email.to_uppercase()),
        ..Account::default()
    });
    let of = |world: &WorldHandle| {
        let accounts = world.accounts().into_iter();
        accounts
            .filter(|one| {
                one.email
                    .as_ref()
                    .is_some_and(|email| email.eq_ignore_ascii_case(&person.email))
            })
            .map(|one| one.id)
            .collect::<Vec<_>>()
    };
    let before = of(&world);
    let connector = scene.connector().await;
    for _ in 0..2 {
        connector.run().await.unwrap();
    }
    drop(connector);
    assert_eq!(of(&world), before);
    assert!(world.writes().is_empty());
    let known = scene.user(&person.id).account_id.unwrap();
    assert_eq!(known, before[0]);
    // The one that is known goes; the other takes its place.
    world.delete_account(&known);
    let connector = scene.connector().await;
    connector.run().await.unwrap();
    drop(connector);
    assert_eq!(scene.user(&person.id).account_id.as_ref(), Some(&before[1]));
    assert!(world.writes().is_empty());
    world.remove_person(&person.id);
    let connector = scene.connector().await;
    for _ in 0..2 {
        connector.run().await.unwrap();
    }
    assert_eq!(of(&world), before[1..], "they were there before us");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_with_two_e_mails_makes_no_second_account_for_either() {
    let scene = full(3, 0).await;
    let world = scene.world();
    let people = world.people();
    let rows = format!(
        r#"[{{"id":"a1","email":"{}"}},{{"id":"a1","email":"{}"}},{{"id":"a2","email":"{}"}}]"#,
        people[0].email, people[1].email, people[2].email
    );
    world.fault(FaultRule::once(Endpoint::Accounts, accounts_with(&rows)));
    world.fault(FaultRule::always(Endpoint::Accounts, accounts_with("[]")));
    scene.run().await;
    assert!(writes(&scene, Endpoint::AccountCreate).is_empty());
    world.clear_faults();
    // Once the list has come to itself, so has what is known.
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert!(writes(&scene, Endpoint::AccountCreate).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_read_hide_no_other_and_their_e_mails_get_no_second_account() {
    let scene = full(6, 0).await;
    let world = scene.world();
    let people = world.people();
    let newcomers = world.add_people(2);
    let email = |n: usize| people[n].email.clone();
    let ids: Vec<_> = people
        .iter()
        .map(|person| scene.account(&person.email).unwrap().id)
        .collect();
    let rows = serde_json::json!([
        {"id": ids[0], "email": email(0), "surprise": {"deep": [1, 2]}},
        {"id": 5, "email": email(1), "user_id": {"odd": true}},
        {"id": null, "email": email(2)},
        {"id": ["x"], "username": email(3)},
        {"id": ids[4], "email": {"address": email(4)}, "username": email(4)},
        "not an object",
        null,
        {},
        {"id": ids[5], "email": email(5)},
    ])
    .to_string();
    world.fault(FaultRule::once(Endpoint::Accounts, accounts_with(&rows)));
    world.fault(FaultRule::always(Endpoint::Accounts, accounts_with("[]")));
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Partial);
    let standing = |n: usize| scene.user(&people[n].id).account;
    for n in [0, 1, 5] {
        assert_eq!(
            standing(n),
            AccountStanding::Found,
            "{n}: odd fields hide no account, and a number is an id"
        );
    }
    for n in [2, 3, 4] {
        assert_eq!(standing(n), AccountStanding::Parked, "{n}");
        let reason = scene.user(&people[n].id).reason.unwrap();
        assert!(reason.contains("cannot be read"), "{reason}");
    }
    assert_eq!(end.counts.created, 2, "the newcomers are not kept waiting");
    assert!(newcomers.iter().all(|person| scene.account(&person.email).is_some()));

    // It can be read again: adopted, without anybody's help.
    world.clear_faults();
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_which_no_row_can_be_read_is_another_api_and_nothing_is_created() {
    let scene = full(8, 0).await;
    let world = scene.world();
    let rows = serde_json::json!([{"_id": "a", "email": "x@example.com"}, {"_id": "b", "email": "y@example.com"}]);
    world.fault(FaultRule::always(Endpoint::Accounts, accounts_with(&rows.to_string())));
    let end = scene.run().await;
    assert_eq!(refusal(&end), (Peer::JumpCloud, FailureKind::Unintelligible));
    assert!(world.writes().is_empty());
    world.clear_faults();
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_account_whose_row_cannot_be_read_any_more_stays_known() {
    let scene = full(3, 0).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    let accounts = world.accounts();
    let rows = serde_json::json!([
        {"id": accounts[0].id, "email": {"odd": 1}},
        {"id": accounts[1].id, "email": accounts[1].email},
        {"id": accounts[2].id, "email": accounts[2].email},
    ])
    .to_string();
    world.clear_requests();
    world.fault(FaultRule::once(Endpoint::Accounts, accounts_with(&rows)));
    world.fault(FaultRule::always(Endpoint::Accounts, accounts_with("[]")));
    assert_eq!(scene.run_to_the_end().await.counts, Default::default());
    assert!(world.writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_ignores_the_filter_is_searched_to_its_end() {
    let scene = Scene::new(Options {
        people: 0,
        directory_share: 1.0,
        other_directory_users: 250,
        ..Options::default()
    })
    .await;
    // Behind all the others.
    scene.world().add_people(30);
    scene.behave(|behaviour| behaviour.search_ignores_filter = true);
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}
