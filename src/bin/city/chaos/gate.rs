//! Synchronises producers and faults.
//!
//! **Promise.** In a run by progress no garage posts more than its quota of a stage before the stage's fault has struck, and
//! that fault strikes while the last request of its garage in this stage is on its way. In a run by time nobody waits for a
//! fault, and a fault can wait for a request.

use std::sync::Arc;
use tokio::sync::{Barrier, Notify, watch};

/// The gate between stages, as faults see it.
#[derive(Debug)]
pub struct FaultGate {
    struck: watch::Sender<usize>,
    /// One for each fault, where it meets its garage. Without any, faults come by time.
    meetings: Arc<[Barrier]>,
    /// For each garage: notified when it makes a request.
    requests: Vec<Arc<Notify>>,
}

/// The gate, as one garage's producer sees it.
#[derive(Debug)]
pub struct GatePass {
    struck: watch::Receiver<usize>,
    meetings: Arc<[Barrier]>,
    /// How many events may be posted by the end of each stage. Empty: no limit.
    quotas: Vec<u64>,
    /// The faults of this garage.
    faults: Vec<usize>,
    requests: Arc<Notify>,
    posted: u64,
}

/// A gate by progress: for each fault its garage, for each garage its quotas, one more than there are faults.
pub fn by_progress(garages: &[usize], quotas: Vec<Vec<u64>>) -> (FaultGate, Vec<GatePass>) {
    let meetings: Arc<[Barrier]> = garages.iter().map(|_| Barrier::new(2)).collect();
    let (struck, seen) = watch::channel(0);
    let pass = |(garage, quotas)| GatePass {
        struck: seen.clone(),
        meetings: meetings.clone(),
        quotas,
        faults: (0..garages.len()).filter(|fault| garages[*fault] == garage).collect(),
        requests: Arc::default(),
        posted: 0,
    };
    let passes: Vec<GatePass> = quotas.into_iter().enumerate().map(pass).collect();
    let requests = passes.iter().map(|pass| pass.requests.clone()).collect();
    (FaultGate { struck, meetings, requests }, passes)
}

/// A gate that is always open, for faults by time.
pub fn by_time(garages: usize) -> (FaultGate, Vec<GatePass>) {
    by_progress(&[], vec![Vec::new(); garages])
}

impl FaultGate {
    /// In a run by progress: returns when the garage of fault number `fault` makes its last request of the stage.
    pub async fn meet(&self, fault: usize) {
        self.meetings[fault].wait().await;
    }

    /// Returns when `garage` makes its next request.
    pub async fn request_of(&self, garage: usize) {
        self.requests[garage].notified().await;
    }

    pub fn open(&self) {
        self.struck.send_modify(|struck| *struck += 1);
    }
}

impl GatePass {
    /// How many events may be posted now: at least one, after waiting for it if need be.
    pub async fn room(&mut self) -> u64 {
        if self.quotas.is_empty() {
            return u64::MAX;
        }
        let (quotas, posted) = (&self.quotas, self.posted);
        let mut room = 0;
        let opens = self.struck.wait_for(|struck| {
            // A producer that asks after the last quota has no more events, and will find that out.
            room = quotas.get(*struck).map_or(u64::MAX, |quota| quota.saturating_sub(posted));
            room > 0 || *struck + 1 == quotas.len()
        });
        if opens.await.is_err() {
            std::future::pending::<()>().await; // The gate is gone: the run has failed, and ends.
        }
        room.max(1)
    }

    /// Waits for the fault that is to hit this request, if there is one.
    pub async fn request(&mut self, events: u64) {
        self.posted += events;
        let stage = *self.struck.borrow();
        if self.faults.contains(&stage) && self.quotas.get(stage) == Some(&self.posted) {
            self.meetings[stage].wait().await;
        }
        self.notify_request();
    }

    /// A request is made, for the first time or again.
    pub fn notify_request(&self) {
        self.requests.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn no_garage_passes_before_the_fault_of_the_stage_has_struck() {
        let (gate, mut passes) = by_progress(&[1], vec![vec![10, 30], vec![5, 8]]);
        let (mut trigger, mut other) = (passes.remove(1), passes.remove(0));
        assert_eq!(other.room().await, 10);
        other.request(10).await;
        assert!(other.room().now_or_never().is_none(), "the fault has not struck");
        trigger.request(4).await;
        assert_eq!(trigger.room().await, 1);
        {
            let last = trigger.request(1);
            tokio::pin!(last);
            assert!(last.as_mut().now_or_never().is_none(), "it waits for its fault");
            tokio::join!(gate.meet(0), last);
        }
        assert!(trigger.room().now_or_never().is_none(), "it has met, and not struck yet");
        gate.open();
        assert_eq!((trigger.room().await, other.room().await), (3, 20));
    }

    #[tokio::test]
    async fn a_garage_that_is_late_meets_the_fault_of_the_stage_that_all_are_in() {
        let (gate, mut passes) = by_progress(&[0, 1], vec![vec![1, 2, 3], vec![4, 8, 9]]);
        let mut late = passes.remove(1);
        gate.open();
        assert_eq!(late.room().await, 8);
        // This was the quota of a stage that is over.
        late.request(4).await;
        tokio::join!(gate.meet(1), late.request(4));
    }

    #[tokio::test]
    async fn a_producer_that_waits_at_the_gate_can_be_stopped() {
        let stop = tokio_util::sync::CancellationToken::new();
        let (_gate, mut passes) = by_progress(&[0], vec![vec![1, 3]]);
        let mut pass = passes.remove(0);
        stop.cancel();
        assert!(stop.run_until_cancelled(pass.request(1)).await.is_none());
        assert!(stop.run_until_cancelled(pass.room()).await.is_none());
    }

    #[tokio::test]
    async fn a_gate_by_time_is_open_and_notifies_of_requests() {
        let (gate, mut passes) = by_time(2);
        let mut pass = passes.remove(1);
        assert_eq!(pass.room().await, u64::MAX);
        let request = gate.request_of(1);
        tokio::pin!(request);
        assert!(request.as_mut().now_or_never().is_none());
        pass.request(7).await;
        assert!(request.now_or_never().is_some());
    }
}
