//! JumpCloud: who may ask, applications, accounts, the directory.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Guest, read};
use crate::sandbox::{Account, AuthorizationKind, Endpoint, Licence, ListShape, Options, Peer, TotalCount};

fn with_application() -> Options {
    Options {
        application_exists: Some(true),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_bearer_token_or_an_api_key_is_required() {
    let guest = Guest::new(with_application()).await;
    let url = format!("{}/api/systemusers", guest.sandbox.console_url());
    let get = || guest.client.get(&url);
    assert_eq!(read(get()).await, (401, json!({"message": "Unauthorized"})));
    assert_eq!(read(get().header("x-api-key", "sandbox-jumpcloud-key")).await.0, 200);
    assert_eq!(read(get().header("x-api-key", "other")).await.0, 401);
    assert_eq!(read(guest.console(Method::GET, "/api/systemusers")).await.0, 200);
    guest.world().expire_tokens(Peer::JumpCloud);
    let expired = read(guest.console(Method::GET, "/api/systemusers")).await;
    assert_eq!(expired.0, 401, "JumpCloud does not redirect");
    let kinds: Vec<_> = guest.world().requests().iter().map(|one| one.authorization).collect();
    assert_eq!(kinds[..2], [AuthorizationKind::None, AuthorizationKind::ApiKey]);
}

#[tokio::test]
async fn several_organisations_want_a_name() {
    let guest = Guest::new(Options {
        org_id: Some("5f0e6a1b2c3d4e5f6a7b8c9d".to_owned()),
        ..Options::default()
    })
    .await;
    let request = || guest.console(Method::GET, "/api/systemusers");
    let (status, answer) = read(request()).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().contains("x-org-id"));
    assert_eq!(read(request().header("x-org-id", "other")).await.0, 400);
    let named = request().header("x-org-id", "5f0e6a1b2c3d4e5f6a7b8c9d");
    assert_eq!(read(named).await.0, 200);
}

#[tokio::test]
async fn the_application_is_made_once() {
    let guest = Guest::with_people(3).await;
    let create = || {
        guest
            .saas(Method::POST, "/applications")
            .json(&json!({"catalog_app_id": "torq"}))
    };
    let (status, made) = read(create()).await;
    assert_eq!(status, 201);
    assert_eq!(made["id"].as_str().unwrap().len(), 24);
    assert_eq!(read(create()).await.0, 409);
    let unknown = guest
        .saas(Method::POST, "/applications")
        .json(&json!({"catalog_app_id": "no"}));
    assert_eq!(read(unknown).await.0, 400);

    let (_, list) = read(guest.saas(Method::GET, "/applications?limit=100&offset=0")).await;
    assert_eq!(list["totalCount"], 3);
    let listed = &list["results"][2];
    assert_eq!((&listed["id"], listed.get("name")), (&made["id"], None));
    let path = format!("/applications/{}", made["id"].as_str().unwrap());
    let (_, single) = read(guest.saas(Method::GET, &path)).await;
    assert_eq!(single["name"], "Torq");
    let change = guest.saas(Method::PUT, &path).json(&json!({"status": "IGNORED"}));
    assert_eq!(read(change).await.1["status"], "IGNORED");
    assert_eq!(read(guest.saas(Method::DELETE, &path)).await.0, 204);
    assert_eq!(read(guest.saas(Method::GET, &path)).await.0, 404);
    assert_eq!(guest.world().application(), None);
}

#[tokio::test]
async fn an_account_is_created_associated_and_deleted() {
    let guest = Guest::new(with_application()).await;
    let user = guest.world().directory()[0].clone();
    let answer = guest.create(json!({"email": "Nadia.Corwick@example.com"})).await;
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.unwrap();
    assert_eq!(made["parent_app_id"], guest.world().application().unwrap().id);
    assert_eq!(made.get("user_id"), None);

    let again = guest.create(json!({"email": "nadia.corwick@EXAMPLE.com"})).await;
    assert_eq!(again.status(), 409, "case does not matter");
    let stranger = json!({"email": "new@example.com", "user_id": "000000000000000000000000"});
    assert_eq!(guest.create(stranger).await.status(), 400);
    assert_eq!(guest.create(json!({"user_id": user.id})).await.status(), 400);
    assert_eq!(guest.world().accounts().len(), 1);

    let path = format!("{}/{}", guest.accounts_path(), made["id"].as_str().unwrap());
    let put = |body: Value| guest.saas(Method::PUT, &path).json(&body);
    let (status, associated) = read(put(json!({"user_id": user.id}))).await;
    assert_eq!((status, &associated["user_id"]), (200, &json!(user.id)));
    assert_eq!(read(put(json!({"user_id": "gone"}))).await.0, 400);
    assert_eq!(read(put(json!({}))).await.0, 400);

    guest.world().remove_from_directory(&user.email);
    let (status, owned) = read(guest.saas(Method::GET, &path)).await;
    assert_eq!(
        (status, owned.get("user_id")),
        (200, None),
        "it stays, without an owner"
    );

    assert_eq!(read(guest.saas(Method::DELETE, &path)).await, (204, Value::Null));
    assert_eq!(read(guest.saas(Method::GET, &path)).await.0, 404);
    assert_eq!(read(guest.saas(Method::DELETE, &path)).await.0, 404);
    let anew = guest.create(json!({"email": "nadia.corwick@example.com"})).await;
    assert_eq!(anew.status(), 201);

    let kinds: Vec<_> = guest.world().writes().iter().map(|one| one.endpoint).collect();
    let of = |kind| kinds.iter().filter(|one| **one == kind).count();
    assert_eq!(of(Endpoint::AccountCreate), 5);
    assert_eq!(of(Endpoint::AccountAssociate), 3);
    assert_eq!(of(Endpoint::AccountDelete), 2);
    assert_eq!(kinds.len(), 10, "reading is no write");
    let first = &guest.world().writes()[0];
    assert_eq!(first.body, Some(json!({"email": "Nadia.Corwick@example.com"})));
    assert_eq!((first.status, first.handled), (Some(201), Some(201)));
}

#[tokio::test]
async fn writes_can_be_refused_in_every_way() {
    let guest = Guest::new(with_application()).await;
    let world = guest.world();
    let email = json!({"email": "a@example.com"});
    for status in [404, 405, 501] {
        world.behave(|how| how.account_create_refused = Some(status));
        assert_eq!(guest.create(email.clone()).await.status(), status);
    }
    world.behave(|how| how.account_create_refused = None);
    assert_eq!(guest.create(email.clone()).await.status(), 201);
    let id = &world.accounts()[0].id;
    let user_id = &world.directory()[0].id;
    world.behave(|how| how.account_associate_refused = Some(405));
    let path = format!("{}/{id}", guest.accounts_path());
    let put = guest.saas(Method::PUT, &path).json(&json!({"user_id": user_id}));
    assert_eq!(read(put).await.0, 405);
    assert_eq!(world.accounts()[0].user_id, None);

    world.behave(|how| {
        how.accept_duplicates = true;
        how.refused_emails = vec!["B@example.com".to_owned()];
        how.create_status = 200;
        how.delete_returns_object = true;
    });
    assert_eq!(guest.create(email).await.status(), 200);
    assert_eq!(world.accounts().len(), 2);
    assert_eq!(guest.create(json!({"email": "b@example.com"})).await.status(), 422);
    let (status, deleted) = read(guest.saas(Method::DELETE, &path)).await;
    assert_eq!((status, &deleted["id"]), (200, &json!(id)));
    assert_eq!(world.accounts().len(), 1);
}

#[tokio::test]
async fn without_a_licence_only_the_directory_answers() {
    let guest = Guest::new(with_application()).await;
    for (licence, status) in [(Licence::PaymentRequired, 402), (Licence::Forbidden, 403)] {
        guest.world().behave(|how| how.licence = licence);
        assert_eq!(read(guest.saas(Method::GET, "/applications")).await.0, status);
        assert_eq!(read(guest.console(Method::GET, "/api/systemusers")).await.0, 200);
    }
    guest.world().behave(|how| how.jumpcloud_forbidden = true);
    assert_eq!(read(guest.console(Method::GET, "/api/systemusers")).await.0, 403);
}

#[tokio::test]
async fn lists_come_in_both_shapes_and_are_capped() {
    let guest = Guest::new(Options {
        people: 240,
        existing_share: 0.5,
        anonymous_accounts: 2,
        ..Options::default()
    })
    .await;
    let path = guest.accounts_path();
    let page = async |query: &str| read(guest.saas(Method::GET, &format!("{path}?{query}"))).await.1;
    let len = |rows: &Value| rows.as_array().unwrap().len();
    assert_eq!(len(&page("limit=500&offset=0").await), 100, "the maximum");
    assert_eq!(len(&page("limit=100&offset=100").await), 22);
    assert_eq!(len(&page("limit=100&offset=200").await), 0);
    assert_eq!(len(&page("").await), 10);

    let rows = page("limit=100&offset=100").await;
    let anonymous = rows.as_array().unwrap().iter();
    let anonymous = anonymous.filter(|row| row.get("email").is_none() && row.get("username").is_none());
    assert_eq!(anonymous.count(), 2);

    guest.world().behave(|how| {
        how.accounts_shape = ListShape::Envelope;
        how.list_cap = 40;
        how.total_count = TotalCount::Page;
    });
    let short = page("limit=100&offset=40").await;
    assert_eq!((len(&short["results"]), &short["totalCount"]), (40, &json!(40)));

    guest.world().behave(|how| how.skip_instead_of_offset = true);
    let (first, offset) = (page("limit=100").await, page("limit=100&offset=40").await);
    assert_eq!(first, offset, "the other word is ignored");
    assert_eq!(page("limit=100&skip=40").await, short);

    guest.world().behave(|how| how.applications_shape = ListShape::Bare);
    let (_, applications) = read(guest.saas(Method::GET, "/applications?limit=100")).await;
    assert_eq!(len(&applications), 3);
}

#[tokio::test]
async fn accounts_that_exist_belong_to_their_directory_user() {
    let guest = Guest::new(Options {
        people: 50,
        existing_share: 1.0,
        ..Options::default()
    })
    .await;
    let owned = |accounts: &[Account]| accounts.iter().filter(|one| one.user_id.is_some()).count();
    assert_eq!(owned(&guest.world().accounts()), 40);
}

#[tokio::test]
async fn directory_users_are_listed_and_searched() {
    let guest = Guest::with_people(150).await;
    let list = async |query: &str| {
        let path = format!("/api/systemusers?limit=100&fields=email&{query}");
        read(guest.console(Method::GET, &path)).await.1
    };
    let (first, second) = (list("sort=_id&skip=0").await, list("sort=_id&skip=100").await);
    assert_eq!(first["totalCount"], 120);
    let ids: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| page["results"].as_array().unwrap())
        .map(|row| row["_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 120);
    assert!(ids.is_sorted());
    assert_eq!(first["results"][0].as_object().unwrap().len(), 2, "_id and email");
    let unsorted = list("skip=0").await;
    guest.world().add_to_directory("late@example.com");
    assert_ne!(unsorted["results"][0], list("skip=0").await["results"][0]);

    let known = guest.world().directory()[5].clone();
    let search = async |emails: &[&str]| {
        let or: Vec<_> = emails.iter().map(|email| json!({"email": email})).collect();
        let body = json!({"filter": {"or": or}, "fields": "email", "limit": 100, "skip": 0});
        read(guest.console(Method::POST, "/api/search/systemusers").json(&body)).await
    };
    let (status, found) = search(&[&known.email, "nobody@example.com"]).await;
    assert_eq!(status, 200);
    assert_eq!(found["results"], json!([{"_id": known.id, "email": known.email}]));
    let loud = known.email.to_uppercase();
    assert_eq!(search(&[&loud]).await.1["results"], json!([]), "the match is exact");
    guest.world().behave(|how| {
        how.search_ignores_case = true;
        how.search_batch_cap = Some(1);
    });
    assert_eq!(search(&[&loud]).await.1["totalCount"], 1);
    assert_eq!(search(&[&loud, "b@example.com"]).await.0, 400);
    assert!(guest.world().writes().is_empty(), "a search is no write");
}

#[tokio::test]
async fn the_rest_of_saas_management_is_there() {
    let guest = Guest::new(Options {
        people: 20,
        existing_share: 1.0,
        ..Options::default()
    })
    .await;
    let path = guest.accounts_path().replace("/accounts", "");
    let (status, usage) = read(guest.saas(Method::GET, &format!("{path}/usage?day_count=90"))).await;
    assert_eq!(status, 200);
    assert!(usage[0]["latest_used_at"].is_string());
    assert_eq!(
        read(guest.saas(Method::GET, &format!("{path}/usage?day_count=91")))
            .await
            .0,
        400
    );
    assert_eq!(
        read(guest.saas(Method::GET, "/application-catalog/torq")).await.1["name"],
        "Torq"
    );
    assert_eq!(read(guest.saas(Method::GET, "/application-catalog/none")).await.0, 404);
    let licences = path.replace("/applications", "/application-licenses");
    assert_eq!(read(guest.saas(Method::GET, &licences)).await.1["results"], json!([]));
}

#[tokio::test]
async fn too_many_requests_a_second_are_refused() {
    let guest = Guest::new(Options {
        jumpcloud_rate: 5,
        ..with_application()
    })
    .await;
    for _ in 0..100 {
        let (status, _) = read(guest.saas(Method::GET, "/applications")).await;
        if status == 429 {
            return;
        }
    }
    panic!("100 requests were never too many");
}

#[tokio::test]
async fn a_server_can_know_no_pages_no_filter_and_no_duplicates() {
    let guest = Guest::new(Options {
        people: 5,
        directory_share: 1.0,
        ..with_application()
    })
    .await;
    guest.world().behave(|behaviour| {
        behaviour.first_page_only = true;
        behaviour.search_ignores_filter = true;
        behaviour.accept_duplicate_applications = true;
    });
    let page = guest.saas(Method::GET, "/applications?limit=2&offset=2");
    let again = guest.saas(Method::GET, "/applications?limit=2&offset=0");
    assert_eq!(read(page).await, read(again).await);
    let body = json!({"filter": {"or": [{"email": "nobody@example.com"}]}, "limit": 100});
    let search = guest.console(Method::POST, "/api/search/systemusers").json(&body);
    assert_eq!(read(search).await.1["results"].as_array().unwrap().len(), 5);
    let another = guest
        .saas(Method::POST, "/applications")
        .json(&json!({"catalog_app_id": "torq"}));
    assert_eq!(read(another).await.0, 201);

    let id = guest.world().add_account(Account {
        email: Some("a@example.com".to_owned()),
        ..Account::default()
    });
    let renamed = |email: &str| {
        guest
            .world()
            .update_account(&id, |one| one.email = Some(email.to_owned()))
    };
    assert!(renamed("b@example.com"));
    assert_eq!(guest.world().accounts()[0].email.as_deref(), Some("b@example.com"));
    assert!(!guest.world().update_account("nobody's", |_| {}));
}
