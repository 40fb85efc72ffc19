//! What a running poll keeps in memory: a fingerprint and a number for each user of the snapshot, and four bits: who was seen, in which
//! listing, and who was written.
//! That is how an unchanged user costs neither a read nor a write.

use rusqlite::Connection;

use super::Sql;
use super::poll::{Applied, cursor};
use crate::model::Listing;

/// What the running poll keeps in memory.
pub(super) struct Memory {
    /// Who is known by which record.
    known: Known,
    /// Users of the snapshot, those who appeared in this poll included.
    pub(super) present: u64,
    /// Who was seen in this poll.
    pub(super) seen: Bits,
    /// Who was seen in this pass over each listing, in the order of [`Listing::BOTH`].
    pass: [Bits; 2],
    /// Whether the listing of those whom the identity provider provisions was read to its end.
    sso_read: bool,
    /// Whose row was written since `known` was read: it tells of an older record.
    pub(super) written: Bits,
    /// Reused for fingerprints.
    pub(super) scratch: Vec<u8>,
}

/// The numbers of users by the fingerprints of their records, sorted; 17 bytes a user.
struct Known {
    prints: Vec<(u64, u32)>,
    /// Where each drawer of `prints` begins. Fingerprints are spread evenly, so their first bits choose a drawer of about
    /// eight: one look into memory instead of the seventeen of a binary search over 100,000.
    drawers: Vec<u32>,
    /// How far a fingerprint is shifted to give its drawer.
    shift: u32,
}

impl Known {
    fn new(mut prints: Vec<(u64, u32)>) -> Self {
        prints.sort_unstable();
        let bits = (prints.len() / 8).max(2).ilog2();
        let shift = u64::BITS - bits;
        let mut drawers = Vec::with_capacity((1 << bits) + 1);
        for (at, (print, _)) in (0..).zip(&prints) {
            while drawers.len() <= (print >> shift) as usize {
                drawers.push(at);
            }
        }
        drawers.resize((1 << bits) + 1, prints.len() as u32);
        Self { prints, drawers, shift }
    }

    fn get(&self, fingerprint: u64) -> Option<u32> {
        let drawer = (fingerprint >> self.shift) as usize;
        let (from, to) = (self.drawers[drawer] as usize, self.drawers[drawer + 1] as usize);
        let mut drawer = self.prints[from..to].iter();
        drawer.find(|(print, _)| *print == fingerprint).map(|(_, no)| *no)
    }
}

/// A set of small numbers, one bit each.
#[derive(Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    pub(super) count: u64,
}

impl Bits {
    /// Adds a number; whether it was not there before.
    pub(super) fn insert(&mut self, no: u32) -> bool {
        let (word, bit) = (no as usize / 64, 1_u64 << (no % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(fresh);
        fresh
    }

    pub(super) fn contains(&self, no: u32) -> bool {
        self.words
            .get(no as usize / 64)
            .is_some_and(|word| word & (1 << (no % 64)) != 0)
    }
}

impl Memory {
    pub(super) fn load(db: &Connection) -> Sql<Self> {
        let mut prints = Vec::new();
        let mut statement = db.prepare("SELECT fingerprint, no FROM users WHERE removed_at IS NULL")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            prints.push((row.get::<_, i64>(0)? as u64, row.get(1)?));
        }
        let mut memory = Self {
            present: prints.len() as u64,
            known: Known::new(prints),
            seen: Bits::default(),
            pass: [Bits::default(), Bits::default()],
            sso_read: cursor(db, Listing::Sso)?.done,
            written: Bits::default(),
            scratch: Vec::with_capacity(512),
        };
        // A poll that is resumed: whom its pages saw before.
        let mut statement = db.prepare("SELECT listing, seen FROM poll_pages")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let listing: String = row.get(0)?;
            for no in unpack(row.get_ref(1)?.as_blob()?) {
                memory.seen.insert(no);
                if let Some(index) = Listing::BOTH.iter().position(|known| known.as_str() == listing) {
                    memory.pass[index].insert(no);
                }
            }
        }
        Ok(memory)
    }

    /// Who is known by just this record, and still is.
    pub(super) fn unchanged(&self, fingerprint: u64) -> Option<u32> {
        self.known.get(fingerprint).filter(|no| !self.written.contains(*no))
    }

    /// What a record of somebody in this listing is worth, who was known as one (`sso`) whom the identity provider provisions or
    /// not. Whoever is in both listings with different data would be somebody else after every poll: the provisioned ones' counts.
    pub(super) fn worth(&self, listing: Listing, no: u32, sso: bool) -> Worth {
        match listing {
            Listing::Local if self.pass[index(Listing::Sso)].contains(no) => Worth::Nothing,
            Listing::Local if sso && !self.sso_read => Worth::Later,
            _ => Worth::Everything,
        }
    }

    /// Different users seen so far.
    pub(super) fn seen_users(&self) -> u64 {
        self.seen.count
    }

    /// A listing is started again: nobody was seen in this pass.
    pub(super) fn restart(&mut self, listing: Listing) {
        self.pass[index(listing)] = Bits::default();
        self.sso_read &= listing != Listing::Sso;
    }

    /// Notes whom a page showed, and whether it was the last one.
    pub(super) fn note(&mut self, listing: Listing, saw: &[u32], last: bool, applied: &mut Applied) {
        self.sso_read |= last && listing == Listing::Sso;
        self.present += applied.appeared;
        for no in saw {
            self.seen.insert(*no);
            applied.fresh += usize::from(self.pass[index(listing)].insert(*no));
        }
        applied.seen = self.seen.count;
        applied.present = self.present;
    }
}

/// What a record is worth beside one of the same user in the other listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It says who they are.
    Everything,
    /// It does if they turn out not to be in the other listing.
    Later,
    /// The other one said so.
    Nothing,
}

fn index(listing: Listing) -> usize {
    match listing {
        Listing::Sso => 0,
        Listing::Local => 1,
    }
}

/// Packs user numbers as differences, 7 bits a byte: pages come in much the same order each time, so it is a byte or two a user.
pub(super) fn pack(numbers: &[u32]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(numbers.len() * 2);
    let mut last = 0_i64;
    for no in numbers {
        let difference = i64::from(*no) - last;
        last = i64::from(*no);
        // Zigzag: small differences of either sign become small numbers.
        let mut rest = ((difference << 1) ^ (difference >> 63)) as u64;
        while rest >= 0x80 {
            packed.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        packed.push(rest as u8);
    }
    packed
}

fn unpack(packed: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(packed.len());
    let (mut last, mut value, mut shift) = (0_i64, 0_u64, 0);
    for byte in packed {
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            last += (value >> 1) as i64 ^ -((value & 1) as i64);
            if let Ok(no) = u32::try_from(last) {
                numbers.push(no);
            }
            (value, shift) = (0, 0);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whoever_is_known_is_found_by_fingerprint_and_nobody_else(
            prints in proptest::collection::btree_map(any::<u64>(), any::<u32>(), 0..300),
            other in any::<u64>(),
        ) {
            let known = Known::new(prints.clone().into_iter().collect());
            for (print, no) in &prints {
                prop_assert_eq!(known.get(*print), Some(*no));
            }
            for print in [other, 0, u64::MAX] {
                prop_assert_eq!(known.get(print), prints.get(&print).copied());
            }
        }

        #[test]
        fn packed_numbers_come_back(numbers in proptest::collection::vec(any::<u32>(), 0..200)) {
            prop_assert_eq!(unpack(&pack(&numbers)), numbers);
        }
    }

    #[test]
    fn a_page_in_order_takes_a_byte_a_user() {
        let numbers: Vec<u32> = (5_000..5_100).collect();
        assert!(pack(&numbers).len() <= 102);
    }
}
