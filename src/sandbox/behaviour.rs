//! How the two peers may differ from the plain case: switches for everything that the API facts call open, observed or
//! optional. The defaults are what was observed.

use std::time::Duration;

/// The shape of a JumpCloud v2 list: both were observed, even on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListShape {
    /// `{"results": [ … ], "totalCount": n}`.
    Envelope,
    /// `[ … ]`.
    Bare,
}

/// What `totalCount` says; it is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotalCount {
    /// The number of rows of the whole list.
    Honest,
    /// The number of rows of this page.
    Page,
    /// Zero, whatever there is.
    Zero,
    /// Left out.
    Absent,
}

/// How Torq hands out page tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageTokens {
    /// One token for each following page, none on the last.
    Honest,
    /// The second page carries the token that led to it: A, A.
    Repeat,
    /// The third page carries the token of the second: A, B, A.
    Alternate,
    /// Every page is the first page, with a token never seen before.
    FreshForSamePage,
}

/// Whether the organisation may use SaaS Management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Licence {
    /// It may.
    Valid,
    /// 402 on everything below `saas-management`.
    PaymentRequired,
    /// 403 on everything below `saas-management`, while the directory answers.
    Forbidden,
}

/// The switches. Change them with [`WorldHandle::behave`](super::WorldHandle::behave).
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Both peers: `Retry-After` of a 429 that the rate limit causes.
    pub retry_after: Option<String>,
    /// Both peers: what `expires_in` says, where it differs from the real lifetime of tokens.
    pub advertised_lifetime: Option<Duration>,

    /// Torq: no page has more rows than this, whatever page size was asked for (pages may be short).
    pub torq_page_cap: usize,
    /// Torq: the answers say `nextPageToken`, and requests may say `pageSize` and `pageToken`, as the reference prints
    /// them. Otherwise the wire is snake case, and other spellings are ignored like any unknown parameter.
    pub torq_camel_case: bool,
    /// Torq: the API lives at `/torq/v1alpha` and not at `/torq/public/v1alpha`.
    pub torq_without_public: bool,
    /// Torq: `sso_provision` is ignored, so that every listing is the whole list.
    pub ignore_sso_filter: bool,
    /// Torq: how page tokens are handed out.
    pub page_tokens: PageTokens,
    /// Torq: every page but the last is followed by an empty page that carries a token.
    pub empty_pages: bool,
    /// Torq: the last page with rows carries a token, too, which leads to an empty page without one.
    pub trailing_page_token: bool,
    /// Torq: the status for a page token that is stale, foreign or broken: 400 or 404.
    pub stale_token_status: u16,
    /// Torq: fields with their default value are sent instead of left out (`sso_provision: false`, `users: []`, …).
    pub emit_defaults: bool,
    /// Torq: where the redirect of an expired token leads, instead of the sandbox's own login page. Tests set a trap
    /// there: no token may follow.
    pub login_url: Option<String>,

    /// JumpCloud: 403 on every request of the console API.
    pub jumpcloud_forbidden: bool,
    /// JumpCloud: the SaaS Management licence.
    pub licence: Licence,
    /// JumpCloud: the status (404, 405, 501) of every account create, where it is not offered.
    pub account_create_refused: Option<u16>,
    /// JumpCloud: the status (404, 405, 501) of every association, where it is not offered.
    pub account_associate_refused: Option<u16>,
    /// JumpCloud: accounts for these e-mails are refused with 422 (compared without regard to case).
    pub refused_emails: Vec<String>,
    /// JumpCloud: writes about accounts with these e-mails always end in 500 (compared without regard to case).
    pub failing_emails: Vec<String>,
    /// JumpCloud: a second account for the same e-mail is made instead of refused with 409.
    pub accept_duplicates: bool,
    /// JumpCloud: a second application of the same kind is made instead of refused with 409.
    pub accept_duplicate_applications: bool,
    /// JumpCloud: the status of a create that worked, 200 or 201.
    pub create_status: u16,
    /// JumpCloud: a deletion answers 200 with the object instead of 204.
    pub delete_returns_object: bool,
    /// JumpCloud: the shape of the list of applications.
    pub applications_shape: ListShape,
    /// JumpCloud: the shape of the list of accounts (and of usage).
    pub accounts_shape: ListShape,
    /// JumpCloud: no page of a v2 list has more rows than this.
    pub list_cap: usize,
    /// JumpCloud: no page of directory users has more rows than this.
    pub directory_cap: usize,
    /// JumpCloud: v2 lists page with `skip` and ignore `offset`.
    pub skip_instead_of_offset: bool,
    /// JumpCloud: v2 lists know no pages, and answer with the first whatever is asked for.
    pub first_page_only: bool,
    /// JumpCloud: every page of a v2 list says `Link: <this>; rel="next"`. Another origin is a trap: no token may go there.
    pub next_link: Option<String>,
    /// JumpCloud: what `totalCount` says.
    pub total_count: TotalCount,
    /// JumpCloud: a search with more alternatives than this is refused with 400.
    pub search_batch_cap: Option<usize>,
    /// JumpCloud: the search ignores its filter and finds the whole directory.
    pub search_ignores_filter: bool,
    /// JumpCloud: the search compares e-mails without regard to case. Otherwise it is exact.
    pub search_ignores_case: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            retry_after: Some("1".to_owned()),
            advertised_lifetime: None,
            torq_page_cap: 100,
            torq_camel_case: false,
            torq_without_public: false,
            ignore_sso_filter: false,
            page_tokens: PageTokens::Honest,
            empty_pages: false,
            trailing_page_token: false,
            stale_token_status: 400,
            emit_defaults: false,
            login_url: None,
            jumpcloud_forbidden: false,
            licence: Licence::Valid,
            account_create_refused: None,
            account_associate_refused: None,
            refused_emails: Vec::new(),
            failing_emails: Vec::new(),
            accept_duplicates: false,
            accept_duplicate_applications: false,
            create_status: 201,
            delete_returns_object: false,
            applications_shape: ListShape::Envelope,
            accounts_shape: ListShape::Bare,
            list_cap: 100,
            directory_cap: 100,
            skip_instead_of_offset: false,
            first_page_only: false,
            next_link: None,
            total_count: TotalCount::Honest,
            search_batch_cap: None,
            search_ignores_filter: false,
            search_ignores_case: false,
        }
    }
}
