//! Who reads `/metrics`, so that the last values of a run reach each of them: two Prometheus side
//! by side are usual.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Who has not come for so long comes no more: longer than any customary interval.
const FORGOTTEN: Duration = Duration::from_secs(180);

type Seen = BTreeMap<IpAddr, (u64, Instant)>;

/// Counts reads by where they come from; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Scrapes(watch::Sender<Seen>);

impl Default for Scrapes {
    fn default() -> Self {
        Self(watch::Sender::new(Seen::new()))
    }
}

impl Scrapes {
    /// Somebody has read everything.
    pub(super) fn read_by(&self, who: IpAddr) {
        self.0.send_modify(|seen| {
            let (count, last) = seen.entry(who).or_insert((0, Instant::now()));
            (*count, *last) = (*count + 1, Instant::now());
        });
    }

    /// How often it was read, by all together.
    pub(super) fn count(&self) -> u64 {
        self.0.borrow().values().map(|(count, _)| count).sum()
    }

    /// Waits until everybody who reads has read once more; where nobody does, until somebody has.
    pub(super) async fn once_more(&self) {
        let mut seen = self.0.subscribe();
        let before: BTreeMap<IpAddr, u64> = (seen.borrow().iter())
            .filter(|(_, (_, last))| last.elapsed() < FORGOTTEN)
            .map(|(who, (count, _))| (*who, *count))
            .collect();
        let more = |seen: &Seen| {
            let again =
                |(who, count): (&IpAddr, &u64)| seen.get(who).map(|seen| seen.0) > Some(*count);
            match before.is_empty() {
                true => !seen.is_empty(),
                false => before.iter().all(again),
            }
        };
        // The sender is this one, which lives.
        let _ = seen.wait_for(more).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_that_reads_is_waited_for() {
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let scrapes = Scrapes::default();
        let done = |of: &Scrapes| {
            let of = of.clone();
            tokio::spawn(async move { of.once_more().await })
        };
        let settle = || tokio::time::sleep(Duration::from_millis(1));

        let first = done(&scrapes);
        settle().await;
        assert!(!first.is_finished());
        scrapes.read_by(a);
        first.await.unwrap();

        scrapes.read_by(b);
        let both = done(&scrapes);
        settle().await;
        scrapes.read_by(a);
        scrapes.read_by(a);
        settle().await;
        assert!(!both.is_finished(), "the other has not come");
        scrapes.read_by(b);
        both.await.unwrap();
        assert_eq!(scrapes.count(), 5);

        tokio::time::advance(FORGOTTEN).await;
        scrapes.read_by(b);
        let one = done(&scrapes);
        settle().await;
        scrapes.read_by(b);
        one.await.unwrap();
    }
}
