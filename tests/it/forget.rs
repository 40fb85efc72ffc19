//! `forget`, by the real binary: somebody who left is in no file any more, with a daemon and without one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use torq_connector::sandbox::{Person, Sandbox};

use crate::binary::{Connector, Place, eventually, sandbox};

/// A place that knows some people, one of whom has left.
async fn left(sandbox: &Sandbox) -> (Place, Person) {
    let place = Place::new(&[Connector::new("main", sandbox)]);
    place.run(&["sync"]).await.exits(0);
    let person = sandbox.world().people().remove(3);
    sandbox.world().remove_person(&person.id).unwrap();
    for _ in 0..3 {
        place.run(&["sync"]).await.exits(0);
    }
    (place, person)
}

/// The files of the state in which a text is.
fn found(place: &Place, text: &str) -> Vec<String> {
    let text = text.to_lowercase().into_bytes();
    let holds = |bytes: &[u8]| {
        let bytes = bytes.to_ascii_lowercase();
        bytes.windows(text.len()).any(|window| window == text)
    };
    let files = place.files().into_iter().filter(|(_, bytes)| holds(bytes));
    files.map(|(path, _)| path.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_left_is_forgotten_to_the_last_byte() {
    let sandbox = sandbox(12).await;
    let (place, person) = left(&sandbox).await;
    for name in [&person.email, &person.id] {
        assert!(!found(&place, name).is_empty(), "{name}");
    }
    let before = place.run(&["users", "main", "--format", "json"]).await.exits(0).json();
    let asked = place.run(&["forget", "main", &person.email]).await.exits(64);
    asked.tells(&["It cannot be undone.", "add --yes"]);
    assert!(!found(&place, &person.email).is_empty());

    sandbox.world().clear_requests();
    let ran = place.run(&["forget", "main", &person.email, "--yes"]).await.exits(0);
    let ran = ran.tells(&[
        &format!("the record of {}", person.id),
        "is forgotten",
        "JumpCloud has an account for them still",
        "copies elsewhere (backups, ",
    ]);
    assert_eq!(ran.out, "");
    for name in [&person.email, &person.id] {
        assert_eq!(found(&place, name), [""; 0], "{name}");
    }
    assert!(sandbox.world().requests().is_empty(), "nobody is asked");
    let after = place.run(&["users", "main", "--format", "json"]).await.exits(0).json();
    assert_eq!(before, after, "everybody else is as before");
    let events = place.run(&["events", "main"]).await.exits(0);
    events
        .shows(&["somebody who left Torq was forgotten"])
        .hides(&[&person.email]);

    place.run(&["sync"]).await.exits(0);
    assert_eq!(
        found(&place, &person.email),
        [""; 0],
        "their account in JumpCloud is none of ours"
    );
    let again = place.run(&["forget", "main", &person.email, "--yes"]).await.exits(0);
    again.tells(&["nothing is known of"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_forgets_somebody_while_it_works() {
    let sandbox = sandbox(12).await;
    let (place, person) = left(&sandbox).await;
    let mut daemon = place.daemon().await;
    daemon.status("main", |status| !status["last_success"].is_null()).await;
    let stays = sandbox.world().people().remove(0);
    let refused = place.run(&["forget", "main", &stays.email, "--yes"]).await.exits(75);
    refused.tells(&[
        "is not forgotten: they count as a user still",
        &stays.id,
        "remove them in Torq first",
    ]);
    let ran = place.run(&["forget", "main", &person.id, "--yes"]).await.exits(0);
    ran.tells(&["is forgotten"]);
    assert_eq!(found(&place, &person.email), [""; 0]);
    place.run(&["sync", "main"]).await.exits(0);
    assert_eq!(found(&place, &person.email), [""; 0]);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.0, 0);
    assert!(!daemon.said().contains(&person.email));
    eventually("the daemon is gone", async || {
        (found(&place, &person.email).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_there_is_nobody_to_forget() {
    let sandbox = sandbox(1).await;
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let ran = place
        .run(&["forget", "main", "zoe@example.com", "--yes"])
        .await
        .exits(0);
    ran.tells(&["main: nothing is known of zoe@example.com"]);
    assert!(place.files().is_empty(), "none is made for it");
    place
        .run(&["forget", "other", "zoe@example.com"])
        .await
        .exits(64)
        .tells(&["no connector other"]);
    place.run(&["sync"]).await.exits(0);
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    place
        .run(&["forget", "main", "zoe@example.com"])
        .await
        .exits(75)
        .tells(&["was removed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_does_not_say_of_an_account_that_was_ours_that_it_never_was() {
    let sandbox = sandbox(12).await;
    let (place, person) = left(&sandbox).await;
    place.run(&["forget", "main", &person.email, "--yes"]).await.exits(0);
    let shown = place.run(&["remove", "main"]).await.exits(64);
    shown.tells(&[
        "11 accounts that this connector created are deleted",
        "1 account that this connector created for somebody who is not known any more stays",
    ]);
    let ran = place.run(&["remove", "main", "--yes"]).await.exits(0);
    assert!(!ran.err.contains("did not create"), "{}", ran.err);
    let left: Vec<_> = sandbox
        .world()
        .accounts()
        .into_iter()
        .filter_map(|account| account.email)
        .collect();
    assert_eq!(left, [person.email]);
}
