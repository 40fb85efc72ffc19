//! What a dry run says of what is held, paused or filtered, and in which words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use torq_connector::sandbox::Person;

use super::place;
use crate::binary::{Connector, Place, sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_held_connector_says_what_stays_held() {
    let sandbox = sandbox(10).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for person in sandbox.world().people() {
        sandbox.world().remove_person(&person.id);
    }
    place.run(&["sync"]).await;
    place.run(&["sync"]).await.exits(75);
    place.run(&["sync", "--dry-run"]).await.exits(0).shows(&[
        "main: nothing would change",
        "afterwards: 10 held",
        "10 removals held already",
        "torq-connector approve main",
    ]);
    let preview = place.run(&["sync", "--dry-run", "--format", "json"]).await.json();
    assert_eq!(preview["connectors"][0]["counts"]["held"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_who_would_be_pending_still() {
    let sandbox = sandbox(6).await;
    sandbox
        .world()
        .behave(|behaviour| behaviour.account_create_refused = Some(405));
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(75);
    let preview = place
        .run(&["sync", "--dry-run", "--format", "json"])
        .await
        .exits(0)
        .json();
    let counts = &preview["connectors"][0]["counts"];
    assert_eq!((&counts["pending"], &counts["created"]), (&6.into(), &0.into()));
    sandbox
        .world()
        .behave(|behaviour| behaviour.account_create_refused = None);
    place.run(&["retry", "main"]).await.exits(0);
    let preview = place
        .run(&["sync", "--dry-run", "--format", "json"])
        .await
        .exits(0)
        .json();
    let counts = &preview["connectors"][0]["counts"];
    assert_eq!((&counts["pending"], &counts["created"]), (&0.into(), &6.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_filters_leave_out_is_said_everywhere() {
    let sandbox = sandbox(4).await;
    for number in 0..3 {
        let person = Person::with_email(&format!("temp{number}@contractor.example"));
        sandbox.world().add_person(person);
    }
    let filters = |excluded: &str| {
        let sections = format!("[connectors.main.users]\nexclude_emails = [{excluded}]\n");
        (sections, Connector::new("main", &sandbox))
    };
    let (sections, connector) = filters("\"*@contractor.example\"");
    let place = Place::with(&sections, &[connector]);
    place
        .run(&["sync", "--dry-run"])
        .await
        .exits(0)
        .shows(&["the filters leave 3 users out"]);
    place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["main: 7 users; 7 new, 4 accounts created", "3 filtered"]);
    place.run(&["status"]).await.exits(0).shows(&["FILTERED"]);

    // Another filter: one more is let in, and one more left out.
    let one = sandbox.world().people()[0].email.clone();
    let one = if one.contains("contractor") {
        sandbox
            .world()
            .people()
            .into_iter()
            .map(|person| person.email)
            .find(|email| !email.contains("contractor"))
            .unwrap()
    } else {
        one
    };
    let (sections, connector) = filters(&format!("\"temp0@*\", \"temp1@*\", \"{one}\""));
    place.configure(&sections, &[connector]);
    place.run(&["sync", "--dry-run"]).await.exits(0).shows(&[
        "the filters leave 3 users out",
        "1 more than before, whose accounts stay as they are, and 1 fewer",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_without_filters_has_no_column_for_them() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let ran = place.run(&["status"]).await.exits(0);
    assert!(!ran.out.contains("FILTERED"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_begins_with_what_a_run_will_say_and_names_who_is_paused_or_removed() {
    let sandbox = sandbox(5).await;
    let place = Place::new(&[Connector::new("gone", &sandbox), Connector::new("main", &sandbox)]);
    place
        .run(&["remove", "gone", "--yes", "--keep-accounts"])
        .await
        .exits(0);
    place
        .run(&["sync", "main", "--dry-run"])
        .await
        .exits(0)
        .shows(&["changes: 5 new, 5 accounts created, 4 associated", "role: "])
        .hides(&["role_id"]);
    place.run(&["pause", "main"]).await.exits(0);
    let ran = place.run(&["sync", "--dry-run", "--format", "json"]).await.exits(0);
    let report = ran.json();
    let names: Vec<_> = report["connectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["gone", "main"]);
    assert!(
        report["connectors"][0]["error"]
            .as_str()
            .unwrap()
            .contains("was removed")
    );
    let notes = report["connectors"][1]["notes"].to_string();
    assert!(notes.contains("it is paused"), "{notes}");
}
