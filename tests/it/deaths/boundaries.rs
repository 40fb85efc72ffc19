//! Killed at every write in turn, until a run survives: writes to files, and in the full stories also what is sent to peers.

use std::time::Instant;

use super::{assert_goes_on, pages, wanted};
use crate::interpose::{Death, kind};
use crate::life::Life;
use crate::world::fold;

/// How many lives are lived side by side.
const LANES: u64 = 6;
/// In the ordinary suite one boundary of so many is tried, beginning anywhere.
const STRIDE: u64 = 7;

/// What is tried at each boundary, and which calls are boundaries.
fn deaths(story: Story) -> Vec<(Death, u64)> {
    match wanted() {
        // Who made an account must survive the loss of power, too: where accounts are made, that is tried.
        None if matches!(story, Story::Arrivals) => vec![(Death::Before, kind::DISK), (Death::Power(0), kind::DISK)],
        None => vec![(Death::Before, kind::DISK)],
        Some(_) => vec![
            (Death::Before, kind::DISK | kind::SEND),
            (Death::After, kind::DISK | kind::SEND),
            (Death::Torn, kind::DISK),
            (Death::Power(0), kind::DISK),
            (Death::Power(7), kind::DISK),
        ],
    }
}

/// What happens before the run that is killed.
#[derive(Clone, Copy)]
enum Story {
    /// Nothing was ever collected.
    FirstCollection,
    /// Nothing happens.
    Unchanged,
    /// Somebody arrives, somebody's e-mail changes, somebody joins the directory.
    Arrivals,
    /// Somebody of ours is gone from Torq, and from the poll before, too.
    Removals,
}

impl Story {
    async fn begin(self) -> Life {
        let mut life = Life::new(5, |connector| connector).await;
        life.world().behave(|behaviour| behaviour.torq_page_cap = 2);
        if !matches!(self, Self::FirstCollection) {
            life.recover().await;
        }
        life
    }

    /// Whether the next round begins another life.
    fn is_over(self, life: &Life) -> bool {
        matches!(self, Self::FirstCollection) || life.world().people().len() > 12
    }

    async fn arrange(self, life: &mut Life, round: u64) {
        let world = life.world();
        match self {
            Self::FirstCollection | Self::Unchanged => {}
            Self::Arrivals => {
                let changed = life.somebody_of_ours();
                world.update_person(&changed.id, |one| one.email = format!("changed.{round}@example.com"));
                let joined = world.add_people(1).remove(0);
                world.add_to_directory(&joined.email);
            }
            Self::Removals => {
                world.add_people(1);
                life.recover().await;
                let gone = life.somebody_of_ours();
                world.remove_person(&gone.id);
                // Absent for the first time: still a user.
                life.sync().await.exits(0);
                let emails = world.accounts().into_iter().filter_map(|one| one.email);
                assert!(emails.map(|email| fold(&email)).any(|email| email == fold(&gone.email)));
            }
        }
    }
}

/// What came of one lane.
struct Survived {
    deaths: u64,
    /// Steps of the run that was not killed any more.
    steps: u64,
    /// Writes that a loss of power undid.
    lost: u64,
}

/// Rounds at the boundaries `first`, `first + every`, … until a run survives.
async fn lane(story: Story, how: Death, kinds: u64, first: u64, every: u64) -> Survived {
    let mut life = story.begin().await;
    let mut lost = 0;
    for (deaths, step) in (0..).zip((first..).step_by(every as usize)) {
        if deaths > 0 && story.is_over(&life) {
            lost += life.interpose.lost_writes();
            life = story.begin().await;
        }
        life.interpose.begin();
        story.arrange(&mut life, step).await;
        let world = life.world();
        let already = pages(&world).len();
        let dead = life.interpose.deaths();
        life.interpose.begin();
        life.interpose.count(kinds);
        life.interpose.kill_at(step, how);
        let ran = life.sync().await;
        let died = life.interpose.deaths() > dead;
        assert_eq!(died, ran.code == -1, "at {step}: {}", ran.err);
        let steps = life.interpose.steps();
        let before = pages(&world)[already..].to_vec();
        // Without power, the last pages may be lost together with their cursors.
        let goes_on = life.is_in_poll() && !matches!(how, Death::Power(_));
        life.interpose.begin();
        life.sync().await.exits(0);
        if goes_on {
            assert_goes_on(&before, &pages(&world)[already + before.len()..]);
        }
        if matches!(story, Story::Arrivals) {
            // The account that a changed e-mail leaves behind goes with the second poll that misses it.
            life.sync().await.exits(0);
        }
        life.assert_in_step();
        if !died {
            assert!(steps > 0 && steps < step, "{steps} steps, and alive at {step}");
            lost += life.interpose.lost_writes();
            return Survived { deaths, steps, lost };
        }
    }
    unreachable!("a run survives in the end")
}

async fn at_every_boundary(story: Story, name: &str) {
    let stride = if wanted().is_some() { 1 } else { STRIDE };
    let offset = fastrand::u64(0..stride);
    for (how, kinds) in deaths(story) {
        let began = Instant::now();
        let lanes = (0..LANES).map(|number| {
            let first = 1 + offset + number * stride;
            tokio::spawn(lane(story, how, kinds, first, LANES * stride))
        });
        let survived: Vec<_> = futures_util::future::join_all(lanes)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let deaths: u64 = survived.iter().map(|one| one.deaths).sum();
        let steps = survived.iter().map(|one| one.steps).max().unwrap();
        let took = began.elapsed().as_secs_f64();
        println!(
            "deaths: {name}, {how:?}: {deaths} deaths, one at every {stride} of {steps} boundaries, in {took:.1} s"
        );
        let lost: u64 = survived.iter().map(|one| one.lost).sum();
        let loses = matches!(how, Death::Power(_)) && !matches!(story, Story::FirstCollection);
        assert!(!loses || lost > 0, "no write was ever lost with the power");
        // Steps differ a little from run to run, since requests are answered in another order.
        assert!(deaths * stride > steps / 2, "{deaths} deaths at {steps} boundaries");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_collection_can_die_at_every_write() {
    at_every_boundary(Story::FirstCollection, "first collection").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_finds_nothing_new_can_die_at_every_write() {
    at_every_boundary(Story::Unchanged, "unchanged poll").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_arrivals_and_changes_can_die_at_every_write() {
    at_every_boundary(Story::Arrivals, "arrivals").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_can_die_at_every_write() {
    at_every_boundary(Story::Removals, "removals").await;
}
