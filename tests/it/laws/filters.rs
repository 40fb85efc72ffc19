//! The filters that a history chooses among, and the same said in another way.

use torq_connector::config::UserFilter;

use crate::world::fold;

/// The filters to choose among.
pub fn filter(number: usize) -> UserFilter {
    let mut filter = UserFilter::default();
    match number {
        1 => filter.include_domains = vec!["example.com".to_owned()],
        2 => filter.exclude_emails = vec!["*@foreign.example".to_owned(), "p1@*".to_owned()],
        3 => filter.statuses = vec!["VERIFIED".to_owned()],
        4 => filter.exclude_emails = vec!["*".to_owned()],
        _ => {}
    }
    filter
}

/// The same, said in another way: whether somebody is left out.
pub fn is_left_out(number: usize, email: &str, status: &str) -> bool {
    let email = fold(email);
    let some = !email.is_empty();
    match number {
        1 => some && !email.ends_with("@example.com"),
        2 => some && (email.ends_with("@foreign.example") || email.starts_with("p1@")),
        3 => status != "VERIFIED",
        4 => some,
        _ => false,
    }
}
