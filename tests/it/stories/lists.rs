//! JumpCloud's lists, in every shape that was observed.

use torq_connector::sandbox::{Behaviour, ListShape, Options, TotalCount};

use crate::world::{Scene, assert_in_step};

/// Half of the people have accounts; a second one would be made without complaint, were the list not read to its end.
async fn adopts_all(change: impl FnOnce(&mut Behaviour)) {
    let scene = Scene::new(Options {
        people: 20,
        existing_share: 0.5,
        anonymous_accounts: 2,
        other_applications: 4,
        ..Options::default()
    })
    .await;
    let world = scene.world();
    scene.behave(|behaviour| {
        behaviour.accept_duplicates = true;
        change(behaviour);
    });
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (10, 10));
    assert_in_step(&scene);
    world.clear_requests();
    assert_eq!(scene.run_to_the_end().await.counts, Default::default());
    assert!(world.writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_and_bare_lists_with_honest_and_lying_totals_are_read_to_the_end() {
    let mut worlds = tokio::task::JoinSet::new();
    for applications_shape in [ListShape::Envelope, ListShape::Bare] {
        for accounts_shape in [ListShape::Envelope, ListShape::Bare] {
            for total_count in [
                TotalCount::Honest,
                TotalCount::Page,
                TotalCount::Zero,
                TotalCount::Absent,
            ] {
                worlds.spawn(adopts_all(move |behaviour| {
                    behaviour.applications_shape = applications_shape;
                    behaviour.accounts_shape = accounts_shape;
                    behaviour.total_count = total_count;
                    behaviour.list_cap = 3;
                    behaviour.directory_cap = 3;
                }));
            }
        }
    }
    worlds.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_pages_by_skip_is_read_to_the_end() {
    for cap in [3, 100] {
        adopts_all(|behaviour| {
            behaviour.skip_instead_of_offset = true;
            behaviour.list_cap = cap;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_one_row_are_read_to_the_end() {
    adopts_all(|behaviour| behaviour.list_cap = 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_answered_with_200_and_a_search_that_takes_few_addresses_do() {
    adopts_all(|behaviour| {
        behaviour.create_status = 200;
        behaviour.search_batch_cap = Some(3);
        behaviour.search_ignores_case = true;
    })
    .await;
}
