//! The thread that owns the writes: it takes all appends that wait, commits them together, and answers them.

use super::keys;
use super::pages::{Pages, Post};
use super::{APPEND_BYTES_MAX, APPEND_MAX, AppendError, Appended, OutboxProgress, QUEUE};
use crate::codes;
use crate::messaging::Sequence;
use crate::messaging::page::{self, Message};
use crate::store::{BATCH_MAX, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// A group is closed when it may take this number of pages: they must fit into one batch of the store, and into
/// memory.
const GROUP_PAGES: usize = BATCH_MAX / 2;
/// A move to another epoch begins only when at least this much room is left, and at least as much as its pages take.
const MOVE_NEEDS: u64 = 32 << 20;

pub(super) type Done<T> = oneshot::Sender<Result<T, AppendError>>;

/// A change of the outbox itself. It answers its caller.
pub(super) type Change = Box<dyn FnOnce(&mut Committer) -> Result<(), StoreError> + Send>;

pub(super) enum CommitterCommand {
    Append {
        post: Post,
        done: Done<Appended>,
    },
    Sweep,
    Change(Change),
    /// Not after the group: the sweep that follows it would delete what this change takes back.
    ChangeAtOnce(Change),
}

/// Checks the size of an append, which depends on nothing that is stored.
pub(super) fn check(records: &[Message]) -> Result<(), AppendError> {
    if records.is_empty() || records.len() > APPEND_MAX {
        return Err(AppendError::Count(records.len()));
    }
    for (index, record) in records.iter().enumerate() {
        let key = record.key.as_ref().map_or(1, |key| key.text.len());
        let bytes = record.payload.len();
        if bytes > page::PAYLOAD_MAX {
            return Err(AppendError::TooLong { index, bytes });
        }
        if !(1..=page::KEY_MAX).contains(&key) {
            return Err(AppendError::Key { bytes: key });
        }
    }
    let bytes = records.iter().map(Message::encoded_len_max).sum();
    if bytes > APPEND_BYTES_MAX {
        return Err(AppendError::TooLarge { bytes });
    }
    Ok(())
}

/// An upper bound of the number of pages that these messages touch: two neighbours hold more than one page's bytes or 64 messages together.
fn pages_at_most(records: &[Message]) -> usize {
    let bytes: usize = records.iter().map(Message::encoded_len_max).sum();
    let room = page::BYTES_MAX - page::Page::HEADER_MAX;
    2 * bytes / room + records.len() / page::RECORDS_MAX + 2
}

pub(super) struct Committer {
    pub(super) pages: Arc<Pages>,
    progress: watch::Sender<OutboxProgress>,
    /// True while a move waits for room on the disk, which is logged once.
    move_waits: bool,
    carried: Option<CommitterCommand>,
}

#[derive(Default)]
pub(super) struct AppendGroup {
    posts: Vec<Post>,
    answers: Vec<GroupAnswer>,
    keys: HashMap<bytes::Bytes, usize>,
    pages: usize,
    messages: u64,
    bytes: u64,
}

/// An append that waits for the group. Several may wait for one post, when a producer posts again before it was answered.
struct GroupAnswer {
    post: usize,
    repeated: bool,
    done: Done<Appended>,
}

impl Committer {
    pub(super) fn new(pages: Arc<Pages>, progress: watch::Sender<OutboxProgress>) -> Committer {
        Committer { pages, progress, move_waits: false, carried: None }
    }

    pub(super) fn commit_until_closed(mut self, mut waiting: mpsc::Receiver<CommitterCommand>) {
        // What was acknowledged before this process, and not deleted yet: a delivered epoch must not hold up the next.
        let swept = self.pages.sweep().map(|()| self.progress.send_replace(self.pages.progress()));
        if let Err(error) = swept {
            self.fail(&error);
            return;
        }
        while let Some(first) = self.carried.take().or_else(|| waiting.blocking_recv()) {
            let mut group = AppendGroup::default();
            if let Err(error) = self.serve(first, &mut waiting, &mut group) {
                // Before the group is dropped: its producers ask for the failure when they are answered.
                self.fail(&error);
                return; // dropping the queue, and what was carried, answers all other callers
            }
        }
    }

    /// Stops accepting. Called before the callers learn of the failure, by their dropped answers.
    fn fail(&self, error: &StoreError) {
        tracing::error!(
            code = %codes::DISK_FAILED,
            %error,
            hint = "make room or replace the disk; a restart finds out what the disk holds",
            "the outbox could not be written; nothing more is accepted"
        );
        self.pages.failed(error);
        self.progress.send_modify(|progress| progress.failed = true);
    }

    /// Serves `first` and the commands that wait with it, at most as many as the queue holds. Without that limit, a producer that
    /// is answered at once and returns again and again could keep the others waiting for the end of the group. After an error
    /// nothing more is served.
    pub(super) fn serve(
        &mut self,
        first: CommitterCommand,
        waiting: &mut mpsc::Receiver<CommitterCommand>,
        group: &mut AppendGroup,
    ) -> Result<(), StoreError> {
        let mut command = Some(first);
        let mut taken = 0;
        while let Some(next) = command {
            taken += 1;
            match next {
                CommitterCommand::Append { post, done } => {
                    if let Some(post) = self.gather(group, post, done)? {
                        self.carried = Some(post);
                        break;
                    }
                }
                CommitterCommand::Sweep => {}
                CommitterCommand::ChangeAtOnce(change) => self.change(change)?,
                CommitterCommand::Change(change) if group.posts.is_empty() => self.change(change)?,
                other => {
                    self.carried = Some(other);
                    break;
                }
            }
            command = if taken < QUEUE { waiting.try_recv().ok() } else { None };
        }
        let places = match group.posts.is_empty() {
            true => Vec::new(),
            false => self.pages.commit(&group.posts)?,
        };
        self.pages.sweep()?;
        self.progress.send_replace(self.pages.progress());
        for GroupAnswer { post, repeated, done } in group.answers.drain(..) {
            let _ = done.send(Ok(Appended { repeated, ..places[post] })); // the producer may have disconnected
        }
        Ok(())
    }

    /// Adds a post to the group, or answers it. Returns the post when it belongs to the next group.
    fn gather(
        &self,
        group: &mut AppendGroup,
        post: Post,
        done: Done<Appended>,
    ) -> Result<Option<CommitterCommand>, StoreError> {
        let key = post.records.first().and_then(|record| record.key.clone());
        if let Some(key) = &key {
            if let Some(index) = group.keys.get(&key.text) {
                let first = group.posts[*index].records.first().and_then(|record| record.key.as_ref());
                if first.is_some_and(|first| first.body == key.body) {
                    group.answers.push(GroupAnswer { post: *index, repeated: true, done });
                } else {
                    let _ = done.send(Err(AppendError::KeyReused));
                }
                return Ok(None);
            }
            if let Some(known) = self.pages.remembered(key)? {
                self.pages.store().check_in_place()?;
                let first = Sequence::new(known.first);
                let last = Sequence::new(known.first + u64::from(known.count.max(1)) - 1);
                let answer = match (first, last) {
                    (Some(first), Some(last)) if known.body == key.body => {
                        Ok(Appended { epoch: known.epoch, first, last, repeated: true })
                    }
                    _ => Err(AppendError::KeyReused),
                };
                let _ = done.send(answer);
                return Ok(None);
            }
        }
        let pages = pages_at_most(&post.records);
        if group.pages + pages > GROUP_PAGES && !group.posts.is_empty() {
            return Ok(Some(CommitterCommand::Append { post, done }));
        }
        let messages = group.messages + post.records.len() as u64;
        let bytes = group.bytes + post.records.iter().map(Message::encoded_len_max).sum::<usize>() as u64;
        if let Err(what) = self.pages.room_for(messages, bytes) {
            let _ = done.send(Err(AppendError::Full(what)));
            return Ok(None);
        }
        if key.is_some() && self.pages.keys_remembered() + group.keys.len() as u64 >= keys::KEPT_MOST {
            let _ = done.send(Err(AppendError::KeysFull));
            return Ok(None);
        }
        if let Some(key) = key {
            group.keys.insert(key.text, group.posts.len());
        }
        group.answers.push(GroupAnswer { post: group.posts.len(), repeated: false, done });
        group.pages += pages;
        group.messages = messages;
        group.bytes = bytes;
        group.posts.push(post);
        Ok(None)
    }

    /// Checks that a move has room: what is moved is written again before its old place is freed.
    pub(super) fn room_to_move(&mut self) -> Result<(), String> {
        let is_there = self.pages.room_on_disk(|stored| stored.min(MOVE_NEEDS));
        match (&is_there, std::mem::replace(&mut self.move_waits, is_there.is_err())) {
            (Err(what), false) => {
                tracing::error!(
                    code = %codes::MOVE_WAITS_FOR_ROOM,
                    reason = what,
                    hint = "make room on the disk; the move then continues by itself",
                    "there is no room to move events to a new epoch, as the server requested; they wait"
                );
            }
            (Ok(()), true) => {
                tracing::info!("the disk has room again; the waiting events are moved to a new epoch")
            }
            _ => {}
        }
        is_there
    }

    fn change(&mut self, change: Change) -> Result<(), StoreError> {
        change(self)?;
        self.progress.send_replace(self.pages.progress());
        Ok(())
    }
}
