//! Where producers and faults meet.
//!
//! **Promise.** In a run by progress no garage offers more than its quota of a stage before the stage's fault has
//! struck, and that fault strikes while its herald's last events of the stage are on their way. In a run by time
//! nobody waits for a fault, and a fault can wait for a request to leave.
//! **Not promised.** To make anybody wait for a daemon that is dead: producers and kills do that themselves.

use std::sync::Arc;
use tokio::sync::{Barrier, Notify, watch};
use tokio_util::sync::CancellationToken;

/// The gate between stages, as faults see it.
#[derive(Debug)]
pub struct Gate {
    /// How many faults have struck.
    struck: watch::Sender<usize>,
    /// One for each fault: its herald and itself meet here. Without any, faults come by time.
    meetings: Arc<[Barrier]>,
    /// For each garage: told when a request leaves.
    leaving: Vec<Arc<Notify>>,
}

/// The gate, as one garage's producer sees it.
#[derive(Debug)]
pub struct Pass {
    struck: watch::Receiver<usize>,
    meetings: Arc<[Barrier]>,
    /// How many events may be offered at the end of each stage; without any, as many as there are.
    quotas: Vec<u64>,
    /// The faults that this garage heralds.
    heralds: Vec<usize>,
    leaving: Arc<Notify>,
    offered: u64,
}

/// A gate by progress: for each fault its herald, for each garage its quotas, one more than there are faults.
pub fn by_progress(heralds: &[usize], quotas: Vec<Vec<u64>>) -> (Gate, Vec<Pass>) {
    let meetings: Arc<[Barrier]> = heralds.iter().map(|_| Barrier::new(2)).collect();
    let (struck, seen) = watch::channel(0);
    let passes: Vec<Pass> = quotas
        .into_iter()
        .enumerate()
        .map(|(garage, quotas)| Pass {
            struck: seen.clone(),
            meetings: meetings.clone(),
            quotas,
            heralds: (0..heralds.len()).filter(|fault| heralds[*fault] == garage).collect(),
            leaving: Arc::default(),
            offered: 0,
        })
        .collect();
    let leaving = passes.iter().map(|pass| pass.leaving.clone()).collect();
    (Gate { struck, meetings, leaving }, passes)
}

/// A gate that stands open, for faults by time.
pub fn by_time(garages: usize) -> (Gate, Vec<Pass>) {
    by_progress(&[], vec![Vec::new(); garages])
}

impl Gate {
    /// In a run by progress: returns when the herald of fault number `fault` sends its last events of the stage.
    pub async fn meet(&self, fault: usize) {
        self.meetings[fault].wait().await;
    }

    /// Returns when `garage` sends its next request.
    pub async fn request_of(&self, garage: usize) {
        self.leaving[garage].notified().await;
    }

    /// The next stage begins.
    pub fn open(&self) {
        self.struck.send_modify(|struck| *struck += 1);
    }
}

impl Pass {
    /// How many events may be offered now: at least one, waiting for it if need be. `None`: `stop` came first, or the gate
    /// is gone, which happens when the run failed.
    pub async fn room(&mut self, stop: &CancellationToken) -> Option<u64> {
        if self.quotas.is_empty() {
            return Some(u64::MAX);
        }
        let (quotas, offered) = (&self.quotas, self.offered);
        let mut room = 0;
        let opened = self.struck.wait_for(|struck| {
            // Who asks beyond the last quota has no more events, and will find that out.
            room = quotas.get(*struck).map_or(u64::MAX, |quota| quota.saturating_sub(offered));
            room > 0 || *struck + 1 == quotas.len()
        });
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            opened = opened => match opened {
                Ok(_) => Some(room.max(1)),
                Err(_) => None,
            },
        }
    }

    /// A request with so many events is about to leave. Waits for the fault that is to meet it; `false`: `stop` came.
    pub async fn offering(&mut self, events: u64, stop: &CancellationToken) -> bool {
        self.offered += events;
        let stage = *self.struck.borrow();
        let meets = self.heralds.contains(&stage) && self.quotas.get(stage) == Some(&self.offered);
        if meets {
            tokio::select! {
                biased;
                _ = self.meetings[stage].wait() => {}
                () = stop.cancelled() => return false,
            }
        }
        self.leaves();
        true
    }

    /// A request leaves, be it anew.
    pub fn leaves(&self) {
        self.leaving.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn nobody_passes_before_the_fault_of_the_stage_has_struck() {
        let stop = CancellationToken::new();
        let (gate, mut passes) = by_progress(&[1], vec![vec![10, 30], vec![5, 8]]);
        let (mut herald, mut other) = (passes.remove(1), passes.remove(0));
        assert_eq!(other.room(&stop).await, Some(10));
        assert!(other.offering(10, &stop).await);
        assert!(other.room(&stop).now_or_never().is_none(), "the fault has not struck");
        assert!(herald.offering(4, &stop).await);
        assert_eq!(herald.room(&stop).await, Some(1));
        {
            let last = herald.offering(1, &stop);
            tokio::pin!(last);
            assert!(last.as_mut().now_or_never().is_none(), "it waits for its fault");
            let (struck, left) = tokio::join!(gate.meet(0), last);
            assert_eq!((struck, left), ((), true));
        }
        assert!(herald.room(&stop).now_or_never().is_none(), "it has met, and not struck yet");
        gate.open();
        assert_eq!((herald.room(&stop).await, other.room(&stop).await), (Some(3), Some(20)));
    }

    #[tokio::test]
    async fn a_garage_that_is_late_meets_the_fault_of_the_stage_that_all_are_in() {
        let stop = CancellationToken::new();
        let (gate, mut passes) = by_progress(&[0, 1], vec![vec![1, 2, 3], vec![4, 8, 9]]);
        let mut late = passes.remove(1);
        gate.open();
        assert_eq!(late.room(&stop).await, Some(8));
        assert!(late.offering(4, &stop).await, "this was the quota of a stage that is over");
        let (_, met) = tokio::join!(gate.meet(1), late.offering(4, &stop));
        assert!(met);
    }

    #[tokio::test]
    async fn whoever_waits_at_the_gate_can_be_stopped() {
        let stop = CancellationToken::new();
        let (_gate, mut passes) = by_progress(&[0], vec![vec![1, 3]]);
        let mut pass = passes.remove(0);
        stop.cancel();
        assert!(!pass.offering(1, &stop).await);
        assert_eq!(pass.room(&stop).await, None);
    }

    #[tokio::test]
    async fn a_gate_by_time_stands_open_and_tells_of_requests() {
        let stop = CancellationToken::new();
        let (gate, mut passes) = by_time(2);
        let mut pass = passes.remove(1);
        assert_eq!(pass.room(&stop).await, Some(u64::MAX));
        let request = gate.request_of(1);
        tokio::pin!(request);
        assert!(request.as_mut().now_or_never().is_none());
        assert!(pass.offering(7, &stop).await);
        assert!(request.now_or_never().is_some());
    }
}
