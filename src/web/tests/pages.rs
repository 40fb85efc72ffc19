//! The pages as people see them: what is on them, where their links lead, and what becomes of hostile names on the way.

use super::*;
use crate::model::{DirectoryUserId, EmailKey};
use crate::state::RemovalRules;

/// A connector with these people, all of them in one complete poll.
pub(super) async fn with(world: &World, name: &str, users: Vec<User>) -> Desk {
    let desk = world.connector(name);
    let page = UsersPage {
        users,
        ..UsersPage::default()
    };
    desk.state
        .call(move |store| {
            let (at, filter) = (ago(60), UserFilter::default());
            store.begin_run(at)?;
            store.begin_poll(at, &filter)?;
            store.apply_page(at, Listing::Local, &page, &filter)?;
            let rules = RemovalRules {
                removals: Removals::Report,
                max: MaxRemovals::Users(1),
            };
            store.finish_poll(at, &rules)?;
            store.end_run(at, RunOutcome::Done, None)?;
            store.note_state(at, ConnectorState::Connected, None, None)
        })
        .await
        .unwrap();
    desk
}

pub(super) fn person(id: &str, email: &str) -> User {
    User {
        id: id.to_owned(),
        email: email.to_owned(),
        role_id: "role-1".to_owned(),
        status: "VERIFIED".to_owned(),
        ..User::default()
    }
}

/// What an attribute named `href` holds, for each link, as a browser understands it.
pub(super) fn links(page: &str) -> Vec<String> {
    page.split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(href, _)| href.replace("&amp;", "&"))
        .collect()
}

/// The text of the cells of the table whose region has this id, row by row; tags are taken out.
pub(super) fn rows(page: &str, id: &str) -> Vec<Vec<String>> {
    let (_, table) = page.split_once(&format!("id=\"{id}\"")).unwrap();
    let (table, _) = table.split_once("</table>").unwrap();
    let (_, body) = table.split_once("</thead>").unwrap();
    body.split("<tr").skip(1).map(cells).collect()
}

fn cells(row: &str) -> Vec<String> {
    row.split("<t")
        .skip(1)
        .filter(|cell| cell.starts_with('d') || cell.starts_with("h ") || cell.starts_with("h>"))
        .map(|cell| {
            let mut text = String::new();
            let mut inside = true;
            for letter in cell.chars() {
                match letter {
                    '<' => inside = true,
                    '>' => inside = false,
                    letter if !inside => text.push(letter),
                    _ => {}
                }
            }
            text
        })
        .collect()
}

#[tokio::test]
async fn what_needs_a_person_comes_first_with_the_command_that_acts() {
    let world = world(open()).await;
    let _well = with(&world, "aaa", vec![person("1", "ada@example.com")]).await;
    let refused = with(&world, "refused", Vec::new()).await;
    refused
        .notes(
            ConnectorState::ReconnectRequired,
            "Torq: 401 (the key is gone)",
            "make a new API key in Torq; then: torq-connector reconnect refused",
        )
        .await;
    let parked = with(&world, "parked", vec![person("1", "bob@example.com")]).await;
    let key = EmailKey::fold("bob@example.com");
    parked
        .state
        .call(move |store| {
            store.matched(ago(1), &[(key.clone(), None)])?;
            store.creating(ago(1), &key, ago(1))?;
            store.create_refused(ago(1), &key, "the e-mail is <b>odd</b>")
        })
        .await
        .unwrap();
    let paused = world.connector("paused");
    paused
        .state
        .call(|store| store.pause(Timestamp::now(), true))
        .await
        .unwrap();

    let (status, page) = world.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("2 of 4 need a look, 1 is paused."), "{page}");
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    let order = [
        "Reconnect: credentials",
        "Torq: 401 (the key is gone)",
        "Make a new API key in Torq. Then:",
        "<code class=\"command\">torq-connector reconnect refused</code>",
        "1 user is parked",
        "/connectors/parked/users?account=parked",
        "<code class=\"command\">torq-connector retry parked</code>",
        "<code class=\"command\">torq-connector resume paused</code>",
    ];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{page}");
    let names: Vec<_> = rows(&page, "connectors")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(names, ["refused", "parked", "paused", "aaa"]);

    let (_, page) = world.get("/connectors/parked/users?account=parked").await;
    assert!(page.contains("the e-mail is &lt;b&gt;odd&lt;/b&gt;"), "{page}");
    let (_, page) = world.get("/connectors/refused").await;
    assert!(page.contains("torq-connector reconnect refused") && page.contains("Stopped until it is reconnected"));
}

#[tokio::test]
async fn hundreds_of_connectors_are_sorted_searched_and_paged() {
    let world = world(open()).await;
    let mut desks = Vec::new();
    for number in 0..120 {
        desks.push(world.connector(&format!("customer-{number:03}")));
    }
    desks[77]
        .notes(ConnectorState::ReconnectRequired, "refused", "act")
        .await;
    let (_, page) = world.get("/").await;
    let names = |page: &str| {
        let rows = rows(page, "connectors").into_iter();
        rows.filter(|row| row.len() > 1)
            .map(|row| row[0].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&page).len(), 50);
    assert_eq!(names(&page)[..2], ["customer-077", "customer-000"]);
    assert!(
        page.contains("Page 1 of 3") && page.contains("href=\"/?page=2\""),
        "{page}"
    );
    // Typing must not be disturbed: with a form on it, the page is not loaded again as a whole.
    assert!(!page.contains("http-equiv"));
    let (_, page) = world.get("/?sort=name&order=desc&page=3").await;
    assert_eq!(names(&page).len(), 20);
    assert_eq!(names(&page)[0], "customer-019");
    assert!(page.contains("aria-sort=\"descending\""));
    let (_, page) = world.get("/?search=CUSTOMER-11").await;
    assert_eq!(names(&page).len(), 10);
    assert!(page.contains("10 connectors of 120"), "{page}");
    let (_, page) = world.get("/?search=%3Cscript%3E").await;
    assert!(
        page.contains("contains “<bdi>&lt;script&gt;</bdi>”") && page.contains("value=\"&lt;script&gt;\""),
        "{page}"
    );
    let (status, page) = world.get("/?sort=nonsense&page=0").await;
    assert_eq!(status, 400);
    assert!(page.contains("role=\"alert\"") && names(&page).len() == 50);
}

#[tokio::test]
async fn a_connector_says_how_it_is_and_shows_no_secret() {
    let world = world(open()).await;
    let main = with(
        &world,
        "main",
        vec![person("1", "ada@example.com"), person("2", "bob@example.com")],
    )
    .await;
    main.state
        .call(|store| {
            let (ada, bob) = (EmailKey::fold("ada@example.com"), EmailKey::fold("bob@example.com"));
            store.matched(ago(1), &[(ada, Some(DirectoryUserId::new("d1"))), (bob, None)])
        })
        .await
        .unwrap();
    let (status, page) = world.get("/connectors/main").await;
    assert_eq!(status, 200);
    for shown in [
        "It works: the last success was",
        "href=\"/connectors/main/users?unmatched=true\">not in the JumpCloud directory</a></dt><dd>1</dd>",
        "href=\"/connectors/main/users?account=pending\">pending</a></dt><dd>2</dd>",
        "2 new in Torq",
        "10 % of the users, at least 5",
        "every 1 min",
        "<title id=\"course-title\">",
        "The same as a table",
        "href=\"/api/status?connector=main\"",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // A later poll misses both: held, with the way to approve.
    main.state
        .call(|store| {
            let (filter, rules) = (
                UserFilter::default(),
                RemovalRules {
                    removals: Removals::Report,
                    max: MaxRemovals::Users(1),
                },
            );
            for _ in 0..2 {
                store.begin_run(ago(1))?;
                store.begin_poll(ago(1), &filter)?;
                store.finish_poll(ago(1), &rules)?;
                store.end_run(ago(1), RunOutcome::Partial, None)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let (_, page) = world.get("/connectors/main").await;
    assert!(
        page.contains("2 removals wait for approval") && page.contains("torq-connector approve main"),
        "{page}"
    );
    let (_, held) = world.get("/connectors/main/users?account=held").await;
    assert_eq!(rows(&held, "users").len(), 2);
}

#[tokio::test]
async fn a_first_collection_shows_how_far_it_is() {
    let world = world(open()).await;
    let main = world.connector("main");
    let page = UsersPage {
        users: vec![person("1", "ada@example.com"), person("2", "bob@example.com")],
        ..UsersPage::default()
    };
    main.state
        .call(move |store| {
            let filter = UserFilter::default();
            store.begin_run(ago(120))?;
            store.begin_poll(ago(120), &filter)?;
            store.apply_page(ago(100), Listing::Local, &page, &filter)
        })
        .await
        .unwrap();
    let (_, page) = world.get("/connectors/main").await;
    assert!(
        page.contains("<strong>2 users</strong> on 1 page so far, since 2 min"),
        "{page}"
    );
    assert!(page.contains("<progress") && page.contains(">collecting<"));
    // Live without a script, too: there is nothing on it to type into.
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>"));
    assert!(page.contains("data-renewal=\"10\"") && !page.contains("<form"));
}

#[tokio::test]
async fn hostile_text_stays_text_on_every_page() {
    let world = world(open()).await;
    let hostile = [
        "<script>alert(1)</script>@example.com".to_owned(),
        "\"><img src=x onerror=alert(1)>@example.com".to_owned(),
        "' onmouseover='alert(1)@example.com".to_owned(),
        "\u{202e}moc.elpmaxe@live\u{2066}".to_owned(),
        "مرحبا@example.com".to_owned(),
        format!("{}@example.com", "x".repeat(300)),
        "nul\u{0}\u{1b}[31m@example.com".to_owned(),
        String::new(),
    ];
    let ids = [
        "<b>1",
        "..",
        ".",
        "a/../../b",
        "?x=1#y",
        "%2e%2e",
        "\u{202e}id",
        "javascript:alert(1)",
    ];
    let users = ids.iter().zip(&hostile).map(|(id, email)| User {
        role_id: "<u>role".to_owned(),
        status: "<u>status".to_owned(),
        last_login: Some("<u>never".to_owned()),
        ..person(id, email)
    });
    let main = with(&world, "main", users.collect()).await;
    main.notes(
        ConnectorState::Retrying,
        "\u{202e}<script>alert(2)</script>",
        "<img src=y>",
    )
    .await;
    let mut paths = vec![
        "/".to_owned(),
        "/connectors/main".to_owned(),
        "/connectors/main/users".to_owned(),
        "/connectors/main/users?search=%3Cscript%3E%22%27".to_owned(),
        "/connectors/main/users?status=%3Cu%3Estatus&dormant=%3Cu%3E&sort=%3Cu%3E".to_owned(),
        "/connectors/main/events".to_owned(),
        "/connectors/main/events?user=%22%3E%3Cscript%3E&since=%3Cscript%3E".to_owned(),
        "/connectors/%3Cscript%3E".to_owned(),
        "/connectors/main/users/%ff%fe".to_owned(),
        "/%3Cscript%3E".to_owned(),
    ];
    let (_, list) = world.get("/connectors/main/users").await;
    assert_eq!(rows(&list, "users").len(), 8);
    let own: Vec<_> = links(&list)
        .into_iter()
        .filter(|href| href.contains("/users/"))
        .collect();
    // All but the two that no path can hold.
    assert_eq!(own.len(), 6, "{own:?}");
    for href in &own {
        assert_eq!(world.get(href).await.0, 200, "{href}");
    }
    paths.extend(own);
    for path in paths {
        let (status, page) = world.get(&path).await;
        assert!([200, 400, 404].contains(&status), "{path}: {status}");
        assert_eq!(page.matches("<script").count(), 1, "{path}: {page}");
        for never in [
            "<img",
            "<u>",
            "<b>1",
            "\u{202e}",
            "\u{2066}",
            "\u{1b}",
            "\u{0}",
            "javascript:alert(1)\"",
            " style=",
        ] {
            assert!(!page.contains(never), "{never:?} in {path}: {page}");
        }
        // Every attribute is quoted, and none of them listens.
        for tag in page
            .split('<')
            .skip(1)
            .filter_map(|rest| rest.split_once('>'))
            .map(|(tag, _)| tag)
        {
            assert!(
                !tag.split('"').step_by(2).any(|outside| outside.contains(" on")),
                "{tag} in {path}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_open_says_so_on_a_page() {
    let world = world(open()).await;
    let (live, receiver) = watch::channel(Live {
        overlay: Some(Overlay {
            state: ConnectorState::Retrying,
            reason: Some("the disk is full".to_owned()),
            action: None,
        }),
        ..Live::new()
    });
    world.board.seat(Seat {
        name: ConnectorName::parse("closed").unwrap(),
        state: None,
        poll_interval: MINUTE,
        key_expires: None,
        settings: settings(),
        live: receiver,
    });
    for path in [
        "/connectors/closed",
        "/connectors/closed/users",
        "/connectors/closed/users/1",
        "/connectors/closed/events",
    ] {
        let (status, page) = world.get(path).await;
        assert_eq!(status, 503, "{path}");
        assert!(
            page.contains("the disk is full") && page.contains("href=\"/\""),
            "{page}"
        );
    }
    let (status, page) = world.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("the disk is full"));
    live.send_replace(Live {
        overlay: Some(Overlay {
            state: ConnectorState::Removed,
            reason: None,
            action: None,
        }),
        ..Live::new()
    });
    let (status, page) = world.get("/connectors/closed").await;
    assert_eq!(status, 503);
    assert!(page.contains("Removed") && !page.contains("tried again"), "{page}");
    // And hides nothing of the others.
    let _open = with(&world, "open", vec![person("1", "ada@example.com")]).await;
    let (_, page) = world.get("/").await;
    assert_eq!(rows(&page, "latest").len(), 2, "{page}");
    for path in [
        "/connectors/no",
        "/connectors/no/users",
        "/connectors/no/users/1",
        "/connectors/no/events",
        "/connectors/",
        "/nothing",
    ] {
        let (status, page) = world.get(path).await;
        assert_eq!(status, 404, "{path}");
        assert!(
            page.starts_with("<!DOCTYPE html>") && page.contains("All connectors"),
            "{page}"
        );
    }
    assert_eq!(world.json("/api/nothing").await.0, 404);
    assert_eq!(world.json("/api/status?connector=no").await.0, 404);
}

#[tokio::test]
async fn pages_can_be_read_without_eyes_and_without_a_mouse() {
    let world = world(open()).await;
    let _main = with(&world, "main", vec![person("1", "ada@example.com")]).await;
    for path in [
        "/",
        "/connectors/main",
        "/connectors/main/users",
        "/connectors/main/users/1",
        "/connectors/main/events",
        "/nothing",
    ] {
        let (_, page) = world.get(path).await;
        let count = |text: &str| page.matches(text).count();
        assert!(page.contains("<html lang=\"en\">"), "{path}");
        assert_eq!((count("<h1"), count("<main "), count("<title>")), (1, 1, 1), "{path}");
        assert!(page.find("class=\"skip\" href=\"#main\"") < page.find("<nav"), "{path}");
        assert_eq!(count("<caption"), count("<table"), "{path}");
        assert_eq!(count("<table"), count("role=\"region\""), "{path}");
        assert!(!page.contains("<th>") && count("<th ") == count("scope="), "{path}");
        assert_eq!(count("<svg"), count("role=\"img\""), "{path}");
        // Each field stands in its label.
        let fields = count("<select") + count("<input") - count("type=\"hidden\"");
        assert_eq!(count("<label"), fields, "{path}");
        let ids: Vec<_> = page
            .split(" id=\"")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(id, _)| id)
            .collect();
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), different.len(), "{path}: {ids:?}");
    }
}
