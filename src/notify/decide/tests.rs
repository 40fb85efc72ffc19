//! Tests: what is told over days of a connector's life, look by look, without a clock.

use super::*;
use crate::model::ConnectorName;
use crate::state::{State, Store};
use crate::view::ConnectorStatus;

/// A connector's life as whoever tells sees it.
struct Life {
    store: Store,
    now: Timestamp,
    occasions: Vec<Occasion>,
    key: Option<(Date, i32)>,
    silence: Silence,
    bearing: Bearing,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl Life {
    /// One that is connected, and whose first collection is long over and told.
    fn new() -> Self {
        let mut store = crate::state::tests::store();
        let mut bearing = store.bearing().unwrap();
        let now = at("2026-11-24T10:00:00Z");
        bearing.about.state = ConnectorState::Connected;
        bearing.about.last_success = Some(now);
        bearing.status = ConnectorStatus::unknown("main", ConnectorState::Connected, None);
        Self {
            store,
            now,
            occasions: Occasion::ALL.to_vec(),
            key: None,
            silence: Silence::No,
            bearing,
        }
    }

    fn is(&mut self, state: ConnectorState) -> &mut Self {
        self.bearing.about.state = state;
        self.bearing.status.state = state;
        self
    }

    fn counts(&mut self, parked: u64, held: u64) -> &mut Self {
        let status = &mut self.bearing.status;
        (status.parked, status.held) = (parked, held);
        self
    }

    fn after(&mut self, minutes: i64) -> &mut Self {
        self.now += SignedDuration::from_mins(minutes);
        self
    }

    /// Looks, and writes down what is told.
    fn look(&mut self) -> Vec<Message> {
        let ground = Ground {
            now: self.now,
            name: "main",
            occasions: &self.occasions,
            bearing: &self.bearing,
            key: self.key,
            silence: self.silence,
        };
        let Some((told, messages)) = decide(&ground, &self.store.told().unwrap()) else {
            return Vec::new();
        };
        self.store.note_told(&told, &[]).unwrap();
        messages
    }

    fn events(&mut self) -> Vec<&'static str> {
        self.look().iter().map(|message| message.event.as_str()).collect()
    }
}

#[test]
fn a_change_is_told_once_and_so_is_its_end() {
    let mut life = Life::new();
    assert_eq!(life.events(), [""; 0], "all is well");
    life.bearing.about.reason = Some("Torq: 401".to_owned());
    life.bearing.about.action = Some("make a new key".to_owned());
    let told = life.is(ConnectorState::ReconnectRequired).look();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].title, "main: reconnect required");
    assert_eq!(told[0].reason.as_deref(), Some("Torq: 401"));
    assert_eq!(told[0].action.as_deref(), Some("make a new key"));
    for _ in 0..100 {
        assert_eq!(life.after(60).events(), [""; 0], "however long it lasts");
    }
    let told = life.is(ConnectorState::Connected).look();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].ended, [Occasion::ReconnectRequired]);
    assert_eq!(life.after(60).events(), [""; 0]);
}

#[test]
fn nothing_is_said_to_be_normal_before_it_is() {
    let mut life = Life::new();
    assert_eq!(
        life.is(ConnectorState::ReconnectRequired).events(),
        ["reconnect_required"]
    );
    assert_eq!(life.is(ConnectorState::Starting).events(), [""; 0]);
    assert_eq!(life.is(ConnectorState::NotLicensed).events(), ["not_licensed"]);
    assert_eq!(life.is(ConnectorState::Retrying).events(), [""; 0]);
    let told = life.is(ConnectorState::Connected).look();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].ended, [Occasion::NotLicensed, Occasion::ReconnectRequired]);
}

#[test]
fn while_a_run_goes_on_or_a_person_has_paused_it_nothing_changes() {
    let mut life = Life::new();
    life.is(ConnectorState::ReconnectRequired);
    life.bearing.running = true;
    assert_eq!(life.events(), [""; 0], "the run may get over it");
    life.bearing.running = false;
    life.bearing.about.paused = true;
    assert_eq!(life.events(), [""; 0]);
    life.bearing.about.paused = false;
    assert_eq!(life.events(), ["reconnect_required"]);
}

#[test]
fn whatever_was_told_to_begin_is_told_to_end() {
    let mut life = Life::new();
    assert_eq!(life.is(ConnectorState::NotLicensed).events(), ["not_licensed"]);
    assert_eq!(life.after(1).is(ConnectorState::Connected).events(), ["back_to_normal"]);
    assert_eq!(
        life.after(1).is(ConnectorState::ReconnectRequired).events(),
        ["reconnect_required"]
    );
    assert_eq!(life.after(1).is(ConnectorState::Connected).events(), ["back_to_normal"]);
}

#[test]
fn silence_has_the_reason_of_what_fails_and_of_nothing_else() {
    let mut life = Life::new();
    life.silence = Silence::For(Duration::from_secs(7200));
    life.bearing.about.reason = Some("the Torq API key expires tomorrow".to_owned());
    life.bearing.about.action = Some("extend the API key".to_owned());
    life.bearing.running = true;
    let told = life.look().remove(0);
    assert_eq!(told.reason.as_deref(), Some("no run has come to its end"));
    assert!(told.action.unwrap().contains("torq-connector status main"));
    assert!(told.status.is_some());

    let mut life = Life::new();
    life.silence = Silence::For(Duration::from_secs(7200));
    life.bearing.about.reason = Some("Torq: 503".to_owned());
    life.bearing.running = true;
    let told = life.is(ConnectorState::Retrying).look().remove(0);
    assert_eq!(told.reason.as_deref(), Some("Torq: 503"));
}

#[test]
fn what_flaps_is_told_ever_more_rarely() {
    let mut life = Life::new();
    let mut told = Vec::new();
    for minute in 0..3 * 24 * 60 {
        let state = if minute % 10 < 5 {
            ConnectorState::NotLicensed
        } else {
            ConnectorState::Connected
        };
        told.extend(life.is(state).events());
        life.after(1);
    }
    assert!((6..=24).contains(&told.len()), "{} in three days: {told:?}", told.len());
    // And each end follows its beginning.
    for pair in told.chunks(2) {
        assert_eq!(pair[0], "not_licensed");
        assert!(pair.get(1).is_none_or(|end| *end == "back_to_normal"), "{told:?}");
    }
    // After some calm days it is as the first time.
    life.is(ConnectorState::Connected).events();
    life.after(3 * 24 * 60).events();
    assert_eq!(life.is(ConnectorState::NotLicensed).events(), ["not_licensed"]);
    assert_eq!(life.is(ConnectorState::Connected).events(), ["back_to_normal"]);
    assert_eq!(
        life.after(61).is(ConnectorState::NotLicensed).events(),
        ["not_licensed"]
    );
}

#[test]
fn what_grows_is_told_again_once_a_day() {
    let mut life = Life::new();
    let told = life.counts(3, 0).look();
    assert_eq!(told[0].title, "main: 3 users are parked");
    let action = told[0].action.as_deref().unwrap();
    assert!(
        action.contains("torq-connector users main --account parked"),
        "{action}"
    );
    assert_eq!(life.counts(9, 0).after(60).events(), [""; 0], "within the day");
    let told = life.after(24 * 60).look();
    assert_eq!(told[0].title, "main: 9 users are parked");
    assert_eq!(life.counts(1, 0).after(48 * 60).events(), [""; 0], "fewer");
    assert_eq!(
        life.counts(2, 0).after(48 * 60).events(),
        ["parked"],
        "more than there were"
    );
    assert_eq!(life.counts(2, 1).look()[0].title, "main: 1 removal waits for approval");
    life.is(ConnectorState::Held).after(60).events();
    let told = life.counts(2, 0).is(ConnectorState::Connected).look();
    assert_eq!(
        told[0].ended,
        [Occasion::Held],
        "parked ones do not keep it from being normal"
    );
}

#[test]
fn the_end_of_a_key_is_told_at_each_of_its_days() {
    let mut life = Life::new();
    let day: Date = "2027-03-01".parse().unwrap();
    let mut told = Vec::new();
    for days in (-3..=20).rev() {
        life.key = Some((day, days));
        for message in life.after(24 * 60).look() {
            assert_eq!(message.key_expires, Some(day));
            told.push((days, message.title));
        }
    }
    let days: Vec<_> = told.iter().map(|(days, _)| *days).collect();
    assert_eq!(days, [14, 7, 3, 1, -1], "{told:?}");
    assert!(told[1].1.contains("in 7 days") && told[4].1.contains("expired on 2027-03-01"));
    // A new key, and its end a year later.
    life.key = Some(("2028-03-01".parse().unwrap(), 360));
    assert_eq!(life.events(), [""; 0]);
    life.key = Some(("2028-03-01".parse().unwrap(), 14));
    assert_eq!(life.after(346 * 24 * 60).events(), ["key_expires_soon"]);
}

#[test]
fn a_first_collection_is_told_if_it_is_fresh() {
    for (minutes, told) in [(5, vec!["first_collection"]), (3 * 24 * 60, vec![])] {
        let mut life = Life::new();
        life.bearing.collected_at = Some(life.now);
        assert_eq!(life.after(minutes).events(), told);
        assert_eq!(life.after(60).events(), [""; 0]);
    }
}

#[test]
fn silence_is_three_intervals_by_both_clocks() {
    let quarter = Duration::from_secs(15 * 60);
    let mut life = Life::new();
    let hours = |number: u64| Duration::from_secs(number * 3600);
    life.after(46);
    let silent = |life: &Life, quiet| silence(&life.bearing, life.now, quarter, quiet);
    assert_eq!(silent(&life, hours(1)), Silence::For(Duration::from_secs(46 * 60)));
    assert_eq!(
        silent(&life, quarter),
        Silence::Unsure,
        "the machine slept, or the process has just begun"
    );
    life.after(-2);
    assert_eq!(silent(&life, hours(1)), Silence::No);
    life.after(60);
    for state in [ConnectorState::ReconnectRequired, ConnectorState::NotLicensed] {
        assert_eq!(silent(life.is(state), hours(9)), Silence::No, "that was told already");
    }
    // A first collection may take its time.
    life.is(ConnectorState::Starting);
    life.bearing.about.last_success = None;
    life.bearing.first_run = Some(life.now);
    life.after(100);
    assert_eq!(silent(&life, hours(9)), Silence::No);
    life.after(30);
    assert!(matches!(silent(&life, hours(9)), Silence::For(_)));

    life.silence = Silence::For(hours(1));
    life.bearing.about.last_success = Some(life.now);
    let told = life.is(ConnectorState::Retrying).look();
    assert_eq!(told[0].title, "main: no success for 1 h");
    // A restart: by the wall clock it is too long still, and the process is too young to know.
    life.silence = Silence::Unsure;
    assert!(
        life.is(ConnectorState::Connected).events().is_empty(),
        "nothing has succeeded"
    );
    life.silence = Silence::For(hours(2));
    assert!(life.events().is_empty(), "that was told");
    life.silence = Silence::No;
    assert_eq!(life.is(ConnectorState::Connected).events(), ["back_to_normal"]);
}

#[test]
fn only_what_is_wanted_is_told() {
    let mut life = Life::new();
    life.occasions = vec![Occasion::NotLicensed];
    assert_eq!(
        life.is(ConnectorState::ReconnectRequired).counts(4, 4).events(),
        [""; 0]
    );
    assert_eq!(life.is(ConnectorState::NotLicensed).events(), ["not_licensed"]);
    assert_eq!(life.is(ConnectorState::Connected).counts(0, 0).events(), [""; 0]);
    life.occasions = Occasion::ALL.to_vec();
    assert_eq!(
        life.after(600).events(),
        [""; 0],
        "an end that nobody wanted to hear of is past"
    );
}

#[tokio::test]
async fn what_was_told_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let name = ConnectorName::parse("main").unwrap();
    let one = Told {
        occasion: "held".to_owned(),
        mark: "12".to_owned(),
        stage: Stage::Over,
        at: at("2026-11-24T10:00:00.5Z"),
        streak: 2,
    };
    let message = crate::state::Outgoing {
        id: "an-id".to_owned(),
        channel: "webhook".to_owned(),
        at: one.at,
        body: "{}".to_owned(),
    };
    let state = State::open(dir.path(), &name).unwrap();
    let (told, sent) = (one.clone(), message.clone());
    state
        .call(move |store| store.note_told(&[told], &[sent]))
        .await
        .unwrap();
    drop(state);
    let state = State::open(dir.path(), &name).unwrap();
    let (told, sent) = state
        .call(|store| Ok((store.told()?, store.outgoing()?)))
        .await
        .unwrap();
    assert_eq!((told, sent), (vec![one], vec![message]));
    state.call(|store| store.forget_told()).await.unwrap();
    assert!(state.call(|store| store.outgoing()).await.unwrap().is_empty());
}

#[test]
fn the_key_is_warned_of_at_14_7_3_and_1_days_and_when_it_is_over() {
    assert_eq!(key_step(15), None);
    assert_eq!(key_step(14), Some(14));
    assert_eq!(key_step(8), Some(14));
    assert_eq!(key_step(7), Some(7));
    assert_eq!(key_step(2), Some(3));
    assert_eq!(key_step(0), Some(1));
    assert_eq!(key_step(-4), Some(-1));
}
