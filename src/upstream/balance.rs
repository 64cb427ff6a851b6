//! Which of several endpoints: power of two choices on streams in flight.
//!
//! Pure: sees numbers, not endpoints.

/// What counts in a choice.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// In another zone: left out as long as there is a healthy one in ours.
    pub other_zone: bool,
    /// Terminating: left out as long as there is one that is not, tried or ejected as that may be.
    pub leaving: bool,
    /// Left out as long as there is any other.
    pub ejected: bool,
    /// Not to be taken again in this round.
    pub tried: bool,
}

/// The index of the less loaded of two random candidates. Those of another zone count only when none
/// of ours is healthy, ejected ones only when no other is left, so the last endpoint is never ejected;
/// tried ones never. Terminating ones count only where all are terminating, as in kube-proxy (KEP-1669).
///
/// `load` tells the streams in flight of one by its index, and is asked for two; `random` is any number; all of its
/// bits are used.
#[must_use]
pub fn choose(
    candidates: impl Iterator<Item = Candidate> + Clone,
    load: impl Fn(usize) -> usize,
    random: u64,
) -> Option<usize> {
    let all_leave = candidates.clone().all(|c| c.leaving);
    let any = || {
        candidates.clone().enumerate().filter(move |(_, c)| !c.tried && (all_leave || !c.leaving))
    };
    let healthy = || any().filter(|(_, c)| !c.ejected);
    let near = || healthy().filter(|(_, c)| !c.other_zone);
    let (first, second) = match (near().count(), healthy().count()) {
        (0, 0) => two(any(), any().count(), random),
        (0, count) => two(healthy(), count, random),
        (count, _) => two(near(), count, random),
    }?;
    Some(if first != second && load(second) < load(first) { second } else { first })
}

/// The indices of two of them, which are one if there is only one.
fn two(
    open: impl Iterator<Item = (usize, Candidate)> + Clone,
    count: usize,
    random: u64,
) -> Option<(usize, usize)> {
    let total = u64::try_from(count).ok().filter(|total| *total > 0)?;
    let first = (random >> 32) % total;
    let second =
        if total > 1 { (first + 1 + (random & 0xffff_ffff) % (total - 1)) % total } else { first };
    let at = |rank: u64| Some(open.clone().nth(usize::try_from(rank).ok()?)?.0);
    Some((at(first)?, at(second)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Loaded = (Candidate, usize);

    fn open(load: usize) -> Loaded {
        (Candidate { other_zone: false, leaving: false, ejected: false, tried: false }, load)
    }

    fn chosen(all: &[Loaded], random: u64) -> Option<usize> {
        choose(all.iter().map(|(candidate, _)| *candidate), |at| all[at].1, random)
    }

    /// A spread of numbers that is the same in every run.
    fn randoms() -> impl Iterator<Item = u64> {
        (0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
    }

    #[test]
    fn the_most_loaded_of_three_is_never_taken_and_the_others_share() {
        let all = [open(5), open(0), open(1)];
        let mut taken = [0; 3];
        for random in randoms() {
            taken[chosen(&all, random).unwrap()] += 1;
        }
        assert_eq!(taken[0], 0);
        assert!(taken[1] > 550 && taken[2] > 200, "{taken:?}");
    }

    #[test]
    fn equal_loads_are_taken_alike() {
        let all = [open(1), open(1), open(1), open(1)];
        let mut taken = [0; 4];
        for random in randoms() {
            taken[chosen(&all, random).unwrap()] += 1;
        }
        assert!(taken.iter().all(|count| (150..350).contains(count)), "{taken:?}");
    }

    #[test]
    fn ejected_ones_wait_until_nothing_else_is_left_and_tried_ones_are_out() {
        let mut all = [open(9), open(0)];
        all[1].0.ejected = true;
        assert!(randoms().all(|random| chosen(&all, random) == Some(0)));
        all[0].0.tried = true;
        assert_eq!(chosen(&all, 7), Some(1));
        all[1].0.tried = true;
        assert_eq!(chosen(&all, 7), None);
        assert_eq!(chosen(&[], 7), None);
    }

    #[test]
    fn terminating_ones_count_only_where_all_are_terminating() {
        let mut all = [open(9), open(0), open(0)];
        all[1].0.leaving = true;
        all[2].0.leaving = true;
        assert!(randoms().all(|random| chosen(&all, random) == Some(0)));
        (all[0].0.ejected, all[0].0.other_zone) = (true, true);
        assert!(randoms().all(|random| chosen(&all, random) == Some(0)));
        all[0].0.tried = true;
        assert_eq!(chosen(&all, 7), None, "who tried the ready one waits for another");
        all[0].0.leaving = true;
        let taken = chosen(&all, 7);
        assert!(taken == Some(1) || taken == Some(2), "{taken:?}");
    }
}
