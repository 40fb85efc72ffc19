//! Pages against the whole: nobody twice, nobody left out, and what a page reads does not grow with the workspace.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use rusqlite::StatementStatus;

use super::super::{EventQuery, State};
use super::*;
use crate::model::ConnectorName;

/// A store in memory with so many users, of whom each is another: every seventh is not in the directory, every eleventh local,
/// every thirteenth never logged in, every seventeenth parked, and so on. Three events each.
fn peopled(users: u32) -> Store {
    let name = ConnectorName::parse("main").unwrap();
    let state = State::scratch(Path::new("/nonexistent"), &name).unwrap();
    let store = Arc::into_inner(state.shared).unwrap().store.into_inner().unwrap();
    store
        .db
        .execute_batch(&format!(
            "CREATE TEMP TABLE numbers AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {users}) SELECT i FROM n;
             INSERT INTO users (id, email, email_key, status, sso, role_id, created, last_login, fingerprint, first_seen, filtered, removal)
             SELECT 'id-' || (i * 7919 % 1000003), 'User' || (i * 104729 % 1000003) || '@example.com', 'user' || (i * 104729 % 1000003) || '@example.com',
                CASE i % 5 WHEN 0 THEN 'INVITATION_SENT' ELSE 'VERIFIED' END, i % 11 > 0, 'role-' || (i % 3),
                strftime('%Y-%m-%dT%H:%M:%SZ', 1700000000 + i * 60, 'unixepoch'),
                CASE i % 13 WHEN 0 THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:%S.000000001Z', 1760000000 + i * 977 % 20000000, 'unixepoch') END,
                i, strftime('%Y-%m-%dT%H:%M:%S.000Z', 1780000000 + i / 100, 'unixepoch'),
                CASE i % 19 WHEN 0 THEN 'filtered' END, CASE i % 23 WHEN 0 THEN 'held' END
             FROM numbers;
             INSERT INTO accounts (email_key, account_id, origin, directory_user_id, match_id, matched_at, refused)
             SELECT email_key, CASE WHEN no % 17 > 0 AND no % 29 > 0 THEN 'a' || no END, CASE no % 2 WHEN 0 THEN 'created' ELSE 'found' END,
                NULL, CASE WHEN no % 7 > 0 THEN 'd' || no END, CASE WHEN no % 31 > 0 THEN '2026-11-01T00:00:00.000Z' END,
                CASE no % 17 WHEN 0 THEN 'no' END
             FROM users WHERE no % 37 > 0;
             INSERT INTO roles VALUES ('role-0', 'Viewer'), ('role-1', 'Admin');
             INSERT INTO events (at, kind, user_id, email)
             SELECT strftime('%Y-%m-%dT%H:%M:%S.000Z', 1780000000 + no / 10, 'unixepoch'), 'user_appeared', id, email FROM users
             UNION ALL SELECT strftime('%Y-%m-%dT%H:%M:%S.000Z', 1780100000 + no / 10, 'unixepoch'), 'account_created', id, email FROM users
             UNION ALL SELECT strftime('%Y-%m-%dT%H:%M:%S.000Z', 1780050000 + no / 10, 'unixepoch'), 'user_disappeared', id, email FROM users WHERE no % 1000 = 0"
        ))
        .unwrap();
    store
}

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn selections() -> Vec<UserSelection> {
    let nobody_special = UserSelection::default();
    let mut selections = vec![
        nobody_special.clone(),
        UserSelection {
            search: Some("ER10".to_owned()),
            ..nobody_special.clone()
        },
        UserSelection {
            search: Some("id-7".to_owned()),
            sso: Some(true),
            ..nobody_special.clone()
        },
        UserSelection {
            search: Some("nobody%_'\"".to_owned()),
            ..nobody_special.clone()
        },
        UserSelection {
            status: Some("VERIFIED".to_owned()),
            sso: Some(false),
            ..nobody_special.clone()
        },
        UserSelection {
            unmatched: true,
            ..nobody_special.clone()
        },
        UserSelection {
            dormant_since: Some(moment("2026-01-01T00:00:00Z")),
            ..nobody_special.clone()
        },
    ];
    selections.extend(AccountStanding::ALL.map(|account| UserSelection {
        account: Some(account),
        unmatched: account == AccountStanding::Found,
        ..nobody_special.clone()
    }));
    selections
}

/// What a selection means, said a second time.
fn admits(selection: &UserSelection, row: &PageUser) -> bool {
    let user = &row.user;
    let last = user.last_login.as_ref().or(user.created.as_ref()).unwrap();
    selection.search.as_ref().is_none_or(|search| {
        user.email.to_lowercase().contains(&search.to_lowercase()) || user.id.contains(search.as_str())
    }) && selection.account.is_none_or(|account| user.account == account)
        && selection.status.as_ref().is_none_or(|status| user.status == *status)
        && selection.sso.is_none_or(|sso| user.sso == sso)
        && (!selection.unmatched || matches!(row.directory, Directory::Absent(_)))
        && selection.dormant_since.is_none_or(|since| moment(last) < since)
}

const ORDERS: [UserOrder; 7] = [
    UserOrder::Email,
    UserOrder::Status,
    UserOrder::Sso,
    UserOrder::Role,
    UserOrder::Account,
    UserOrder::LastLogin,
    UserOrder::FirstSeen,
];

fn key(order: UserOrder, user: &UserView) -> Option<String> {
    match order {
        UserOrder::Email => Some(user.email.to_lowercase()),
        UserOrder::Status => Some(user.status.clone()),
        UserOrder::Sso => Some(user.sso.to_string()),
        UserOrder::Role => Some(user.role.clone().unwrap_or(user.role_id.clone())),
        UserOrder::Account => Some(user.account.as_str().to_owned()),
        UserOrder::LastLogin => user.last_login.clone(),
        UserOrder::FirstSeen => Some(user.first_seen.to_string()),
    }
}

#[test]
fn pages_of_users_are_the_selected_ones_in_order_and_nobody_twice() {
    let mut store = peopled(400);
    let whole = UserPageQuery {
        limit: u32::MAX,
        ..UserPageQuery::default()
    };
    let everybody = store.user_page(&whole).unwrap();
    assert_eq!((everybody.total, everybody.users.len()), (400, 400));
    let mut seen = 0;
    for selection in selections() {
        let expected: BTreeSet<_> = everybody
            .users
            .iter()
            .filter(|row| admits(&selection, row))
            .map(|row| row.user.id.clone())
            .collect();
        seen += usize::from(!expected.is_empty());
        for order in ORDERS {
            for descending in [false, true] {
                let mut found = Vec::new();
                let mut total = None;
                while total.is_none_or(|total| (found.len() as u64) < total) {
                    let query = UserPageQuery {
                        selection: selection.clone(),
                        order,
                        descending,
                        offset: found.len() as u64,
                        limit: 70,
                    };
                    let page = store.user_page(&query).unwrap();
                    assert!(!page.users.is_empty() || page.total == found.len() as u64, "{query:?}");
                    total = Some(page.total);
                    found.extend(page.users);
                }
                let ids: BTreeSet<_> = found.iter().map(|row| row.user.id.clone()).collect();
                assert_eq!(ids, expected, "{selection:?} {order:?}");
                assert_eq!(ids.len(), found.len(), "{selection:?} {order:?}");
                let keys: Vec<_> = found.iter().map(|row| key(order, &row.user)).collect();
                let sorted = keys.windows(2).all(|pair| {
                    if descending {
                        pair[0] >= pair[1]
                    } else {
                        pair[0] <= pair[1]
                    }
                });
                assert!(sorted, "{selection:?} {order:?} {descending}: {keys:?}");
            }
        }
    }
    assert_eq!(seen, selections().len() - 1, "all selections but one select somebody");
    for selection in selections() {
        let first = UserPageQuery {
            selection,
            limit: 1,
            ..UserPageQuery::default()
        };
        let behind = UserPageQuery {
            offset: 1000,
            ..first.clone()
        };
        let (first, behind) = (store.user_page(&first).unwrap(), store.user_page(&behind).unwrap());
        assert_eq!((behind.total, behind.users.len()), (first.total, 0));
    }
}

#[test]
fn the_survey_counts_what_selecting_finds() {
    let mut store = peopled(400);
    let survey = store.survey().unwrap();
    let mut count = |selection: UserSelection| {
        let query = UserPageQuery {
            selection,
            limit: 1,
            ..UserPageQuery::default()
        };
        store.user_page(&query).unwrap().total
    };
    assert_eq!(
        survey.unmatched,
        count(UserSelection {
            unmatched: true,
            ..UserSelection::default()
        })
    );
    assert_eq!(
        survey.sso,
        count(UserSelection {
            sso: Some(true),
            ..UserSelection::default()
        })
    );
    assert_eq!(survey.statuses.values().sum::<u64>(), 400);
    for (status, counted) in &survey.statuses {
        assert_eq!(
            *counted,
            count(UserSelection {
                status: Some(status.clone()),
                ..UserSelection::default()
            })
        );
    }
    // Counted again when something changed.
    store
        .db
        .execute(
            "UPDATE users SET removed_at = '2026-11-01T00:00:00.000Z' WHERE no = 1",
            [],
        )
        .unwrap();
    assert_eq!(store.survey().unwrap().statuses.values().sum::<u64>(), 399);
}

#[test]
fn a_user_is_known_also_when_removed() {
    let store = peopled(40);
    let first = store
        .db
        .query_row("SELECT id FROM users WHERE no = 1", [], |row| row.get::<_, String>(0))
        .unwrap();
    store
        .db
        .execute_batch("UPDATE users SET email_key = 'same@example.com' WHERE no IN (1, 2); UPDATE users SET removed_at = '2026-11-01T00:00:00.000Z' WHERE no = 3")
        .unwrap();
    let detail = store.user(&first).unwrap().unwrap();
    assert_eq!((detail.removed_at, detail.sharing.len()), (None, 1));
    let third = store
        .db
        .query_row("SELECT id FROM users WHERE no = 3", [], |row| row.get::<_, String>(0))
        .unwrap();
    let detail = store.user(&third).unwrap().unwrap();
    assert_eq!(detail.removed_at, Some(moment("2026-11-01T00:00:00Z")));
    assert!(detail.user.account_id.is_none());
    assert!(store.user("nobody").unwrap().is_none());
}

#[test]
fn pages_of_events_are_the_wanted_ones_newest_first_and_none_twice() {
    let store = peopled(1500);
    let whole = store.events(&EventQuery::default()).unwrap();
    let first = whole[0].user_id.clone().unwrap();
    let queries = [
        EventPageQuery::default(),
        EventPageQuery {
            kind: Some(EventKind::UserAppeared),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            kind: Some(EventKind::AccountLost),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            user_id: Some(first),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            user: Some("USER10".to_owned()),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            since: whole[20].at.map(|at| at + SignedDuration::from_secs(1)),
            kind: Some(EventKind::UserAppeared),
            ..EventPageQuery::default()
        },
    ];
    for query in queries {
        let expected = whole
            .iter()
            .filter(|event| {
                query.kind.is_none_or(|kind| event.kind == kind)
                    && query
                        .user_id
                        .as_ref()
                        .is_none_or(|id| event.user_id.as_ref() == Some(id))
                    && query.user.as_ref().is_none_or(|user| {
                        event
                            .email
                            .as_ref()
                            .unwrap()
                            .to_lowercase()
                            .contains(&user.to_lowercase())
                    })
                    && query.since.is_none_or(|since| event.at.unwrap() >= since)
            })
            .count();
        let mut found = Vec::new();
        let mut before = None;
        loop {
            // 70 divides no number of events of one moment: pages end among events of the same time.
            let page = store
                .event_page(&EventPageQuery {
                    before,
                    limit: 70,
                    ..query.clone()
                })
                .unwrap();
            found.extend(page.events);
            match page.next {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        assert_eq!(found.len(), expected, "{query:?}");
        assert!(found.windows(2).all(|pair| pair[0].at >= pair[1].at), "{query:?}");
        let different: BTreeSet<_> = found
            .iter()
            .map(|event| (event.kind.as_str(), event.user_id.clone()))
            .collect();
        assert_eq!(different.len(), found.len(), "{query:?}");
    }
}

/// How many steps SQLite's machine takes for a statement, and whether it sorts.
fn steps(store: &Store, sql: &str, values: Vec<Value>) -> (i32, i32) {
    let mut statement = store.db.prepare(sql).unwrap();
    {
        let mut rows = statement.query(params_from_iter(values)).unwrap();
        while rows.next().unwrap().is_some() {}
    }
    (
        statement.get_status(StatementStatus::VmStep),
        statement.get_status(StatementStatus::Sort),
    )
}

#[test]
fn what_a_page_reads_does_not_grow_with_the_workspace() {
    let store = peopled(50_000);
    let page = |query: UserPageQuery| {
        let (sql, values) = page_sql(&UserPageQuery { limit: 50, ..query }, "s.no");
        steps(&store, &sql, values)
    };
    for descending in [false, true] {
        let (steps, sorts) = page(UserPageQuery {
            descending,
            ..UserPageQuery::default()
        });
        assert!(steps < 1000 && sorts == 0, "{steps} steps, {sorts} sorts");
    }
    // The last page is read from the end.
    let last = UserPageQuery {
        offset: 49_950,
        ..UserPageQuery::default()
    };
    let (last, back) = from_the_nearer_end(&UserPageQuery { limit: 50, ..last }, 50_000);
    assert!(back && last.descending && last.offset == 0);
    let (steps_last, _) = page(last);
    assert!(steps_last < 1000, "{steps_last} steps");
    // Another order walks over all users once, and takes nobody into memory but the page.
    let (steps_sorted, _) = page(UserPageQuery {
        order: UserOrder::LastLogin,
        ..UserPageQuery::default()
    });
    assert!(steps_sorted < 50_000 * 20, "{steps_sorted} steps");

    let events = |query: EventPageQuery| {
        let (sql, values) = events_sql(&EventPageQuery { limit: 50, ..query });
        steps(&store, &sql, values)
    };
    let id = store
        .db
        .query_row("SELECT id FROM users WHERE no = 777", [], |row| row.get::<_, String>(0))
        .unwrap();
    for query in [
        EventPageQuery::default(),
        EventPageQuery {
            user_id: Some(id),
            ..EventPageQuery::default()
        },
        // Few of many, and none at all.
        EventPageQuery {
            kind: Some(EventKind::UserDisappeared),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            kind: Some(EventKind::AccountLost),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            since: Some(moment("2026-12-01T00:00:00Z")),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            kind: Some(EventKind::UserAppeared),
            since: Some(moment("2026-05-28T00:00:00Z")),
            before: Some(25_000),
            ..EventPageQuery::default()
        },
        EventPageQuery {
            before: Some(1000),
            ..EventPageQuery::default()
        },
    ] {
        let (steps, sorts) = events(query.clone());
        // The few events of one user are sorted.
        let sorted = i32::from(query.user_id.is_some());
        assert!(
            steps < 2500 && sorts == sorted,
            "{query:?}: {steps} steps, {sorts} sorts"
        );
    }
}
