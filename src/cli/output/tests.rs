//! What is written, letter by letter where that is promised.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::view::{
    AccountStanding, ConnectorState, ConnectorStatus, DryRun, DryRunCounts, EventKind, EventView, Guard, Progress,
    RunCounts, RunOutcome, RunSummary, UserView,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn look(format: Format) -> Look {
    Look {
        format,
        colour: false,
        terminal: false,
        width: None,
        now: at("2026-11-24T10:00:00Z"),
    }
}

fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn connector(name: &str, state: ConnectorState) -> ConnectorStatus {
    ConnectorStatus::unknown(name, state, None)
}

fn statuses() -> StatusReport {
    let main = ConnectorStatus {
        leftover: 2,
        last_success: Some(at("2026-11-24T09:57:00Z")),
        next_poll: Some(at("2026-11-24T10:12:00Z")),
        users: 1200,
        accounts: 1198,
        associated: 1100,
        pending: 1,
        parked: 1,
        removed: 4,
        last_run: Some(RunSummary {
            started: at("2026-11-24T09:56:00Z"),
            finished: Some(at("2026-11-24T09:57:00Z")),
            outcome: Some(RunOutcome::Partial),
            counts: RunCounts {
                created: 3,
                ..RunCounts::default()
            },
        }),
        ..connector("main", ConnectorState::Connected)
    };
    let other = ConnectorStatus {
        reason: Some("JumpCloud says:\u{1b}[2J no".to_owned()),
        action: Some("make another key".to_owned()),
        progress: Some(Progress {
            users: 300,
            pages: 1,
            started: at("2026-11-24T09:59:00Z"),
        }),
        ..connector("second.tenant", ConnectorState::ReconnectRequired)
    };
    StatusReport {
        daemon: true,
        connectors: vec![main, other],
    }
}

fn user(email: &str, account: AccountStanding) -> UserView {
    UserView {
        connector: "main".to_owned(),
        id: format!("id-{email}"),
        email: email.to_owned(),
        status: "VERIFIED".to_owned(),
        sso: true,
        role_id: "r1".to_owned(),
        role: Some("Owner".to_owned()),
        created: Some("2026-01-01T00:00:00Z".to_owned()),
        last_login: None,
        first_seen: at("2026-11-24T09:00:00Z"),
        account,
        account_id: None,
        directory_user_id: None,
        reason: None,
    }
}

fn people() -> UsersReport {
    let ada = UserView {
        account_id: Some("a1".to_owned()),
        directory_user_id: Some("d1".to_owned()),
        ..user("ada@example.com", AccountStanding::Created)
    };
    let nobody = UserView {
        sso: false,
        role: None,
        reason: Some("Torq has no e-mail for this user".to_owned()),
        ..user("", AccountStanding::Parked)
    };
    UsersReport {
        users: vec![ada, nobody],
    }
}

fn event(kind: EventKind, email: &str) -> EventView {
    EventView {
        at: None,
        connector: "main".to_owned(),
        run: None,
        kind,
        user_id: Some(format!("id-{email}")),
        email: Some(email.to_owned()),
        before: None,
        after: None,
        reason: None,
    }
}

fn happenings() -> EventsReport {
    let changed = EventView {
        at: Some(at("2026-11-24T09:00:01.5Z")),
        run: Some(7),
        before: Some(json!({"last_login": null, "status": "INVITED"})),
        after: Some(json!({"last_login": "2026-11-24T08:59:00Z", "status": "VERIFIED"})),
        ..event(EventKind::UserChanged, "ada@example.com")
    };
    let state = EventView {
        at: Some(at("2026-11-24T09:30:00Z")),
        user_id: None,
        email: None,
        before: Some(json!({"state": "connected"})),
        after: Some(json!({"state": "retrying"})),
        reason: Some("Torq: 503".to_owned()),
        ..event(EventKind::StateChanged, "")
    };
    EventsReport {
        events: vec![changed, state],
    }
}

fn previews() -> DryRunReport {
    let main = DryRun {
        name: "main".to_owned(),
        error: None,
        changes: vec![
            event(EventKind::UserAppeared, "ada@example.com"),
            event(EventKind::RemovalHeld, "bob@example.com"),
            event(EventKind::UserAppeared, "cyd@example.com"),
            EventView {
                reason: Some("no e-mail".to_owned()),
                ..event(EventKind::AccountRefused, "")
            },
        ],
        counts: DryRunCounts {
            run: RunCounts {
                appeared: 2,
                ..RunCounts::default()
            },
            held: 1,
            parked: 1,
            pending: 0,
        },
        guard: Guard {
            limit: 5,
            removals_24h: 5,
            candidates: 1,
            held_already: 0,
            held: true,
        },
        notes: vec!["the application would be created first".to_owned()],
    };
    let idle = DryRun {
        name: "idle".to_owned(),
        error: None,
        changes: Vec::new(),
        counts: DryRunCounts::default(),
        guard: Guard::default(),
        notes: Vec::new(),
    };
    DryRunReport {
        connectors: vec![main, idle],
    }
}

#[test]
fn json_is_the_shape_itself() {
    let told = written(|out| status(out, &statuses(), look(Format::Json)));
    assert!(
        told.starts_with("{\n  \"connectors\": [\n    {\n      \"name\": \"main\",\n      \"state\": \"connected\",\n")
    );
    assert!(told.ends_with("}\n"));
    let parsed: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(parsed, serde_json::to_value(statuses()).unwrap());
    assert_eq!(parsed["connectors"][0]["last_run"]["outcome"], "partial");
    assert_eq!(parsed["connectors"][1]["last_run"], Value::Null);
    let told = written(|out| users(out, &UsersReport { users: Vec::new() }, look(Format::Json)));
    assert_eq!(told, "{\n  \"users\": []\n}\n");
    for told in [
        written(|out| events(out, &happenings(), look(Format::Json))),
        written(|out| dry_run(out, &previews(), look(Format::Json))),
    ] {
        serde_json::from_str::<Value>(&told).unwrap();
    }
}

#[test]
fn the_status_as_csv_has_nested_fields_flattened() {
    assert_eq!(
        written(|out| status(out, &statuses(), look(Format::Csv))),
        "name,state,reason,action,last_success,next_poll,users,accounts,associated,pending,parked,held,removed,filtered,\
         associations_pending,deletions_pending,progress_users,progress_pages,progress_started,last_run_started,last_run_finished,\
         last_run_outcome,last_run_appeared,last_run_changed,last_run_disappeared,last_run_created,last_run_found,\
         last_run_associated,last_run_deleted,last_run_refused,leftover,deletions_parked,accounts_held\n\
         main,connected,,,2026-11-24T09:57:00Z,2026-11-24T10:12:00Z,1200,1198,1100,1,1,0,4,0,0,0,,,,\
         2026-11-24T09:56:00Z,2026-11-24T09:57:00Z,partial,0,0,0,3,0,0,0,0,2,0,0\n\
         second.tenant,reconnect_required,JumpCloud says:\u{1b}[2J no,make another key,,,0,0,0,0,0,0,0,0,0,0,300,1,\
         2026-11-24T09:59:00Z,,,,,,,,,,,,0,0,0\n"
    );
}

#[test]
fn users_and_events_as_csv() {
    assert_eq!(
        written(|out| users(out, &people(), look(Format::Csv))),
        "connector,id,email,status,sso,role_id,role,created,last_login,first_seen,account,account_id,directory_user_id,reason\n\
         main,id-ada@example.com,ada@example.com,VERIFIED,true,r1,Owner,2026-01-01T00:00:00Z,,2026-11-24T09:00:00Z,created,a1,d1,\n\
         main,id-,,VERIFIED,false,r1,,2026-01-01T00:00:00Z,,2026-11-24T09:00:00Z,parked,,,Torq has no e-mail for this user\n"
    );
    assert_eq!(
        written(|out| events(out, &happenings(), look(Format::Csv))),
        "at,connector,run,kind,user_id,email,before,after,reason\n\
         2026-11-24T09:00:01.5Z,main,7,user_changed,id-ada@example.com,ada@example.com,\
         \"{\"\"last_login\"\":null,\"\"status\"\":\"\"INVITED\"\"}\",\
         \"{\"\"last_login\"\":\"\"2026-11-24T08:59:00Z\"\",\"\"status\"\":\"\"VERIFIED\"\"}\",\n\
         2026-11-24T09:30:00Z,main,,state_changed,,,\"{\"\"state\"\":\"\"connected\"\"}\",\"{\"\"state\"\":\"\"retrying\"\"}\",Torq: 503\n"
    );
    let changes = written(|out| dry_run(out, &previews(), look(Format::Csv)));
    assert_eq!(changes.lines().count(), 5);
    assert!(changes.contains("\n,main,,removal_held,id-bob@example.com,bob@example.com,,,\n"));
}

#[test]
fn csv_without_rows_has_its_header() {
    let nobody = UsersReport { users: Vec::new() };
    let told = written(|out| users(out, &nobody, look(Format::Csv)));
    assert_eq!(told.lines().count(), 1);
    assert!(told.starts_with("connector,id,email,"));
}

#[test]
fn csv_leaves_no_field_out() {
    fn fields(prefix: &str, value: &Value, deep: bool, found: &mut BTreeSet<String>) {
        for (name, value) in value.as_object().unwrap() {
            match value {
                Value::Object(_) if deep => fields(&format!("{prefix}{name}/"), value, deep, found),
                _ => {
                    found.insert(format!("{prefix}{name}"));
                }
            }
        }
    }
    fn all(value: impl Serialize, deep: bool) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        fields("", &serde_json::to_value(value).unwrap(), deep, &mut found);
        found
    }
    fn columns(columns: &[&str]) -> BTreeSet<String> {
        columns.iter().map(|column| (*column).to_owned()).collect()
    }
    let mut full = statuses().connectors.remove(0);
    full.progress = statuses().connectors.remove(1).progress;
    assert_eq!(columns(&rows::STATUS), all(full, true));
    assert_eq!(columns(&rows::USERS), all(people().users.remove(0), false));
    assert_eq!(columns(&rows::EVENTS), all(happenings().events.remove(0), false));
}

#[test]
fn no_cell_becomes_a_formula() {
    for begins in ["=", "+", "-", "@", "\t", "\r"] {
        let report = UsersReport {
            users: vec![user(&format!("{begins}cmd|'/C calc'!A0"), AccountStanding::Pending)],
        };
        let told = written(|out| users(out, &report, look(Format::Csv)));
        let mut lines = csv::Reader::from_reader(told.as_bytes());
        let row = lines.records().next().unwrap().unwrap();
        assert_eq!(&row[2], format!("'{begins}cmd|'/C calc'!A0"));
    }
}

#[test]
fn a_formula_behind_white_space_or_of_another_width_is_none_either() {
    for begins in [
        " =",
        "\u{3000}+",
        "\u{feff}=",
        "\u{200b}-",
        "＝",
        "＋",
        "－",
        "＠",
        "\u{1b}=",
        " \t@",
    ] {
        let report = UsersReport {
            users: vec![user(&format!("{begins}1+1"), AccountStanding::Pending)],
        };
        let told = written(|out| users(out, &report, look(Format::Csv)));
        let row = csv::Reader::from_reader(told.as_bytes())
            .records()
            .next()
            .unwrap()
            .unwrap();
        assert!(row[2].starts_with('\''), "{begins:?}: {:?}", &row[2]);
    }
    let report = UsersReport {
        users: vec![user("zoe=1 @ home", AccountStanding::Pending)],
    };
    let told = written(|out| users(out, &report, look(Format::Csv)));
    assert!(told.contains(",zoe=1 @ home,"), "{told}");
}

#[test]
fn no_text_steers_a_terminal_in_any_format() {
    let evil = "a\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\rz@example.com";
    let mut shown = happenings();
    shown.events[0].email = Some(evil.to_owned());
    shown.events[0].reason = Some(evil.to_owned());
    shown.events[0].before = Some(serde_json::json!({ "email": evil }));
    for format in [Format::Table, Format::Csv, Format::Json] {
        let look = Look {
            terminal: true,
            ..look(format)
        };
        let told = written(|out| events(out, &shown, look));
        let steering: Vec<char> = told
            .chars()
            .filter(|c| crate::model::steers(*c) && *c != '\n')
            .collect();
        assert!(steering.is_empty(), "{format:?}: {steering:?} in {told}");
        if format == Format::Json {
            let read: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert_eq!(read["events"][0]["email"], evil, "what is escaped means the same");
        }
        if format == Format::Csv {
            let row = csv::Reader::from_reader(told.as_bytes())
                .records()
                .next()
                .unwrap()
                .unwrap();
            let before: serde_json::Value = serde_json::from_str(&row[6]).unwrap();
            assert_eq!(before["email"], evil);
        }
    }
}

#[test]
fn the_status_as_a_table() {
    assert_eq!(
        written(|out| status(out, &statuses(), look(Format::Table))),
        "\
CONNECTOR      STATE               USERS  ACCOUNTS  PENDING  PARKED  LAST SUCCESS  NEXT POLL
main           connected            1200      1198        1       1  3 min ago     in 12 min
second.tenant  reconnect required      0         0        0       0  never         –

main: parked, and why: torq-connector users main --account parked
  when that is settled: torq-connector retry main
  2 accounts of users who left stay: torq-connector report drift main
second.tenant: JumpCloud says:\u{fffd}[2J no
  300 users on 1 page so far, since 2026-11-24 09:59:00Z
  to do: make another key
"
    );
    let none = StatusReport {
        connectors: Vec::new(),
        daemon: false,
    };
    assert_eq!(
        written(|out| status(out, &none, look(Format::Table))),
        "no connectors\n"
    );
}

#[test]
fn tables_fit_eighty_columns() {
    let narrow = Look {
        width: Some(80),
        ..look(Format::Table)
    };
    let mut report = people();
    report.users[1].reason = Some("a long story ".repeat(12));
    let tables = [
        written(|out| status(out, &statuses(), narrow)),
        written(|out| users(out, &report, narrow)),
        written(|out| events(out, &happenings(), narrow)),
    ];
    for table in tables {
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn colours_only_when_asked_for() {
    let colourful = Look {
        colour: true,
        ..look(Format::Table)
    };
    let told = written(|out| status(out, &statuses(), colourful));
    assert!(told.contains("\u{1b}["), "{told}");
    for format in [Format::Json, Format::Csv] {
        let look = Look { format, ..colourful };
        let told = written(|out| users(out, &people(), look));
        assert!(!told.contains('\u{1b}'), "{told}");
    }
}

#[test]
fn users_as_a_table() {
    assert_eq!(
        written(|out| users(out, &people(), look(Format::Table))),
        "\
USER             STATUS    ROLE   SSO  ACCOUNT  ASSOCIATED  REASON
ada@example.com  VERIFIED  Owner  yes  created  yes
id-              VERIFIED  r1     no   parked   –           Torq has no e-mail for this user
"
    );
    let mut two = people();
    two.users[1].connector = "other".to_owned();
    two.users[1].email = "eve\u{1b}]0;x\u{7}@example.com\n".to_owned();
    let told = written(|out| users(out, &two, look(Format::Table)));
    assert!(told.starts_with("CONNECTOR  USER"), "{told}");
    assert!(
        told.contains("other      eve\u{fffd}]0;x\u{fffd}@example.com"),
        "{told}"
    );
    let nobody = UsersReport { users: Vec::new() };
    assert_eq!(written(|out| users(out, &nobody, look(Format::Table))), "no users\n");
}

#[test]
fn events_as_a_table() {
    assert_eq!(
        written(|out| events(out, &happenings(), look(Format::Table))),
        "\
TIME                  EVENT          USER             DETAILS
2026-11-24 09:00:01Z  user changed   ada@example.com  last login: 2026-11-24 08:59:00Z; status: INVITED → VERIFIED
2026-11-24 09:30:00Z  state changed  –                state: connected → retrying; Torq: 503
"
    );
    let nothing = EventsReport { events: Vec::new() };
    assert_eq!(written(|out| events(out, &nothing, look(Format::Table))), "no events\n");
}

#[test]
fn a_dry_run_tells_what_would_happen() {
    assert_eq!(
        written(|out| dry_run(out, &previews(), look(Format::Table))),
        "\
main: a run would make changes: 2 new

  2 new users in Torq:
    ada@example.com
    cyd@example.com

  1 removal to hold until approved:
    bob@example.com

  1 user to park:
    id- (no e-mail)

  afterwards: 1 parked, 1 held
  removal guard: 1 removal to come, 5 in the last 24 hours, up to 5 believed; they would be held until the users are back or: torq-connector approve main
  note: the application would be created first

idle: nothing would change
"
    );
}

#[test]
fn a_first_run_of_thousands_stays_readable() {
    let mut report = previews();
    report.connectors.truncate(1);
    report.connectors[0].changes = (0..5000)
        .map(|number| event(EventKind::AccountCreated, &format!("{number}@example.com")))
        .collect();
    let told = written(|out| dry_run(out, &report, look(Format::Table)));
    assert!(told.contains("5000 accounts to create:"), "{told}");
    assert!(
        told.contains("… and 4900 more; --format json or csv lists all of them"),
        "{told}"
    );
    assert!(told.lines().count() < 115);
}
