//! Who is delivered, and what the fingerprints notice.

use super::*;
use crate::model::EmailKey;

fn filter(domains: &[&str], emails: &[&str], statuses: &[&str]) -> UserFilter {
    let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
    UserFilter {
        include_domains: own(domains),
        exclude_emails: own(emails),
        statuses: own(statuses),
    }
}

#[test]
fn an_empty_filter_admits_everybody() {
    for email in ["a@b.example", "", "odd"] {
        filter(&[], &[], &[]).admits(&EmailKey::fold(email), "NEW_ONE").unwrap();
    }
}

#[test]
fn domains_addresses_and_statuses_decide() {
    let filter = filter(
        &["a.example", "b.example"],
        &["*@b.example", "test-*@a.*"],
        &["VERIFIED"],
    );
    let admits = |email: &str, status: &str| filter.admits(&EmailKey::fold(email), status);
    admits("Ann@A.example", "VERIFIED").unwrap();
    assert_eq!(
        admits("x@sub.a.example", "VERIFIED").unwrap_err(),
        "the domain sub.a.example is not among include_domains"
    );
    assert_eq!(
        admits("Bob@B.example", "VERIFIED").unwrap_err(),
        "excluded by *@b.example in exclude_emails"
    );
    assert_eq!(
        admits("test-1@a.example", "VERIFIED").unwrap_err(),
        "excluded by test-*@a.* in exclude_emails"
    );
    assert_eq!(
        admits("ann@a.example", "INVITATION_SENT").unwrap_err(),
        "the status INVITATION_SENT is not among statuses"
    );
    assert_eq!(
        admits("ann@a.example", "").unwrap_err(),
        "the status (none) is not among statuses"
    );
    // Nothing to judge by: delivery shows such a user as one that needs attention.
    admits("", "VERIFIED").unwrap();
}

#[test]
fn stars_stand_for_anything() {
    for (pattern, email, fits) in [
        ("ann@a.example", "ann@a.example", true),
        ("ann@a.example", "joann@a.example", false),
        ("ann@a.example", "ann@a.example.org", false),
        ("*", "x@y", true),
        ("**", "x@y", true),
        ("*@y", "x@y", true),
        ("x@*", "x@y", true),
        ("a*b*c@y", "axxbxxc@y", true),
        ("a*b*c@y", "abc@y", true),
        ("a*b*c@y", "acb@y", false),
        ("ab*ba@y", "aba@y", false),
        ("*a*a*", "a@y", false),
        ("*é*", "andré@y", true),
    ] {
        let refused = filter(&[], &[pattern], &[]).admits(&EmailKey::fold(email), "").is_err();
        assert_eq!(refused, fits, "{pattern} and {email}");
    }
}

#[test]
fn a_filters_fingerprint_is_stable_and_notices_changes() {
    let base = filter(&["a.example", "b.example"], &["*@x.example"], &["VERIFIED"]);
    // Stored in states: it must never change for the same filter.
    assert_eq!(filter(&[], &[], &[]).fingerprint(), "cd571c688f27b797");
    assert_eq!(base.fingerprint(), "292e6b9702e8a9a9");
    assert_eq!(
        filter(
            &["b.example", "a.example", "a.example"],
            &["*@x.example"],
            &["VERIFIED"]
        )
        .fingerprint(),
        base.fingerprint()
    );
    for other in [
        filter(&["a.example"], &["*@x.example"], &["VERIFIED"]),
        filter(&["a.example", "b.example"], &[], &["*@x.example", "VERIFIED"]),
        filter(&["a.exampleb.example"], &["*@x.example"], &["VERIFIED"]),
        filter(&[], &[], &[]),
    ] {
        assert_ne!(other.fingerprint(), base.fingerprint());
    }
}

#[test]
fn fingerprints_of_the_two_sides() {
    let mut world = World::new();
    let base = world.connector(SMALL);
    let (torq, jumpcloud) = (base.torq_fingerprint(), base.jumpcloud_fingerprint());
    // Stored in states, too.
    assert_eq!(torq, "dbcf777b7392d3ec");
    assert_eq!(jumpcloud, "5314ca7665cceab0");

    let same = |connector: &Connector| {
        (
            connector.torq_fingerprint() == torq,
            connector.jumpcloud_fingerprint() == jumpcloud,
        )
    };
    for (section, line, expected) in [
        (".torq", "region = \"eu\"", (false, true)),
        (".torq", "client_id = \"other\"", (false, true)),
        (".jumpcloud", "region = \"eu\"", (true, false)),
        (".jumpcloud", "org_id = \"other\"", (true, false)),
        (".jumpcloud", "application = \"other\"", (true, false)),
        (".jumpcloud", "client_id = \"rotated\"", (true, true)),
        (".torq", "client_secret_file = \"jumpcloud_secret\"", (true, true)),
        ("", "poll_interval = \"1h\"", (true, true)),
    ] {
        assert_eq!(same(&world.connector(&with(section, line))), expected, "{line}");
    }
    world.set("TORQ_CONNECTOR__CONNECTORS__MAIN__JUMPCLOUD__API_KEY", "key");
    assert_eq!(same(&world.connector(SMALL)), (true, true));
}

#[test]
fn what_stands_in_a_list_twice_is_told_once() {
    let world = World::new();
    let problems = world.bad(&with(".users", "include_domains = [\"b c\", \"b c\", \"d e\"]"));
    assert_eq!(problems.len(), 2, "{problems:?}");
    // Of the two that are too long to show whole, the same is shown.
    let long = "a b".repeat(60);
    let problems = world.bad(&with(
        ".users",
        &format!("include_domains = [\"{long}1\", \"{long}2\"]"),
    ));
    assert_eq!(problems.len(), 1, "{problems:?}");
}
