//! What can happen, and how likely it is. Numbers choose among those who are there, so that a history stays a history when steps
//! are taken away from it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use torq_connector::sandbox::{Endpoint, Fault, Licence, ListShape, PageTokens, Peer, TotalCount};

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Change(Change),
    Mood(Mood),
    Act(Act),
    Run(Run),
}

/// What somebody else does to the workspace or the organisation that are configured now.
#[derive(Clone, Debug)]
pub enum Change {
    Arrive(Mail, bool),
    Leave(usize),
    Return(usize),
    Rename(usize),
    Swap(usize, usize),
    /// Writes an e-mail in another case.
    Recase(usize),
    /// Takes somebody else's e-mail, in another case.
    Share(usize, usize),
    /// Torq has no e-mail for somebody any more.
    Blank(usize),
    Relist(usize),
    Restate(usize),
    Recast(usize),
    LogIn(usize),
    /// Somebody's record cannot be read: not at all (`true`), or but for its id.
    Garble(usize, bool),
    Heal,
    /// Everybody leaves.
    Exodus,
    /// Accounts that somebody else makes, deletes, associates.
    MakeAccount(usize),
    MakeOutsider(u8),
    DeleteAccount(usize),
    Associate(usize, usize),
    DeleteApplication,
    JoinDirectory(usize),
    LeaveDirectory(usize),
    /// A directory user is deleted and made anew.
    RemakeDirectory(usize),
    ExpireTokens(Peer),
    ForgetTokens(Peer),
    StalePages,
}

/// By which e-mail somebody arrives.
#[derive(Clone, Copy, Debug)]
pub enum Mail {
    Own,
    Foreign,
    Of(usize),
    None,
}

/// How the peers are disposed from now on.
#[derive(Clone, Debug)]
pub enum Mood {
    AcceptDuplicates(bool),
    Shapes(ListShape, ListShape),
    Caps(usize, usize),
    Skip(bool),
    Count(TotalCount),
    CreateStatus(u16),
    DeleteReturnsObject(bool),
    SearchCap(Option<usize>),
    Pages {
        cap: usize,
        empty: bool,
        trailing: bool,
        defaults: bool,
        camel: bool,
    },
    StaleStatus(u16),
    IgnoreFilter(bool),
    Tokens(PageTokens),
    Refuse(usize),
    Fail(usize),
    Licence(Licence),
    NoCreates(Option<u16>),
    NoAssociations(Option<u16>),
    Forbidden(bool),
    Revoke(Peer),
    Scope(bool),
    /// All is well again.
    Well,
}

/// What a person does with the connector.
#[derive(Clone, Debug)]
pub enum Act {
    Approve,
    Retry,
    Pause(bool),
    Filter(usize),
    Delete(bool),
    Max(Max),
    /// Which workspace, by which address.
    Torq(Door),
    Organisation(usize),
    /// The process ends in good order, and another one begins.
    Restart,
    /// The state is lost.
    Lose,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Max {
    Users(u64),
    Percent(f64),
}

/// The way to a workspace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Door {
    Front,
    /// The same workspace by another address.
    Side,
    /// Another workspace.
    Other,
}

/// A run, and what meets it.
#[derive(Clone, Debug)]
pub struct Run {
    pub faults: Vec<Order>,
    pub meanwhile: Option<Meanwhile>,
    pub end: End,
}

/// A fault for some of the requests of an endpoint.
#[derive(Clone, Debug)]
pub struct Order {
    pub fault: Fault,
    pub endpoint: Endpoint,
    pub skip: u64,
    pub times: u64,
}

/// Something that happens while the run is under way: when an endpoint was asked so often.
#[derive(Clone, Debug)]
pub struct Meanwhile {
    pub endpoint: Endpoint,
    pub count: usize,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Change(Change),
    Approve,
}

/// How the run ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    ByItself,
    /// Its process is killed after so many of its steps.
    Killed(usize),
    /// It is told to stop when an endpoint was asked so often.
    Stopped(Endpoint, usize),
}

/// The client secrets of all worlds: a peer may repeat what it was told.
pub const TORQ_SECRET: &str = "torq-secret-that-nobody-may-see";
pub const JUMPCLOUD_SECRET: &str = "jumpcloud-secret-that-nobody-may-see";

/// The words of a peer that repeats what it was told; which secrets these are depends on the peer.
const TALKATIVE: &str = "talkative";

fn repeating(endpoint: Endpoint) -> String {
    let torq = matches!(
        endpoint,
        Endpoint::TorqToken | Endpoint::TorqUsers | Endpoint::TorqRoles
    );
    let (id, secret) = if torq {
        ("sandbox-torq-id", TORQ_SECRET)
    } else {
        ("sandbox-jumpcloud-id", JUMPCLOUD_SECRET)
    };
    let pair = STANDARD.encode(format!("{id}:{secret}"));
    let words = format!("I do not know {secret}, nor Basic {pair}");
    json!({"message": words, "error": secret, "error_description": words}).to_string()
}

pub fn endpoint() -> impl Strategy<Value = Endpoint> {
    select(vec![
        Endpoint::TorqToken,
        Endpoint::TorqUsers,
        Endpoint::TorqRoles,
        Endpoint::JumpCloudToken,
        Endpoint::Applications,
        Endpoint::Application,
        Endpoint::ApplicationCreate,
        Endpoint::Accounts,
        Endpoint::AccountCreate,
        Endpoint::AccountCreate,
        Endpoint::AccountAssociate,
        Endpoint::AccountDelete,
        Endpoint::AccountGet,
        Endpoint::DirectorySearch,
        Endpoint::DirectoryList,
    ])
}

fn fault() -> impl Strategy<Value = Fault> {
    let says = |status, body: String| Fault::Status {
        status,
        retry_after: None,
        body,
    };
    let talkative = TALKATIVE.to_owned();
    select(vec![
        Fault::status(400),
        Fault::status(401),
        Fault::status(403),
        Fault::status(404),
        Fault::status(409),
        Fault::status(422),
        Fault::status(429),
        Fault::status(500),
        Fault::status(503),
        Fault::status(503),
        says(403, r#"{"message": "suspected abuse"}"#.to_owned()),
        says(401, talkative.clone()),
        says(502, talkative),
        Fault::Status {
            status: 429,
            retry_after: Some("1".to_owned()),
            body: String::new(),
        },
        Fault::Reset,
        Fault::Reset,
        Fault::LostAnswer,
        Fault::LostAnswer,
        Fault::LostAnswer,
        Fault::CutShort,
        Fault::Html,
        Fault::NotUtf8,
        Fault::WrongType,
        Fault::ExpireTokensFirst,
    ])
}

fn who() -> std::ops::Range<usize> {
    0..12
}

fn peer() -> impl Strategy<Value = Peer> {
    select(vec![Peer::Torq, Peer::JumpCloud])
}

fn mail() -> impl Strategy<Value = Mail> {
    prop_oneof![
        5 => Just(Mail::Own),
        1 => Just(Mail::Foreign),
        2 => who().prop_map(Mail::Of),
        1 => Just(Mail::None),
    ]
}

pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (mail(), any::<bool>()).prop_map(|(mail, sso)| Change::Arrive(mail, sso)),
        8 => who().prop_map(Change::Leave),
        3 => who().prop_map(Change::Return),
        3 => who().prop_map(Change::Rename),
        2 => (who(), who()).prop_map(|(one, other)| Change::Swap(one, other)),
        2 => who().prop_map(Change::Recase),
        2 => (who(), who()).prop_map(|(one, other)| Change::Share(one, other)),
        1 => who().prop_map(Change::Blank),
        3 => who().prop_map(Change::Relist),
        1 => who().prop_map(Change::Restate),
        1 => who().prop_map(Change::Recast),
        1 => who().prop_map(Change::LogIn),
        2 => (who(), any::<bool>()).prop_map(|(who, all)| Change::Garble(who, all)),
        2 => Just(Change::Heal),
        1 => Just(Change::Exodus),
        2 => who().prop_map(Change::MakeAccount),
        1 => (0..3_u8).prop_map(Change::MakeOutsider),
        2 => who().prop_map(Change::DeleteAccount),
        1 => (who(), who()).prop_map(|(account, user)| Change::Associate(account, user)),
        1 => Just(Change::DeleteApplication),
        1 => who().prop_map(Change::JoinDirectory),
        1 => who().prop_map(Change::LeaveDirectory),
        1 => who().prop_map(Change::RemakeDirectory),
        1 => peer().prop_map(Change::ExpireTokens),
        1 => peer().prop_map(Change::ForgetTokens),
        1 => Just(Change::StalePages),
    ]
}

fn shape() -> impl Strategy<Value = ListShape> {
    select(vec![ListShape::Envelope, ListShape::Bare])
}

fn mood() -> impl Strategy<Value = Mood> {
    let count = select(vec![
        TotalCount::Honest,
        TotalCount::Page,
        TotalCount::Zero,
        TotalCount::Absent,
    ]);
    let tokens = select(vec![
        PageTokens::Honest,
        PageTokens::Repeat,
        PageTokens::Alternate,
        PageTokens::FreshForSamePage,
    ]);
    let licence = select(vec![Licence::Valid, Licence::PaymentRequired, Licence::Forbidden]);
    let absent = || select(vec![None, Some(404), Some(405), Some(501)]);
    let pages = (1..6_usize, any::<[bool; 4]>()).prop_map(|(cap, [empty, trailing, defaults, camel])| Mood::Pages {
        cap,
        empty,
        trailing,
        defaults,
        camel,
    });
    prop_oneof![
        2 => any::<bool>().prop_map(Mood::AcceptDuplicates),
        1 => (shape(), shape()).prop_map(|(one, other)| Mood::Shapes(one, other)),
        1 => (1..4_usize, 1..4_usize).prop_map(|(list, directory)| Mood::Caps(list, directory)),
        1 => any::<bool>().prop_map(Mood::Skip),
        1 => count.prop_map(Mood::Count),
        1 => select(vec![200, 201]).prop_map(Mood::CreateStatus),
        1 => any::<bool>().prop_map(Mood::DeleteReturnsObject),
        1 => select(vec![None, Some(1), Some(2)]).prop_map(Mood::SearchCap),
        1 => pages,
        1 => select(vec![400, 404]).prop_map(Mood::StaleStatus),
        1 => any::<bool>().prop_map(Mood::IgnoreFilter),
        1 => tokens.prop_map(Mood::Tokens),
        2 => who().prop_map(Mood::Refuse),
        2 => who().prop_map(Mood::Fail),
        1 => licence.prop_map(Mood::Licence),
        1 => absent().prop_map(Mood::NoCreates),
        1 => absent().prop_map(Mood::NoAssociations),
        1 => any::<bool>().prop_map(Mood::Forbidden),
        1 => peer().prop_map(Mood::Revoke),
        1 => any::<bool>().prop_map(Mood::Scope),
        6 => Just(Mood::Well),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let max = select(vec![
        Max::Users(0),
        Max::Users(1),
        Max::Users(2),
        Max::Users(3),
        Max::Users(1000),
        Max::Percent(10.0),
        Max::Percent(50.0),
    ]);
    prop_oneof![
        4 => Just(Act::Approve),
        1 => Just(Act::Retry),
        1 => any::<bool>().prop_map(Act::Pause),
        2 => (0..5_usize).prop_map(Act::Filter),
        2 => any::<bool>().prop_map(Act::Delete),
        2 => max.prop_map(Act::Max),
        3 => select(vec![Door::Front, Door::Side, Door::Other]).prop_map(Act::Torq),
        2 => (0..2_usize).prop_map(Act::Organisation),
        3 => Just(Act::Restart),
        1 => Just(Act::Lose),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    (fault(), endpoint(), 0..4_u64, 1..5_u64).prop_map(|(mut fault, endpoint, skip, times)| {
        if let Fault::Status { body, .. } = &mut fault
            && body == TALKATIVE
        {
            *body = repeating(endpoint);
        }
        Order {
            fault,
            endpoint,
            skip,
            times,
        }
    })
}

fn run() -> impl Strategy<Value = Run> {
    let what = prop_oneof![5 => change().prop_map(What::Change), 1 => Just(What::Approve)];
    let busy = select(vec![
        Endpoint::TorqUsers,
        Endpoint::TorqUsers,
        Endpoint::TorqUsers,
        Endpoint::Application,
        Endpoint::Accounts,
        Endpoint::AccountCreate,
    ]);
    let meanwhile = (busy, 1..5_usize, what).prop_map(|(endpoint, count, what)| {
        // Rows that shift under a list while it is read are another story.
        let shifts = matches!(what, What::Change(Change::DeleteAccount(_) | Change::Associate(..)));
        let endpoint = if shifts && endpoint == Endpoint::Accounts {
            Endpoint::TorqUsers
        } else {
            endpoint
        };
        Meanwhile { endpoint, count, what }
    });
    let end = prop_oneof![
        8 => Just(End::ByItself),
        3 => (1..160_usize).prop_map(End::Killed),
        1 => (endpoint(), 1..6_usize).prop_map(|(endpoint, count)| End::Stopped(endpoint, count)),
    ];
    let faults = prop_oneof![
        3 => Just(Vec::new()),
        2 => order().prop_map(|order| vec![order]),
        1 => prop::collection::vec(order(), 2..4),
    ];
    (faults, prop::option::weighted(0.3, meanwhile), end).prop_map(|(faults, meanwhile, end)| Run {
        faults,
        meanwhile,
        end,
    })
}

fn quiet_run() -> Run {
    Run {
        faults: Vec::new(),
        meanwhile: None,
        end: End::ByItself,
    }
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => change().prop_map(Step::Change),
        3 => mood().prop_map(Step::Mood),
        4 => act().prop_map(Step::Act),
        7 => run().prop_map(Step::Run),
        5 => Just(Step::Run(quiet_run())),
    ]
}

/// A whole case.
#[derive(Clone)]
pub struct History {
    /// Whether some accounts are there at the beginning.
    pub existing: bool,
    /// Whether JumpCloud would make second accounts without complaint.
    pub duplicates: bool,
    pub delete: bool,
    pub max: u64,
    /// Whether another connector runs beside this one.
    pub bystander: bool,
    pub steps: Vec<Step>,
}

/// A line for each step: what a failure shows is to be read.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            existing,
            duplicates,
            delete,
            max,
            bystander,
            steps,
        } = self;
        writeln!(
            f,
            "existing: {existing}, duplicates: {duplicates}, delete: {delete}, max: {max}, bystander: {bystander}"
        )?;
        for (number, step) in steps.iter().enumerate() {
            // Not spread over lines, also where the caller asks for that.
            let step = format!("{step:?}");
            writeln!(f, "{number:3}  {step}")?;
        }
        Ok(())
    }
}

pub fn history() -> impl Strategy<Value = History> {
    (
        any::<[bool; 3]>(),
        prop::bool::weighted(0.2),
        select(vec![1, 3, 3, 1000]),
        prop::collection::vec(step(), 4..28),
    )
        .prop_map(|([existing, duplicates, delete], bystander, max, steps)| History {
            existing,
            duplicates,
            delete,
            max,
            bystander,
            steps,
        })
}
