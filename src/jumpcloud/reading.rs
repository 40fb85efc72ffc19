//! Where the next page of a JumpCloud list begins, and when the list is at its end. It knows nothing of rows but their prints.
//!
//! **Shifting rows.** An account that is deleted moves everybody behind it one place forward, and whoever was first on the next
//! page would be missed, and made a second time. So every page is asked for from the last row of the one before: as long as a
//! page begins with a row that was seen, there is no gap in front of it. Where it does not, the reading goes back until it does.
//! (A server that sends one row at a time leaves no room for this.)
//!
//! Only an empty page ends a list.

use std::collections::HashSet;

/// How often in a row the first page may come again before the server is not believed to know our word for paging.
const MAX_REPEATS: u32 = 3;
/// Pages in a row with nothing new, after which the list counts as changing faster than it can be read.
const MAX_BARREN: u32 = 100;
/// How often the reading may end up at the front again before that is said, too.
const MAX_RESTARTS: u32 = 20;
/// The longest list that is believed. No organisation has two million accounts for one application.
const MAX_ROWS: usize = 2_000_000;

/// By which word the server pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Offset,
    Skip,
}

/// Where a reading stands. Pure.
pub(super) struct Reading {
    word: Word,
    /// Behind which row of the list the next page begins.
    position: usize,
    /// The same, when last something new came.
    solid: usize,
    /// The next page is asked for from the very next row: the one before has just been seen to be the last.
    probing: bool,
    /// How far to go back, should there be a gap.
    step: usize,
    /// The first row of the list: it comes again and again from a server that does not know our word.
    head: Option<u64>,
    repeats: u32,
    barren: u32,
    restarts: u32,
    /// Prints of the rows received: 8 bytes a row.
    seen: HashSet<u64>,
}

/// What a page means for the reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its rows that are new are to be taken.
    Take,
    /// It is not to be used; another one is to be asked for.
    Again,
    /// The list is at its end.
    End,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self {
            word: Word::Offset,
            position: 0,
            solid: 0,
            probing: false,
            step: 1,
            head: None,
            repeats: 0,
            barren: 0,
            restarts: 0,
            seen: HashSet::new(),
        }
    }

    /// By which word the next page is asked for.
    pub(super) fn word(&self) -> &'static str {
        match self.word {
            Word::Offset => "offset",
            Word::Skip => "skip",
        }
    }

    /// Whether a row with this print was received.
    pub(super) fn has_seen(&self, print: u64) -> bool {
        self.seen.contains(&print)
    }

    /// Where the next page is asked for: with the last row again, unless that is known to be the last of all.
    pub(super) fn offset(&self) -> usize {
        if self.probing {
            self.position
        } else {
            self.position.saturating_sub(1)
        }
    }

    /// Takes note of the page at [`Self::offset`], by the prints of its first row and of all; says what is wrong with the list, if
    /// something is.
    pub(super) fn notice(&mut self, first: Option<u64>, prints: &[u64]) -> Result<Verdict, String> {
        let offset = self.offset();
        let Some(first) = first else {
            if offset == self.position {
                return Ok(Verdict::End);
            }
            // There was a row a moment ago: rows in front of it are gone.
            return self.rewind().map(|()| Verdict::Again);
        };
        if offset > 0 && !self.probing && !self.seen.contains(&first) {
            return self.rewind().map(|()| Verdict::Again);
        }
        if offset == 0 {
            self.head = Some(first);
        }
        self.step = prints.len();
        self.position = offset + prints.len();
        let only_the_last = prints.len() == 1 && !self.probing;
        self.probing = false;
        let before = self.seen.len();
        self.seen.extend(prints);
        if self.seen.len() > before {
            (self.repeats, self.barren, self.solid) = (0, 0, self.position);
            if self.seen.len() > MAX_ROWS {
                return Err(format!("the list has more than {MAX_ROWS} rows and does not end"));
            }
            return Ok(Verdict::Take);
        }
        if only_the_last {
            self.probing = true;
            return Ok(Verdict::Again);
        }
        // Repetitions only: rows were put in front, or the server does not know our word. If it knows neither, it would go on for
        // ever.
        self.repeats += u32::from(self.head == Some(first));
        if self.repeats >= MAX_REPEATS {
            match self.word {
                Word::Offset => (self.word, self.position, self.repeats) = (Word::Skip, self.solid, 0),
                Word::Skip => {
                    return Err(format!(
                        "the list repeats itself after {} rows and does not end",
                        self.seen.len()
                    ));
                }
            }
        }
        self.nothing_new().map(|()| Verdict::Again)
    }

    /// Goes back, twice as far each time: at the front there is no gap.
    fn rewind(&mut self) -> Result<(), String> {
        self.probing = false;
        self.position = self.position.saturating_sub(self.step);
        self.step = self.step.saturating_mul(2);
        self.restarts += u32::from(self.position == 0);
        self.nothing_new()
    }

    fn nothing_new(&mut self) -> Result<(), String> {
        self.barren += 1;
        if self.barren > MAX_BARREN || self.restarts > MAX_RESTARTS {
            return Err("the list changes faster than it can be read".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with a list of numbers that changes while it is read.
    struct Server {
        rows: Vec<u64>,
        cap: usize,
        /// It pages by this word and ignores the other.
        word: Option<Word>,
    }

    impl Server {
        fn page(&self, word: Word, offset: usize) -> &[u64] {
            let offset = if self.word == Some(word) { offset } else { 0 };
            let from = offset.min(self.rows.len());
            &self.rows[from..(from + self.cap).min(self.rows.len())]
        }
    }

    /// Reads the list to its end, and lets something happen before each request. Returns whom it saw.
    fn read(server: &mut Server, mut happens: impl FnMut(usize, &mut Server)) -> Result<HashSet<u64>, String> {
        let mut reading = Reading::new();
        for request in 0..10_000 {
            happens(request, server);
            let page = server.page(reading.word, reading.offset()).to_vec();
            if reading.notice(page.first().copied(), &page)? == Verdict::End {
                return Ok(reading.seen);
            }
        }
        panic!("it never ends");
    }

    fn server(rows: u64, cap: usize, word: Option<Word>) -> Server {
        Server {
            rows: (0..rows).collect(),
            cap,
            word,
        }
    }

    #[test]
    fn a_list_is_read_to_its_end_by_either_word_and_with_any_cap() {
        for rows in [0, 1, 2, 3, 7, 100, 101, 250] {
            for cap in [1, 2, 3, 100] {
                for word in [Word::Offset, Word::Skip] {
                    let seen = read(&mut server(rows, cap, Some(word)), |_, _| {}).unwrap();
                    assert_eq!(seen.len() as u64, rows, "{rows} rows, {cap} a page");
                }
            }
        }
    }

    #[test]
    fn a_server_that_knows_neither_word_is_an_error_and_no_endless_loop() {
        for (rows, cap) in [(1, 100), (5, 100), (500, 100)] {
            let error = read(&mut server(rows, cap, None), |_, _| {}).unwrap_err();
            assert!(error.contains("repeats itself"), "{error}");
        }
        assert!(read(&mut server(0, 100, None), |_, _| {}).unwrap().is_empty());
    }

    #[test]
    fn nobody_who_is_there_all_the_time_is_missed_whatever_comes_and_goes_meanwhile() {
        let mut read_through = 0;
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut server = server(random.u64(0..60), random.usize(2..12), Some(Word::Offset));
            let mut staying: HashSet<u64> = server.rows.iter().copied().collect();
            let mut newcomer = 1000;
            let busy = random.usize(0..30);
            let seen = read(&mut server, |request, server| {
                if request >= busy {
                    return;
                }
                for _ in 0..random.usize(0..4) {
                    if random.bool() && !server.rows.is_empty() {
                        // More often in front, where it hurts.
                        let most = if random.bool() { 3 } else { server.rows.len() };
                        let gone = server.rows.remove(random.usize(..most.min(server.rows.len())));
                        staying.remove(&gone);
                    } else if random.bool() {
                        newcomer += 1;
                        server.rows.insert(random.usize(..=server.rows.len()), newcomer);
                    }
                }
                // Caps may change from page to page.
                server.cap = random.usize(2..12);
            });
            // Where everything is in motion all the time, giving up is fine.
            let Ok(seen) = seen else { continue };
            read_through += 1;
            let missed: Vec<_> = staying.difference(&seen).collect();
            assert!(missed.is_empty(), "seed {seed}: {missed:?}");
        }
        assert!(read_through > 2900, "{read_through}");
    }

    #[test]
    fn a_list_that_changes_faster_than_it_can_be_read_is_an_error() {
        let mut fresh = 1000;
        let all_new = |_: usize, server: &mut Server| {
            for row in &mut server.rows {
                fresh += 1;
                *row = fresh;
            }
        };
        // Everybody is another one at every request: there is no telling what was in between.
        let error = read(&mut server(50, 10, Some(Word::Offset)), all_new).unwrap_err();
        assert!(error.contains("changes faster"), "{error}");
    }

    #[test]
    fn a_list_without_an_end_is_an_error() {
        let mut reading = Reading::new();
        let mut next = 0..;
        let error = loop {
            let page: Vec<u64> = next.by_ref().take(1000).collect();
            let begins_with = (reading.position > 0).then(|| page[0].wrapping_sub(1));
            let page: Vec<u64> = begins_with.into_iter().chain(page).collect();
            match reading.notice(page.first().copied(), &page) {
                Ok(verdict) => assert_eq!(verdict, Verdict::Take),
                Err(error) => break error,
            }
        };
        assert!(error.contains("does not end"), "{error}");
    }
}
