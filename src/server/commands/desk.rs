//! Commands to a running server.

use super::{Command, Request, reading};
use crate::daemon::admin::{Call, NotDone, Outcome};
use crate::server::folding::Signal;
use crate::server::ledger::Ledger;
use crate::server::verify::verify_live;
use crate::server::view::View;
use crate::store::Store;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a server that stops waits until what it has recorded is folded, too.
const FOLDED_WITHIN: Duration = Duration::from_secs(1);

/// A command on its way to the committing thread.
#[derive(Debug)]
pub struct Order {
    pub command: Command,
    /// Who gave it.
    pub by: String,
    /// Told its position when it is on disk, or why nobody knows whether it is. Dropped: it was never begun.
    pub recorded_at: oneshot::Sender<Result<u64, String>>,
}

/// What an operator reads when a read met damage that sled panics over, or a mistake of ours.
fn broke_off(what: &str, do_this: &str) -> NotDone {
    NotDone::Refused(format!(
        "{what} broke off; the server goes on, and nothing was changed. {do_this}. The server's log says more, please report this with it"
    ))
}

/// Where operators come to.
pub struct Desk {
    ledger: Ledger,
    store: Store,
    view: Arc<RwLock<View>>,
    signal: Arc<Signal>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    /// One command is judged, recorded and folded before the next is judged.
    turn: Mutex<()>,
}

impl Desk {
    pub fn new(
        ledger: Ledger,
        store: Store,
        view: Arc<RwLock<View>>,
        signal: Arc<Signal>,
        orders: mpsc::Sender<Order>,
        stop: CancellationToken,
    ) -> Desk {
        Desk { ledger, store, view, signal, orders, stop, turn: Mutex::new(()) }
    }

    pub async fn answer(&self, call: Call<Request>) -> Outcome {
        match call.request {
            Request::Command(command) => self.carry_out(command, call.caller.as_str()).await,
            Request::Garages => {
                let streams = self.ledger.streams();
                Ok(reading::garages(&self.view(), &streams))
            }
            Request::Quarantine { after, limit } => Ok(reading::quarantine(&self.view(), after, limit)),
            Request::Verify => {
                let (ledger, store, signal) =
                    (self.ledger.clone(), self.store.clone(), Arc::clone(&self.signal));
                let verified = tokio::task::spawn_blocking(move || {
                    reading::verified(verify_live(&ledger, &store, &signal))
                });
                verified.await.unwrap_or_else(|_| {
                    Err(broke_off(
                        "verifying",
                        "Stop the server and verify again: then its directory is looked into as it is",
                    ))
                })
            }
            Request::Records { from, through } => {
                let ledger = self.ledger.clone();
                let read = tokio::task::spawn_blocking(move || reading::records(&ledger, from, through));
                read.await.unwrap_or_else(|_| {
                    Err(broke_off("reading the ledger", "Ask server verify what is wrong with it"))
                })
            }
        }
    }

    async fn carry_out(&self, command: Command, by: &str) -> Outcome {
        let _turn = self.turn.lock().await;
        tokio::select! {
            () = self.signal.folded_to(self.ledger.position()) => {}
            () = self.stop.cancelled() => return Err(NotDone::Stopping),
        }
        // Judging may read the page that a quarantined event stands in: a moment, once for each command.
        let judged = tokio::task::block_in_place(|| self.view().judge(&self.ledger, &command).map(drop));
        judged.map_err(|error| format!("{error}. Nothing was recorded"))?;
        let (recorded_at, recorded) = oneshot::channel();
        let order = Order { command: command.clone(), by: by.to_owned(), recorded_at };
        if self.orders.send(order).await.is_err() {
            return Err(NotDone::Stopping);
        }
        let position = match recorded.await {
            Ok(recorded) => recorded?,
            Err(_) => return Err(NotDone::Stopping),
        };
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(FOLDED_WITHIN).await;
        };
        tokio::select! {
            () = self.signal.folded_to(position) => reading::done(&self.view(), position, &command),
            () = stopped => Ok(reading::recorded(position)),
        }
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().expect("the fold does not panic while it holds the view")
    }
}
