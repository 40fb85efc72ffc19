//! Faults to order: which requests go wrong, how, and how often.

use std::time::Duration;

use super::journal::Endpoint;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This answer instead of the API's; the request has no effect.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`: seconds or an HTTP date.
        retry_after: Option<String>,
        /// The body. Where it is empty, it is one in the peer's own shape.
        body: String,
    },
    /// This status instead of the API's, after this time; the request has no effect. It tells of what was so when it was asked, as an answer
    /// does that was long under way.
    LateStatus(u16, Duration),
    /// The connection is reset without an answer; the request has no effect.
    Reset,
    /// The request takes effect, then the connection is closed without an answer.
    LostAnswer,
    /// The request takes effect, and the answer says this status all the same.
    EffectThen(u16),
    /// The request takes effect; the answer ends in the middle of what its `Content-Length` promises.
    CutShort,
    /// 200 with an HTML page, as from a proxy; the request has no effect.
    Html,
    /// A redirect (307, which keeps method and body) to this address; the request has no effect. Tests set a trap there.
    Redirect(String),
    /// The request takes effect; the answer is 200 and not UTF-8.
    NotUtf8,
    /// The request takes effect; the answer is 200 and valid JSON of the wrong shape.
    WrongType,
    /// The request waits, then is handled as usual.
    Delay(Duration),
    /// There is never an answer; the request has no effect.
    Hang,
    /// The request takes effect; the answer trickles, 16 bytes each 100 ms.
    SlowBody,
    /// All tokens of the peer expire, then the request is handled as usual.
    ExpireTokensFirst,
}

impl Fault {
    /// The names for [`FaultRule::parse`], for help and messages.
    pub const NAMES: [&'static str; 13] = [
        "STATUS",
        "STATUS/RETRY_AFTER",
        "reset",
        "lost-answer",
        "effect-then=STATUS",
        "cut-short",
        "html",
        "not-utf8",
        "wrong-type",
        "delay=DURATION",
        "hang",
        "slow-body",
        "expire-tokens",
    ];

    /// A status with a body in the peer's own shape and no `Retry-After`.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            retry_after: None,
            body: String::new(),
        }
    }

    /// The name in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::LateStatus(..) => "late-status",
            Self::Reset => "reset",
            Self::LostAnswer => "lost-answer",
            Self::EffectThen(_) => "effect-then",
            Self::CutShort => "cut-short",
            Self::Html => "html",
            Self::Redirect(_) => "redirect",
            Self::NotUtf8 => "not-utf8",
            Self::WrongType => "wrong-type",
            Self::Delay(_) => "delay",
            Self::Hang => "hang",
            Self::SlowBody => "slow-body",
            Self::ExpireTokensFirst => "expire-tokens",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(duration) = text.strip_prefix("delay=") {
            return duration
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|duration| Duration::try_from(duration).ok())
                .map(Self::Delay)
                .ok_or_else(|| format!("\"{duration}\" is not a duration; write for example delay=500ms"));
        }
        if let Some(status) = text.strip_prefix("effect-then=") {
            return match status.parse() {
                Ok(status @ 200..=599) => Ok(Self::EffectThen(status)),
                _ => Err(format!("\"{status}\" is not a status from 200 to 599")),
            };
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let (status, retry_after) = match text.split_once('/') {
                Some((status, retry_after)) => (status, Some(retry_after.to_owned())),
                None => (text, None),
            };
            return match status.parse() {
                Ok(status @ 200..=599) => Ok(Self::Status {
                    status,
                    retry_after,
                    body: String::new(),
                }),
                _ => Err(format!("\"{status}\" is not a status from 200 to 599")),
            };
        }
        match text {
            "reset" => Ok(Self::Reset),
            "lost-answer" => Ok(Self::LostAnswer),
            "cut-short" => Ok(Self::CutShort),
            "html" => Ok(Self::Html),
            "not-utf8" => Ok(Self::NotUtf8),
            "wrong-type" => Ok(Self::WrongType),
            "hang" => Ok(Self::Hang),
            "slow-body" => Ok(Self::SlowBody),
            "expire-tokens" => Ok(Self::ExpireTokensFirst),
            _ => Err(format!(
                "there is no fault \"{text}\"; there are: {}",
                Self::NAMES.join(", ")
            )),
        }
    }
}

/// Which requests a fault hits. Of several rules that fit, the first one set hits.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    /// The endpoint; `None` for all of both APIs.
    pub endpoint: Option<Endpoint>,
    /// So many requests of the endpoint pass first.
    pub skip: u64,
    /// Then so many are hit; `None` for ever.
    pub times: Option<u64>,
    /// How likely each of them is hit, 0 to 1.
    pub probability: f64,
    /// What happens to it.
    pub fault: Fault,
}

impl FaultRule {
    /// How [`Self::parse`] wants it, for help and messages.
    pub const SYNTAX: &'static str = "FAULT[:ENDPOINT[:PROBABILITY[:TIMES]]]";

    /// Hits every request of an endpoint, for ever.
    pub fn always(endpoint: Endpoint, fault: Fault) -> Self {
        Self {
            endpoint: Some(endpoint),
            skip: 0,
            times: None,
            probability: 1.0,
            fault,
        }
    }

    /// Hits the next request of an endpoint.
    pub fn once(endpoint: Endpoint, fault: Fault) -> Self {
        Self {
            times: Some(1),
            ..Self::always(endpoint, fault)
        }
    }

    /// The same rule, with so many requests let through first.
    pub fn after(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// Reads [`Self::SYNTAX`], for example `503:accounts:0.1`, `429/5`, `delay=2s:users` or `lost-answer:account-create:1:3`.
    /// The endpoint may be `any`.
    ///
    /// # Errors
    /// A message for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.trim().split(':');
        let fault = Fault::parse(parts.next().unwrap_or_default())?;
        let endpoint = match parts.next() {
            None | Some("any" | "") => None,
            Some(name) => Some(Endpoint::parse(name).ok_or_else(|| {
                let names: Vec<_> = Endpoint::ALL.iter().map(|one| one.as_str()).collect();
                format!("there is no endpoint \"{name}\"; there are: any, {}", names.join(", "))
            })?),
        };
        let probability = match parts.next() {
            None | Some("") => 1.0,
            Some(text) => text
                .parse()
                .ok()
                .filter(|probability| (0.0..=1.0).contains(probability))
                .ok_or_else(|| format!("\"{text}\" is not a probability from 0 to 1"))?,
        };
        let times = match parts.next() {
            None | Some("") => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| format!("\"{text}\" is not a number of times"))?,
            ),
        };
        if parts.next().is_some() {
            return Err(format!("\"{text}\" has too many parts; write {}", Self::SYNTAX));
        }
        Ok(Self {
            endpoint,
            skip: 0,
            times,
            probability,
            fault,
        })
    }
}

/// The rules in force, with what each has seen so far.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<Armed>,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Armed {
    rule: FaultRule,
    seen: u64,
    hits: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rules: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn add(&mut self, rule: FaultRule) {
        self.rules.push(Armed { rule, seen: 0, hits: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The fault for a request. Every rule for its endpoint counts the request, also behind one that hits.
    pub(super) fn choose(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let mut chosen = None;
        for armed in &mut self.rules {
            let rule = &armed.rule;
            if rule.endpoint.is_some_and(|wanted| wanted != endpoint) {
                continue;
            }
            armed.seen += 1;
            if chosen.is_some()
                || armed.seen <= rule.skip
                || rule.times.is_some_and(|times| armed.hits >= times)
                || (rule.probability < 1.0 && self.random.f64() >= rule.probability)
            {
                continue;
            }
            armed.hits += 1;
            chosen = Some(rule.fault.clone());
        }
        chosen
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_from_the_command_line() {
        assert_eq!(
            FaultRule::parse("503:accounts:0.1"),
            Ok(FaultRule {
                probability: 0.1,
                ..FaultRule::always(Endpoint::Accounts, Fault::status(503))
            })
        );
        let rule = FaultRule::parse("429/5:any:1:3").unwrap();
        assert_eq!((rule.endpoint, rule.times), (None, Some(3)));
        assert_eq!(
            rule.fault,
            Fault::Status {
                status: 429,
                retry_after: Some("5".to_owned()),
                body: String::new()
            }
        );
        assert_eq!(
            FaultRule::parse("delay=500ms").unwrap().fault,
            Fault::Delay(Duration::from_millis(500))
        );
    }

    #[test]
    fn every_name_is_understood_and_a_wrong_one_lists_them() {
        for name in Fault::NAMES {
            let text = name
                .replace("STATUS", "500")
                .replace("RETRY_AFTER", "7")
                .replace("DURATION", "1s");
            assert!(FaultRule::parse(&text).is_ok(), "{text}");
        }
        for endpoint in Endpoint::ALL {
            let rule = FaultRule::parse(&format!("hang:{}", endpoint.as_str())).unwrap();
            assert_eq!(rule.endpoint, Some(endpoint));
        }
        assert!(FaultRule::parse("boom").unwrap_err().contains("lost-answer"));
        assert!(FaultRule::parse("hang:nowhere").unwrap_err().contains("account-create"));
        assert!(FaultRule::parse("hang:any:2").is_err());
        assert!(FaultRule::parse("99").is_err());
        assert!(FaultRule::parse("hang:any:1:1:1").is_err());
    }

    #[test]
    fn a_rule_lets_some_pass_then_hits_so_many() {
        let mut faults = Faults::new(1);
        faults.add(FaultRule {
            times: Some(2),
            ..FaultRule::always(Endpoint::Accounts, Fault::Reset).after(1)
        });
        let hits: Vec<_> = (0..5).map(|_| faults.choose(Endpoint::Accounts).is_some()).collect();
        assert_eq!(hits, [false, true, true, false, false]);
        assert_eq!(faults.choose(Endpoint::TorqUsers), None);
    }
}
