//! Torq: tokens, the two listings, pages, limits.

use std::collections::HashSet;

use serde_json::Value;

use super::{Guest, read};
use crate::sandbox::{AuthorizationKind, Endpoint, Options, PageTokens, Peer, Person};

#[tokio::test]
async fn a_token_is_issued_for_the_exact_form_only() {
    let guest = Guest::with_people(1).await;
    let (status, answer) = read(guest.token_request(Peer::Torq)).await;
    assert_eq!(status, 200);
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["token_type"], "Bearer");

    let request = |body: &'static str| guest.token_request(Peer::Torq).body(body);
    for body in [
        "",
        "grant_type=password",
        "grant_type=client_credentials&scope=api",
        "grant_type=client_credentials&audience=torq",
    ] {
        assert_eq!(read(request(body)).await.0, 400, "{body}");
    }
    let url = guest.sandbox.torq_token_url();
    let json = guest
        .client
        .post(&url)
        .basic_auth("sandbox-torq-id", Some("sandbox-torq-secret"))
        .header("content-type", "application/json")
        .body("grant_type=client_credentials");
    assert_eq!(read(json).await.0, 400);
    let (status, answer) = read(
        guest
            .token_request(Peer::JumpCloud)
            .body("grant_type=client_credentials"),
    )
    .await;
    assert_eq!((status, &answer["error"]), (400, &"invalid_scope".into()));

    guest.world().set_torq_secret("rotated");
    let (status, answer) = read(guest.token_request(Peer::Torq)).await;
    assert_eq!((status, &answer["error"]), (401, &"invalid_client".into()));
}

#[tokio::test]
async fn an_expired_token_is_redirected_and_an_unknown_one_refused() {
    let mut guest = Guest::with_people(1).await;
    assert_eq!(guest.users(&[]).await.0, 200);

    guest.world().expire_tokens(Peer::Torq);
    let answer = guest.torq("/users").send().await.unwrap();
    assert_eq!(answer.status(), 302);
    let login = answer.headers()["location"].to_str().unwrap().to_owned();
    let page = guest.client.get(login).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("<form>"));

    let trap = "http://127.0.0.1:9/elsewhere";
    guest.world().behave(|how| how.login_url = Some(trap.to_owned()));
    let answer = guest.torq("/users").send().await.unwrap();
    assert_eq!(answer.headers()["location"], trap);

    guest.renew().await;
    assert_eq!(guest.users(&[]).await.0, 200, "a new token is good");
    guest.world().forget_tokens(Peer::Torq);
    let (status, answer) = guest.users(&[]).await;
    assert_eq!((status, &answer["code"]), (401, &16.into()));

    guest.world().revoke_torq_key();
    assert_eq!(read(guest.token_request(Peer::Torq)).await.0, 401);
    guest.world().restore_torq_key();
    assert_eq!(read(guest.token_request(Peer::Torq)).await.0, 200);
}

#[tokio::test]
async fn a_token_expires_by_itself() {
    let guest = Guest::new(Options {
        torq_token_lifetime: std::time::Duration::ZERO,
        ..Options::default()
    })
    .await;
    assert_eq!(guest.users(&[]).await.0, 302);
}

#[tokio::test]
async fn a_role_without_the_scope_may_not_list_users() {
    let guest = Guest::with_people(1).await;
    guest.world().set_torq_scope(false);
    assert_eq!(guest.users(&[]).await.0, 403);
    assert_eq!(read(guest.torq("/roles")).await.0, 200);
    guest.world().set_torq_scope(true);
    assert_eq!(guest.users(&[]).await.0, 200);
}

#[tokio::test]
async fn two_listings_page_by_page_are_everybody_once() {
    let guest = Guest::with_people(230).await;
    let (sso, pages) = guest.listing("true", "0").await;
    assert_eq!((sso.len(), pages), (161, 4), "50 rows a page unless asked for");
    let (local, pages) = guest.listing("false", "100").await;
    assert_eq!((local.len(), pages), (69, 1));
    let ids: HashSet<_> = sso
        .iter()
        .chain(&local)
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 230);
    assert!(sso.iter().all(|row| row["sso_provision"] == true));
    assert!(
        local.iter().all(|row| row.get("sso_provision").is_none()),
        "proto3 leaves false out"
    );

    let (_, unfiltered) = guest.users(&[("page_size", "100")]).await;
    assert_eq!(unfiltered["users"].as_array().unwrap().len(), 69, "local users only");
    let roles = read(guest.torq("/roles")).await.1;
    assert_eq!(read(guest.torq("/users/roles")).await.1, roles, "the older path");
    let known: HashSet<_> = roles["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| &role["id"])
        .collect();
    assert!(sso.iter().all(|row| known.contains(&row["role_id"])));
    assert_eq!(guest.world().count(Endpoint::TorqUsers), 6);
    let first = &guest.world().requests()[0];
    assert_eq!(first.parameter("sso_provision"), Some("true"));
    assert_eq!(
        (first.authorization, first.status),
        (AuthorizationKind::Bearer, Some(200))
    );
}

#[tokio::test]
async fn records_are_as_torq_sends_them() {
    let guest = Guest::with_people(0).await;
    let (status, answer) = guest.users(&[]).await;
    assert_eq!(
        (status, answer),
        (200, serde_json::json!({})),
        "an empty list is left out, too"
    );
    let person = Person {
        last_login_time: Some("2022-03-09T08:40:18.490771179Z".to_owned()),
        ..Person::with_email("Ilse.Mosselholt@example.com")
    };
    guest.world().add_person(person.clone());
    let (_, answer) = guest.users(&[]).await;
    let row = &answer["users"][0];
    assert_eq!(row["email"], "Ilse.Mosselholt@example.com");
    assert_eq!(row["last_login_time"], "2022-03-09T08:40:18.490771179Z");
    assert_eq!(row.get("name"), None, "Torq returns no name");
    let created = row["created_time"].as_str().unwrap();
    assert_eq!(created.len(), "2022-03-09T08:40:18.490771179Z".len());

    guest.world().update_person(&person.id, |person| {
        person.raw = Some(serde_json::json!({"email": "no id"}));
    });
    let (_, answer) = guest.users(&[]).await;
    assert_eq!(answer["users"], serde_json::json!([{"email": "no id"}]));
}

#[tokio::test]
async fn page_sizes_and_tokens_are_checked() {
    let guest = Guest::with_people(100).await;
    assert_eq!(guest.users(&[("page_size", "101")]).await.0, 400);
    assert_eq!(guest.users(&[("page_size", "many")]).await.0, 400);
    assert_eq!(guest.users(&[("page_token", "nonsense")]).await.0, 400);

    let query = [("sso_provision", "true"), ("page_size", "10")];
    let (_, first) = guest.users(&query).await;
    let token = first["next_page_token"].as_str().unwrap();
    let go_on = |sso: &'static str| [("sso_provision", sso), ("page_token", token)];
    assert_eq!(guest.users(&go_on("true")).await.0, 200);
    assert_eq!(
        guest.users(&go_on("false")).await.0,
        400,
        "it belongs to the other listing"
    );
    // What a client does that forgets to percent-encode.
    let raw = format!("/users?sso_provision=true&page_token={token}");
    assert_eq!(read(guest.torq(&raw)).await.0, 400);
    guest.world().expire_page_tokens();
    assert_eq!(guest.users(&go_on("true")).await.0, 400);
    guest.world().behave(|how| how.stale_token_status = 404);
    assert_eq!(guest.users(&go_on("true")).await.0, 404);
}

#[tokio::test]
async fn pages_may_be_short_or_empty_and_still_go_on() {
    let guest = Guest::with_people(100).await;
    guest.world().set_rates(0, 0);
    guest.world().behave(|how| {
        how.torq_page_cap = 7;
        how.empty_pages = true;
        how.trailing_page_token = true;
    });
    let (rows, pages) = guest.listing("true", "100").await;
    let ids: HashSet<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), ids.len()), (70, 70));
    assert_eq!(pages, 10 + 9 + 1, "full ones, empty ones between, one behind");
}

#[tokio::test]
async fn page_tokens_can_be_made_to_repeat() {
    let guest = Guest::with_people(30).await;
    let follow = async |count: usize| {
        let (mut tokens, mut token, mut ids) = (Vec::new(), String::new(), Vec::new());
        for _ in 0..count {
            let query = [("sso_provision", "true"), ("page_size", "5"), ("page_token", &token)];
            let (_, answer) = guest.users(&query).await;
            token = answer["next_page_token"].as_str().unwrap().to_owned();
            ids.push(answer["users"][0]["id"].as_str().unwrap_or_default().to_owned());
            tokens.push(token.clone());
        }
        (tokens, ids)
    };
    guest.world().behave(|how| how.page_tokens = PageTokens::Repeat);
    let (tokens, _) = follow(3).await;
    assert!(tokens[0] == tokens[1] && tokens[1] == tokens[2]);

    guest.world().behave(|how| how.page_tokens = PageTokens::Alternate);
    let (tokens, ids) = follow(4).await;
    assert!(tokens[0] != tokens[1] && tokens[0] == tokens[2] && tokens[1] == tokens[3]);
    assert!(ids[1] == ids[3] && ids[1] != ids[2]);

    guest
        .world()
        .behave(|how| how.page_tokens = PageTokens::FreshForSamePage);
    let (tokens, ids) = follow(4).await;
    assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), 4);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn the_open_questions_have_switches() {
    let guest = Guest::with_people(60).await;
    // Unknown parameters are ignored: the camel spelling is one, unless the switch is set.
    let camel = [("pageSize", "3"), ("sso_provision", "true")];
    let count = |answer: &Value| answer["users"].as_array().unwrap().len();
    assert_eq!(count(&guest.users(&camel).await.1), 42);
    guest.world().behave(|how| how.torq_camel_case = true);
    let (_, answer) = guest.users(&camel).await;
    assert_eq!(count(&answer), 3);
    assert!(answer["nextPageToken"].is_string() && answer.get("next_page_token").is_none());

    guest.world().behave(|how| how.ignore_sso_filter = true);
    assert_eq!(
        count(&guest.users(&[("sso_provision", "false"), ("page_size", "100")]).await.1),
        60
    );

    guest.world().behave(|how| how.torq_without_public = true);
    assert_eq!(guest.users(&[]).await.0, 404);
    let url = guest.sandbox.torq_api_url().replace("/public", "") + "/users";
    let bare = guest.client.get(url).bearer_auth(&guest.torq_token);
    assert_eq!(read(bare).await.0, 200);
}

#[tokio::test]
async fn too_many_requests_a_second_are_refused() {
    let guest = Guest::new(Options {
        torq_rate: 5,
        ..Options::default()
    })
    .await;
    // A sixth request within a second is refused; were this machine so slow that six take longer, more would follow.
    for _ in 0..100 {
        let answer = guest.torq("/roles").send().await.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "1");
            let passed = guest
                .world()
                .requests()
                .iter()
                .filter(|one| one.status == Some(200))
                .count();
            assert!(passed >= 5, "{passed}");
            return;
        }
    }
    panic!("100 requests were never too many");
}
