//! A dry run: shows exactly what the run then does, and writes nothing anywhere.

use torq_connector::sandbox::{Account, Options};
use torq_connector::view::{AccountStanding, DryRun, EventKind};

use crate::world::{Scene, assert_in_step, fold, is_untouched};

/// What a dry run showed and what the run then did, as sorted lines.
async fn shown_and_done(scene: &Scene) -> (Vec<String>, Vec<String>, DryRun) {
    let world = scene.world();
    world.clear_requests();
    let (files, accounts, applications) = (scene.files(), world.accounts(), world.applications());
    let preview = scene.dry_run().await;
    assert!(world.writes().is_empty());
    assert_eq!((world.accounts(), world.applications()), (accounts, applications));
    let now = scene.files();
    assert_eq!(now.keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
    assert!(now == files, "the state is what it was, byte by byte");
    assert_eq!(is_untouched(&scene.state_dir()), files.is_empty());

    let before = if files.is_empty() { 0 } else { all_events(scene).len() };
    let end = scene.run().await;
    assert_eq!(preview.counts.run, end.counts);
    let left = (preview.counts.held, preview.counts.parked, preview.counts.pending);
    assert_eq!(left, (end.status.held, end.status.parked, end.status.pending));
    let line = |kind: EventKind, email: &Option<String>| {
        format!("{} {}", kind.as_str(), fold(email.as_deref().unwrap_or_default()))
    };
    let mut shown: Vec<_> = preview.changes.iter().map(|one| line(one.kind, &one.email)).collect();
    let mut done: Vec<_> = all_events(scene)[before..]
        .iter()
        .filter(|one| one.kind != EventKind::StateChanged)
        .map(|one| line(one.kind, &one.email))
        .collect();
    shown.sort();
    done.sort();
    (shown, done, preview)
}

fn all_events(scene: &Scene) -> Vec<torq_connector::view::EventView> {
    let mut events: Vec<_> = EventKind::ALL.into_iter().flat_map(|kind| scene.events(kind)).collect();
    events.sort_by_key(|event| event.at);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_first_run_shows_what_it_does_and_leaves_no_trace() {
    let scene = Scene::with_people(30).await;
    let (shown, done, preview) = shown_and_done(&scene).await;
    assert_eq!(shown, done);
    assert_eq!(preview.counts.run.created, 30);
    assert!(preview.notes.iter().any(|note| note.contains("would create it first")));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_with_adoption_shows_what_the_run_does() {
    let scene = Scene::new(Options {
        people: 30,
        existing_share: 0.4,
        anonymous_accounts: 2,
        ..Options::default()
    })
    .await;
    let world = scene.world();
    for person in world.people() {
        if scene.account(&person.email).is_none() && person.sso_provision {
            world.add_account(Account {
                username: Some(person.email),
                ..Account::default()
            });
        }
    }
    let (shown, done, preview) = shown_and_done(&scene).await;
    assert_eq!(shown, done);
    assert!(preview.counts.run.found > 12 && preview.counts.run.associated > 0);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_later_run_shows_arrivals_changes_removals_and_associations() {
    let mut scene = Scene::with_people(30).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    let (shown, done, _) = shown_and_done(&scene).await;
    assert_eq!((shown.len(), done.len()), (0, 0), "nothing to do, nothing shown");

    let people = world.people();
    for person in &people[..3] {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    world.add_people(3);
    world.update_person(&people[5].id, |one| one.email = "renamed@example.com".to_owned());
    world.update_person(&people[6].id, |one| one.status = "INVITATION_SENT_AGAIN".to_owned());
    for account in world
        .accounts()
        .iter()
        .filter(|account| account.user_id.is_none())
        .take(2)
    {
        world.add_to_directory(account.email.as_deref().unwrap());
    }
    world.delete_account(&scene.account(&people[8].email).unwrap().id);
    let (shown, done, preview) = shown_and_done(&scene).await;
    assert_eq!(shown, done);
    assert_eq!((preview.counts.run.disappeared, preview.counts.run.deleted), (3, 3));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_that_a_deleted_application_comes_back_with_its_accounts() {
    let scene = Scene::with_people(20).await;
    scene.run_to_the_end().await;
    scene.world().delete_application();
    let (shown, done, preview) = shown_and_done(&scene).await;
    assert_eq!(shown, done);
    assert_eq!(preview.counts.run.created, 20);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_would_be_held() {
    let mut scene = Scene::with_people(30).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    for person in &world.people()[..9] {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    let (shown, done, preview) = shown_and_done(&scene).await;
    assert_eq!(shown, done);
    assert!(preview.guard.held);
    assert_eq!((preview.counts.held, preview.guard.candidates), (9, 9));
    let held = |user: &torq_connector::view::UserView| user.account == AccountStanding::Held;
    assert_eq!(scene.users().into_iter().filter(held).count(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_beside_a_poll_that_was_cut_short_does_not_disturb_it() {
    let scene = Scene::with_people(60).await;
    scene.behave(|behaviour| behaviour.torq_page_cap = 5);
    scene.stopped_at(torq_connector::sandbox::Endpoint::TorqUsers, 7).await;
    let files = scene.files();
    let preview = scene.dry_run().await;
    assert_eq!(preview.counts.run.created, 60);
    assert!(scene.files() == files);
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_account_writes_are_not_offered_a_dry_run_shows_who_would_stay_pending() {
    let scene = Scene::new(Options {
        people: 6,
        application_exists: Some(true),
        ..Options::default()
    })
    .await;
    scene.behave(|behaviour| behaviour.account_create_refused = Some(405));
    scene.run().await;
    let preview = scene.dry_run().await;
    assert_eq!((preview.counts.pending, preview.counts.run.created), (6, 0));
    assert!(preview.changes.is_empty(), "{:?}", preview.changes);
    let end = scene.run().await;
    assert_eq!((end.status.pending, end.counts.created), (6, 0));
}
