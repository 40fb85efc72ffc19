//! The pages about people and what happened: searched, filtered, sorted, paged.

use super::pages::{links, person, rows, with};
use super::*;
use crate::jumpcloud::Account;
use crate::model::{AccountId, DirectoryUserId, EmailKey};

#[tokio::test]
async fn users_are_searched_filtered_sorted_and_paged() {
    let world = world(open()).await;
    let mut users: Vec<User> = (0..119)
        .map(|number| person(&format!("u{number}"), &format!("person{number:03}@example.com")))
        .collect();
    users.push(User {
        sso: true,
        status: "INVITATION_SENT".to_owned(),
        ..person("zed", "Zed@Example.org")
    });
    let main = with(&world, "main", users).await;
    main.state
        .call(|store| store.note_roles(ago(1), &[("role-1".to_owned(), "Viewer <i>".to_owned())].into()))
        .await
        .unwrap();
    let path = "/connectors/main/users";
    let emails = async |query: &str| {
        let (status, page) = world.get(&format!("{path}{query}")).await;
        assert_eq!(status, 200, "{query}");
        let rows = if page.contains("id=\"users\"") {
            rows(&page, "users")
        } else {
            Vec::new()
        };
        (rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>(), page)
    };
    let (first, page) = emails("").await;
    assert_eq!((first.len(), first[0].as_str()), (50, "person000@example.com"));
    assert!(
        page.contains("1–50 of 120 users") && page.contains("Page 1 of 3"),
        "{page}"
    );
    assert!(page.contains("Viewer &lt;i&gt;") && !page.contains("<i>"));
    assert!(
        page.contains("aria-sort=\"ascending\"><a href=\"/connectors/main/users?sort=email&amp;order=desc\""),
        "{page}"
    );
    let (last, page) = emails("?page=3").await;
    assert_eq!((last.len(), last[19].as_str()), (20, "Zed@Example.org"));
    assert!(page.contains("rel=\"prev\"") && !page.contains("rel=\"next\""));
    assert_eq!(emails("?sort=email&order=desc").await.0[0], "Zed@Example.org");
    let (found, page) = emails("?search=ZED%40&sort=login").await;
    assert_eq!(found, ["Zed@Example.org"]);
    assert!(
        page.contains("value=\"ZED@\"") && page.contains("name=\"sort\" value=\"login\""),
        "{page}"
    );
    assert!(
        page.contains("href=\"/api/users?search=ZED%40&amp;connector=main\""),
        "{page}"
    );
    for query in [
        "?sso=true",
        "?status=INVITATION_SENT",
        "?search=zed&account=pending&status=&sso=&dormant=",
        "?search=u118&search=zed",
    ] {
        assert_eq!(emails(query).await.0, ["Zed@Example.org"], "{query}");
    }
    assert_eq!(emails("?unmatched=true").await.0.len(), 0);
    let (_, page) = emails("?page=9").await;
    assert!(page.contains("not so many pages"), "{page}");
    let (_, json) = world.json("/api/users?connector=main&search=ZED%40").await;
    assert_eq!(json["users"].as_array().unwrap().len(), 1);
    let (status, page) = world.get(&format!("{path}?account=nonsense&dormant=x&page=-1")).await;
    assert_eq!(status, 400);
    assert!(
        page.contains("account: &quot;nonsense&quot; is not one of") && page.contains("1–50 of 120"),
        "{page}"
    );
    assert_eq!(world.get("/api/users?connector=main&account=nonsense").await.0, 400);
}

#[tokio::test]
async fn a_user_has_a_page_with_its_history() {
    let world = world(open()).await;
    let main = with(&world, "main", vec![person("id/1?#%", "ada@example.com")]).await;
    main.state
        .call(|store| {
            let filter = UserFilter::default();
            store.note_roles(
                ago(1),
                &[
                    ("role-1".to_owned(), "Viewer".to_owned()),
                    ("role-2".to_owned(), "Owner".to_owned()),
                ]
                .into(),
            )?;
            store.begin_run(ago(30))?;
            store.begin_poll(ago(30), &filter)?;
            let changed = User {
                role_id: "role-2".to_owned(),
                ..person("id/1?#%", "ada@example.com")
            };
            let page = UsersPage {
                users: vec![changed],
                ..UsersPage::default()
            };
            store.apply_page(ago(30), Listing::Local, &page, &filter)?;
            store.end_run(ago(30), RunOutcome::Done, None)?;
            let key = EmailKey::fold("ada@example.com");
            store.matched(ago(20), &[(key.clone(), Some(DirectoryUserId::new("dir-7")))])?;
            store.adopt(
                ago(20),
                &[Account {
                    id: AccountId::new("acc-1"),
                    email: Some("ada@example.com".to_owned()),
                    username: None,
                    user_id: Some("dir-7".to_owned()),
                }],
            )
        })
        .await
        .unwrap();
    let (_, list) = world.get("/connectors/main/users").await;
    let href = links(&list).into_iter().find(|href| href.contains("/users/")).unwrap();
    assert_eq!(href, "/connectors/main/users/id%2F1%3F%23%25");
    let (status, page) = world.get(&href).await;
    assert_eq!(status, 200);
    for shown in [
        "role: Viewer → Owner",
        "dir-7",
        "acc-1",
        "In Torq, first seen",
        "Viewer; local; VERIFIED",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert_eq!(rows(&page, "history").len(), 3, "{page}");
    let (status, page) = world.get("/connectors/main/users/nobody%22%3E%3Cscript%3E").await;
    assert_eq!(status, 404);
    assert!(page.contains("was ever seen") && !page.contains("<script>"), "{page}");
}

#[tokio::test]
async fn the_list_of_whom_the_directory_does_not_know_says_when_it_was_asked() {
    let world = world(open()).await;
    let main = with(&world, "main", vec![person("ada", "ada@example.com")]).await;
    let list = async |query: &str| world.get(&format!("/connectors/main/users{query}")).await.1;
    // The poll was a minute ago.
    for (asked, said) in [(3600, true), (30, false)] {
        let key = EmailKey::fold("ada@example.com");
        main.state
            .call(move |store| store.matched(ago(asked), &[(key, None)]))
            .await
            .unwrap();
        let page = list("?unmatched=true").await;
        assert_eq!(rows(&page, "users").len(), 1);
        for words in ["Note: ", "directory was last asked", "torq-connector sync main"] {
            assert_eq!(page.contains(words), said, "{asked}: {words}: {page}");
        }
        assert!(!list("").await.contains("was last asked"));
    }
}

#[tokio::test]
async fn events_are_filtered_and_paged() {
    let world = world(open()).await;
    let users = (0..60)
        .map(|number| person(&format!("u{number}"), &format!("p{number}@example.com")))
        .collect();
    let main = with(&world, "main", users).await;
    main.notes(ConnectorState::Held, "for a reason", "act").await;
    let path = "/connectors/main/events";
    let (_, page) = world.get(path).await;
    assert_eq!(rows(&page, "events").len(), 50);
    assert!(
        rows(&page, "events")[0][3].contains("connected → held; for a reason"),
        "{page}"
    );
    let older = links(&page).into_iter().find(|href| href.contains("before=")).unwrap();
    let (_, page) = world.get(&older).await;
    // 60 users and two changes of state.
    assert_eq!(rows(&page, "events").len(), 12);
    assert!(page.contains(">Newest<") && !page.contains(">Older<"));
    let (_, page) = world.get(&format!("{path}?kind=state_changed")).await;
    assert_eq!(rows(&page, "events").len(), 2);
    let (_, page) = world.get(&format!("{path}?user=P59%40")).await;
    assert_eq!(rows(&page, "events").len(), 1);
    assert!(page.contains("href=\"/connectors/main/users/u59\""));
    let (_, page) = world.get(&format!("{path}?since=2099-01-01")).await;
    assert!(
        page.contains("Nothing like that happened") && page.contains("value=\"2099-01-01\""),
        "{page}"
    );
    let (_, page) = world.get(&format!("{path}?since=2020-02-29&kind=user_appeared")).await;
    assert!(
        page.contains("/api/events?kind=user_appeared&amp;since=2020-02-29T00%3A00%3A00Z&amp;connector=main"),
        "{page}"
    );
    let (status, page) = world.get(&format!("{path}?since=yesterday&kind=x")).await;
    assert_eq!(status, 400);
    assert!(page.contains("since: &quot;yesterday&quot; is not a day"), "{page}");
}
