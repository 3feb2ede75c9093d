//! Limits the memory that bodies of requests take while they are received.
//!
//! **Promise.** Bodies that are long, slow, or never complete take no more memory than [`Bodies::new`] allows, and do not prevent
//! other bodies from being read.
//! **Kept by.** Each byte that is kept of a body is counted. When there is no room for more, incomplete bodies give way: first
//! the one with the largest product of its size and its age, which is neither a small one nor one that has just begun. (The
//! connection limits how long a body may take: [`super::TimeLimits`].)
//! **Not promised.** That there is room for a new body while complete ones fill the memory: those are being handled, and a new
//! one is refused until they are done.

use super::Problem;
use crate::codes;
use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;

/// The bodies of one kind that are being read or worked on.
#[derive(Debug, Clone)]
pub struct Bodies(Arc<BodiesState>);

#[derive(Debug)]
struct BodiesState {
    bytes_max: usize,
    length_max: usize,
    /// What such a body is called in messages, with its article.
    what: &'static str,
    held: Mutex<BodyMemory>,
}

#[derive(Debug, Default)]
struct BodyMemory {
    bytes: usize,
    next_id: u64,
    /// The bodies that can give way.
    incomplete: BTreeMap<u64, Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    bytes: usize,
    begun: Instant,
    gives_way: Arc<Notify>,
}

impl BodyMemory {
    fn first_to_give_way(&self, id: u64, now: Instant) -> Option<u64> {
        let others = self.incomplete.iter().filter(|(other, body)| **other != id && body.bytes > 0);
        let cost =
            |body: &Incomplete| body.bytes as u128 * now.saturating_duration_since(body.begun).as_micros();
        others.max_by_key(|(_, body)| cost(body)).map(|(other, _)| *other)
    }
}

impl Bodies {
    /// Bodies of at most `length_max` bytes each and `bytes_max` together; `what` is what one is called, with its article.
    pub fn new(what: &'static str, length_max: usize, bytes_max: usize) -> Bodies {
        Bodies(Arc::new(BodiesState { bytes_max, length_max, what, held: Mutex::default() }))
    }

    fn held(&self) -> MutexGuard<'_, BodyMemory> {
        self.0.held.lock().expect("no thread panics while it holds the sizes of bodies")
    }

    /// Reads a whole body. A refused body takes no memory afterwards.
    pub async fn read(&self, mut body: Body) -> Result<Received, Problem> {
        let length_max = self.0.length_max;
        let announced = hyper::body::Body::size_hint(&body).lower();
        if announced > length_max as u64 {
            return Err(self.too_long());
        }
        let mut received = Received::begin(self);
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = received.gives_way.notified() => return Err(gave_way()),
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                let detail = format!("the body broke off: {error}. Nothing was stored");
                Problem::new(StatusCode::BAD_REQUEST, detail)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let bytes = &received.bytes;
            let length = bytes.len() + data.len();
            if length > length_max {
                return Err(self.too_long());
            }
            if length > bytes.capacity() {
                let capacity = (2 * bytes.capacity()).clamp(length, length_max);
                received.grow_to(capacity).ok_or_else(gave_way)?;
            }
            received.bytes.extend_from_slice(&data);
        }
        received.complete().ok_or_else(gave_way)?;
        Ok(received)
    }

    fn too_long(&self) -> Problem {
        let (what, length_max) = (self.0.what, self.0.length_max);
        let detail =
            format!("{what} has at most {length_max} bytes. Nothing was stored; send less at a time");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }
}

fn gave_way() -> Problem {
    let detail = "more is being received than fits into memory, and this body was not complete. Nothing was stored; send it again in a moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).code(codes::BUSY).retry_after(1)
}

/// The bytes of a body; its memory is given back when this is dropped.
#[derive(Debug)]
pub struct Received {
    bodies: Bodies,
    id: u64,
    bytes: Vec<u8>,
    /// The size that is counted for it.
    reserved: usize,
    /// Until then it is in [`BodyMemory::incomplete`], unless it was removed from there because it has to give way.
    is_complete: bool,
    gives_way: Arc<Notify>,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Received {
    fn begin(bodies: &Bodies) -> Received {
        let mut held = bodies.held();
        let id = held.next_id;
        held.next_id += 1;
        let gives_way = Arc::<Notify>::default();
        let incomplete = Incomplete { bytes: 0, begun: Instant::now(), gives_way: Arc::clone(&gives_way) };
        held.incomplete.insert(id, incomplete);
        Received { bodies: bodies.clone(), id, bytes: Vec::new(), reserved: 0, is_complete: false, gives_way }
    }

    /// Reserves memory for a body of this size. Other incomplete bodies may have to give way for it. `None` when it had to give
    /// way itself, or when there is no room even if all others do.
    fn grow_to(&mut self, bytes: usize) -> Option<()> {
        let mut held = self.bodies.held();
        held.incomplete.get(&self.id)?;
        while held.bytes - self.reserved + bytes > self.bodies.0.bytes_max {
            let other = held.first_to_give_way(self.id, Instant::now())?;
            if let Some(other) = held.incomplete.remove(&other) {
                held.bytes -= other.bytes;
                other.gives_way.notify_one();
            }
        }
        held.bytes += bytes - self.reserved;
        held.incomplete.entry(self.id).and_modify(|own| own.bytes = bytes);
        drop(held);
        self.reserved = bytes;
        self.bytes.reserve_exact(bytes - self.bytes.len());
        Some(())
    }

    /// Marks the body as complete: from here on it does not give way. `None` when it had to.
    fn complete(&mut self) -> Option<()> {
        self.bodies.held().incomplete.remove(&self.id)?;
        self.is_complete = true;
        Some(())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.bytes = Vec::new(); // before it counts as free
        let mut held = self.bodies.held();
        if held.incomplete.remove(&self.id).is_some() || self.is_complete {
            held.bytes -= self.reserved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    /// A body that comes as it is sent here.
    fn body() -> (mpsc::UnboundedSender<usize>, Body) {
        let (sender, mut receiver) = mpsc::unbounded_channel::<usize>();
        let frames = futures_util::stream::poll_fn(move |cx| {
            receiver
                .poll_recv(cx)
                .map(|length| length.map(|length| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; length]))))
        });
        (sender, Body::from_stream(frames))
    }

    fn read(bodies: &Bodies, body: Body) -> JoinHandle<Result<Received, Problem>> {
        let bodies = bodies.clone();
        tokio::spawn(async move { bodies.read(body).await })
    }

    async fn until_held(bodies: &Bodies, bytes: usize) {
        let waiting = async {
            while bodies.held().bytes != bytes {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{:?}", bodies.held()));
    }

    #[tokio::test]
    async fn a_body_that_stalls_gives_way_to_those_that_come_and_complete_ones_do_not() {
        let bodies = Bodies::new("a body", 200, 250);
        let (large, body_1) = body();
        let (small, body_2) = body();
        let [large_reading, small_reading] = [read(&bodies, body_1), read(&bodies, body_2)];
        large.send(100).unwrap();
        until_held(&bodies, 100).await;
        small.send(50).unwrap();
        until_held(&bodies, 150).await;

        let whole = bodies.read(Body::from(vec![b'x'; 150])).await.unwrap();
        let refused = large_reading.await.unwrap().unwrap_err();
        assert_eq!((refused.status, refused.retry_after_seconds), (503, Some(1)));
        drop(small);
        let small = small_reading.await.unwrap().unwrap();
        assert_eq!((small.len(), whole.len(), bodies.held().bytes), (50, 150, 200));

        let refused = bodies.read(Body::from(vec![b'x'; 60])).await.unwrap_err();
        assert_eq!(refused.status, 503, "complete ones do not give way");
        drop(whole);
        bodies.read(Body::from(vec![b'x'; 60])).await.unwrap();
        drop(small);
        assert_eq!(bodies.held().bytes, 0);
        assert!(bodies.held().incomplete.is_empty());
    }

    #[test]
    fn neither_a_small_body_nor_one_that_has_just_begun_gives_way_first() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let incomplete =
            |bytes, seconds| Incomplete { bytes, begun: ago(seconds), gives_way: Arc::default() };
        let bodies = [(1, incomplete(100, 29)), (2, incomplete(900_000, 20)), (3, incomplete(1_000_000, 1))];
        let mut held = BodyMemory { incomplete: BTreeMap::from(bodies), ..BodyMemory::default() };
        assert_eq!(held.first_to_give_way(4, now), Some(2));
        assert_eq!(held.first_to_give_way(2, now), Some(3), "not itself");
        held.incomplete.retain(|id, _| *id == 1);
        assert_eq!((held.first_to_give_way(4, now), held.first_to_give_way(1, now)), (Some(1), None));
    }

    #[tokio::test]
    async fn what_is_too_long_or_breaks_off_is_refused_and_takes_nothing() {
        let bodies = Bodies::new("a body", 100, 250);
        assert_eq!(bodies.read(Body::from(vec![b'x'; 101])).await.unwrap_err().status, 413);
        let (frames, whole) = body();
        [60, 41].into_iter().for_each(|length| frames.send(length).unwrap());
        assert_eq!(bodies.read(whole).await.unwrap_err().status, 413);
        let broken =
            futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
        assert_eq!(bodies.read(Body::from_stream(broken)).await.unwrap_err().status, 400);
        let (frames, whole) = body();
        let reading = read(&bodies, whole);
        frames.send(50).unwrap();
        until_held(&bodies, 50).await;
        reading.abort();
        until_held(&bodies, 0).await;
        assert_eq!(bodies.read(Body::empty()).await.unwrap().len(), 0);
    }

    /// Doubling the buffer must not take more memory than is counted, nor more than a body may have.
    #[tokio::test]
    async fn what_a_body_takes_is_what_is_counted() {
        let bodies = Bodies::new("a body", 1000, 1000);
        for lengths in [vec![1; 1000], vec![999, 1], vec![3; 333], vec![400, 1, 400]] {
            let (frames, whole) = body();
            lengths.iter().for_each(|length| frames.send(*length).unwrap());
            drop(frames);
            let received = bodies.read(whole).await.unwrap();
            assert_eq!(received.len(), lengths.iter().sum::<usize>());
            assert_eq!(received.bytes.capacity(), bodies.held().bytes);
            drop(received);
            assert_eq!(bodies.held().bytes, 0);
        }
    }
}
