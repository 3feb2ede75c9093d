//! The background tasks of a daemon.
//!
//! **Promise.** A task that ends without being asked to stops the daemon, as a signal does: it exits with 1 and names the task.

use super::DaemonError;
use crate::codes;
use std::collections::HashMap;
use std::future::Future;
use tokio::task::{Id, JoinError, JoinSet};

/// See the module. Dropping it ends them all.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// `name` is what it does, such as "answering commands".
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Returns when one of them has ended, and says which. Waits forever when there is none.
    pub async fn one_ended(&mut self) -> DaemonError {
        let Some(ended) = self.running.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        ended_early(self.names.get(&id).unwrap_or(&"a task"), ended.map(drop))
    }

    /// Waits until all of them have ended, which they were asked to.
    pub async fn finish(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// What a daemon ends with when this task has ended although nobody asked it to.
pub(super) fn ended_early(name: &str, ended: Result<(), JoinError>) -> DaemonError {
    let how = match ended {
        Ok(()) => "ended by itself".to_owned(),
        Err(error) => format!("panicked ({error})"),
    };
    let reason = format!(
        "{name} {how}. What was confirmed is on the disk. Start it again, and please report this with the log"
    );
    DaemonError::Failed(codes::TASK_ENDED, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(task: impl Future<Output = ()> + Send + 'static) -> String {
        let mut tasks = Tasks::default();
        tasks.spawn("looking on", std::future::pending());
        tasks.spawn("answering commands", task);
        tasks.one_ended().await.to_string()
    }

    /// The end of the task behind `admin.sock` once went unnoticed: the daemon served on, and took no commands.
    #[tokio::test]
    async fn the_task_that_ends_is_named() {
        let ended = said(async {}).await;
        assert!(ended.starts_with("answering commands ended by itself"), "{ended}");
        let panicked = said(async { panic!("out of range") }).await;
        assert!(panicked.starts_with("answering commands panicked"), "{panicked}");
    }
}
