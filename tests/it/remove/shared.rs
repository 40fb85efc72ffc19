//! Two connectors to one application: nothing is deleted that the other one needs.

use super::*;

/// Two Torq workspaces in one JumpCloud organisation; one person is in both.
struct Pair {
    one: Sandbox,
    two: Sandbox,
    place: Place,
    both: String,
}

async fn pair() -> Pair {
    let one = sandbox(6).await;
    let options = Options {
        people: 4,
        seed: 77,
        torq_rate: 0,
        jumpcloud_rate: 0,
        ..Options::default()
    };
    let two = Sandbox::start(options).await.unwrap();
    let person = one.world().people()[0].clone();
    two.world().add_person(person.clone());
    let second = Connector::new("two", &two)
        .with("jumpcloud.console_url", one.console_url())
        .with("jumpcloud.token_url", one.jumpcloud_token_url());
    let place = Place::new(&[Connector::new("one", &one), second]);
    place.run(&["sync", "one"]).await.exits(0);
    place.run(&["sync", "two"]).await.exits(0);
    Pair {
        one,
        two,
        place,
        both: person.email.to_lowercase(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_another_connectors_user_has_stays_and_so_does_the_application() {
    for with_daemon in [false, true] {
        let Pair { one, two, place, both } = pair().await;
        let world = one.world();
        assert_eq!(world.accounts().len(), 6 + 4);
        let daemon = match with_daemon {
            true => {
                let daemon = place.daemon().await;
                daemon.state("one", "connected").await;
                daemon.state("two", "connected").await;
                Some(daemon)
            }
            false => None,
        };
        let ran = place.run(&["remove", "one", "--yes"]).await.exits(0);
        ran.tells(&[
            "5 accounts that this connector created are deleted",
            "stays: another connector delivers to it: two",
            "1 account that this connector created stays: the users of two have them, too",
            "one: 5 accounts deleted",
        ]);
        let mut left = people_emails(&two.world());
        left.sort();
        assert_eq!(account_emails(&world), left);
        assert!(left.contains(&both));
        // The other one goes on as if nothing had happened.
        world.clear_requests();
        place.run(&["sync", "two"]).await.exits(0).tells(&["nothing changed"]);
        assert!(world.writes().is_empty());

        // The last one takes what it made. What it found stays, and with it the application.
        place.run(&["remove", "two", "--yes"]).await.exits(0);
        assert_eq!(account_emails(&world), [both]);
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_long_as_it_is_not_known_what_the_other_one_needs_nothing_is_deleted() {
    let Pair { one, place, .. } = pair().await;
    let world = one.world();
    let state = std::fs::read(place.path("state/two.db")).unwrap();
    place.write(
        "state/two.db",
        "this is no database, but some text that somebody put here",
    );
    world.clear_requests();
    place.run(&["remove", "one", "--yes"]).await.exits(75).tells(&[
        "whether the connector two needs",
        "two.db is damaged",
        "--keep-accounts",
    ]);
    assert!(world.writes().is_empty());
    let status = place.run(&["status", "one", "--format", "json"]).await.exits(0).json();
    assert_eq!(status["connectors"][0]["state"], "connected", "nothing was begun");
    std::fs::write(place.path("state/two.db"), state).unwrap();
    place.run(&["remove", "one", "--yes"]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_is_removed_needs_nothing_any_more() {
    let Pair { one, place, both, .. } = pair().await;
    let world = one.world();
    place.run(&["remove", "two", "--yes", "--keep-accounts"]).await.exits(0);
    let ran = place.run(&["remove", "one", "--yes"]).await.exits(0);
    ran.tells(&[
        "one: 6 accounts deleted",
        "stays: 4 accounts that this connector did not create are in it",
    ]);
    assert!(!account_emails(&world).contains(&both));
    assert_eq!(world.accounts().len(), 4);
}
