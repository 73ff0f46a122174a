//! The streams that wait for something to send.
//!
//! A stream waits for most of its life. As a task that waits by itself, each would hold a task, a registration of its
//! socket and a timer of Tokio, which together are larger than the rest of it. So a few tasks wait for all of them: one
//! for each thread of the runtime, with a poller of the operating system for its sockets, one queue of pings, and a
//! waker for each stream. What a socket takes at once is sent from here. A stream that has to wait for its client, or
//! to end, goes on as a task.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::panics;
use bytes::Bytes;
use futures_util::task::{ArcWake, waker_ref};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{coop, yield_now};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::feed::Step;

/// Streams that are served before other tasks have their turn.
const TURN: usize = 32;

/// Sockets that the operating system reports at a time.
const MAX_EVENTS: usize = 256;

/// Wait before the operating system is asked again after it failed.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// A stream that waits for something to send.
pub(crate) trait Waiting: Send {
    /// Does not block.
    fn socket(&self) -> &TcpStream;

    /// Sends what there is, as far as the socket takes it at once. The stream is polled again when the task of the
    /// context is woken, when the client has sent something, and when a ping is due. Ready when the stream can no
    /// longer wait in a loop; then it is not polled again.
    fn poll(&mut self, context: &mut Context<'_>, has_received: bool) -> Poll<Leave>;

    /// When a ping is due. It changes to later times only.
    fn ping_at(&self) -> Instant;

    /// Goes on outside of the loop.
    fn leave(self: Box<Self>, why: Leave);
}

/// Why a stream can no longer wait in a loop.
#[derive(Debug)]
pub(crate) enum Leave {
    /// This is to be sent, and not by a loop.
    Step(Step),
    /// The socket has not taken these bytes, the last of what was sent.
    Unsent(Bytes),
    /// The client has sent these bytes, or none because it has ended its half of the connection.
    Received(Bytes),
    /// It reads the database. A loop would let others wait while it sends what it has read.
    Reads,
    /// The connection has failed, or the loop cannot watch it.
    Failed(io::Error),
}

/// What has become of a stream that went on outside of its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It waits for something to send.
    Waits,
    Ended,
}

/// The loops of a server.
#[derive(Debug)]
pub(crate) struct EventLoops {
    loops: Box<[Arc<Mailbox>]>,
    next: AtomicUsize,
}

/// The tasks of the loops. They end when this is dropped, and the streams with them.
#[derive(Debug)]
pub(crate) struct LoopTasks {
    /// Nothing if they were cut off.
    _tasks: Vec<AbortOnDropHandle<Option<()>>>,
}

impl EventLoops {
    /// Starts a loop for each thread of the runtime, which ends when `cutting_off` is cancelled. All streams are polled
    /// when `farewell` changes.
    ///
    /// # Errors
    ///
    /// The operating system has no file descriptor for another poller.
    pub(crate) fn start(
        farewell: &watch::Receiver<()>,
        cutting_off: &CancellationToken,
    ) -> io::Result<(Self, LoopTasks)> {
        let count = Handle::current().metrics().num_workers();
        let mut loops = Vec::with_capacity(count);
        let mut tasks = Vec::with_capacity(count);
        for _ in 0..count {
            let mailbox = Arc::<Mailbox>::default();
            let run = EventLoop::new(Arc::clone(&mailbox))?.run(farewell.clone());
            let run = run.with_cancellation_token_owned(cutting_off.clone());
            // It gives up its turn by itself. With the budget of a task, streams beyond it would be polled in vain.
            let task = tokio::spawn(coop::unconstrained(run));
            tasks.push(AbortOnDropHandle::new(task));
            loops.push(mailbox);
        }
        let loops = Self {
            loops: loops.into(),
            next: AtomicUsize::new(0),
        };
        Ok((loops, LoopTasks { _tasks: tasks }))
    }

    /// Lets a stream wait in one of the loops. It ends if they have ended.
    pub(crate) fn enter(&self, stream: Box<dyn Waiting>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.loops.len();
        self.loops[next].enter(stream);
    }
}

/// What the others want of a loop.
#[derive(Default)]
struct Mailbox(Mutex<Mail>);

#[derive(Default)]
struct Mail {
    entering: Vec<Box<dyn Waiting>>,
    /// The places of streams that were woken.
    woken: Vec<usize>,
    reader: Option<Waker>,
    is_closed: bool,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Mailbox {
    fn enter(&self, stream: Box<dyn Waiting>) {
        let mut mail = self.mail();
        if mail.is_closed {
            drop(mail);
            return drop(stream);
        }
        mail.entering.push(stream);
        wake(mail);
    }

    fn wake(&self, place: usize) {
        let mut mail = self.mail();
        mail.woken.push(place);
        wake(mail);
    }

    /// Ready when there is something, which then replaces what the vectors hold.
    fn poll_take(
        &self,
        context: &mut Context<'_>,
        entering: &mut Vec<Box<dyn Waiting>>,
        woken: &mut Vec<usize>,
    ) -> Poll<()> {
        let mut mail = self.mail();
        if mail.entering.is_empty() && mail.woken.is_empty() {
            mail.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut mail.entering, entering);
        std::mem::swap(&mut mail.woken, woken);
        Poll::Ready(())
    }

    fn close(&self) {
        let mut mail = self.mail();
        mail.is_closed = true;
        let entering = std::mem::take(&mut mail.entering);
        drop(mail);
        drop(entering);
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the loop, if it waits for mail, outside of the lock.
fn wake(mut mail: MutexGuard<'_, Mail>) {
    let reader = mail.reader.take();
    drop(mail);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Wakes a stream.
struct PlaceWaker {
    mailbox: Arc<Mailbox>,
    place: usize,
    is_woken: AtomicBool,
}

impl ArcWake for PlaceWaker {
    fn wake_by_ref(waker: &Arc<Self>) {
        if !waker.is_woken.swap(true, Ordering::AcqRel) {
            waker.mailbox.wake(waker.place);
        }
    }
}

struct EventLoop {
    mailbox: Arc<Mailbox>,
    poller: AsyncFd<mio::Poll>,
    streams: Streams,
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

impl EventLoop {
    fn new(mailbox: Arc<Mailbox>) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, for types that do not own what they name; this one does"
        )]
        let poller = AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?;
        Ok(Self {
            mailbox,
            poller,
            streams: Streams::default(),
        })
    }

    async fn run(mut self, mut farewell: watch::Receiver<()>) {
        loop {
            let serve = self.serve_all(&mut farewell);
            panics::attempt("a task that serves streams", serve).await;
        }
    }

    /// Never returns.
    async fn serve_all(&mut self, farewell: &mut watch::Receiver<()>) {
        let (mut entering, mut woken) = (Vec::new(), Vec::new());
        let mut events = Events::with_capacity(MAX_EVENTS);
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut turn = Turn::default();
        // Of these nothing is known if it panicked.
        let mut places = self.streams.all();
        loop {
            for place in places.drain(..) {
                self.serve(place, false);
                self.streams.schedule(place);
                turn.pause().await;
            }
            let next_ping = self.streams.next_ping();
            if let Some(next) = next_ping
                && next != timer.deadline()
            {
                timer.as_mut().reset(next);
            }
            let mailbox = &self.mailbox;
            let mail = poll_fn(|context| mailbox.poll_take(context, &mut entering, &mut woken));
            tokio::select! {
                () = mail => {}
                ready = self.poller.readable_mut() => {
                    let sockets = ready.and_then(|mut ready| {
                        ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO))?;
                        // With fewer, there are no others.
                        if events.iter().count() < MAX_EVENTS {
                            ready.clear_ready();
                        }
                        Ok(())
                    });
                    if let Err(error) = sockets && error.kind() != ErrorKind::Interrupted {
                        panics::catch(
                            || tracing::error!(%error, "cannot ask which clients have closed their streams, trying again"),
                        );
                        sleep(RETRY_DELAY).await;
                    }
                }
                () = timer.as_mut(), if next_ping.is_some() => places = self.streams.due(Instant::now()),
                Ok(()) = farewell.changed() => places = self.streams.all(),
            }
            for stream in entering.drain(..) {
                // A stream that panics ends alone, here as below.
                if let Some(Some(place)) = panics::catch(|| self.enter(stream)) {
                    self.serve(place, false);
                }
                turn.pause().await;
            }
            for place in woken.drain(..) {
                self.serve(place, false);
                turn.pause().await;
            }
            for Token(place) in events.iter().map(Event::token) {
                self.serve(place, true);
                turn.pause().await;
            }
            events.clear();
        }
    }

    /// Takes in a stream. Returns its place.
    fn enter(&mut self, stream: Box<dyn Waiting>) -> Option<usize> {
        let place = self.streams.next_place();
        let socket = stream.socket().as_raw_fd();
        let registry = self.poller.get_ref().registry();
        // Each arrival is reported once, and also what came before.
        let watched = registry.register(&mut SourceFd(&socket), Token(place), Interest::READABLE);
        if let Err(error) = watched {
            tracing::warn!(%error, "a stream ended because its connection could not be watched");
            stream.leave(Leave::Failed(error));
            return None;
        }
        let waker = Arc::new(PlaceWaker {
            mailbox: Arc::clone(&self.mailbox),
            place,
            is_woken: AtomicBool::new(false),
        });
        self.streams.insert(Entry { stream, waker });
        Some(place)
    }

    /// Lets the stream at a place send what it has, if there is one. A stream that panics ends alone, as a task would.
    fn serve(&mut self, place: usize, has_received: bool) {
        if panics::catch(|| self.try_serve(place, has_received)).is_none() {
            panics::catch(|| tracing::error!("a stream was closed because it panicked"));
            // If it was still there, its socket is closed, and so no longer watched.
            panics::catch(|| drop(self.streams.entries.try_remove(place)));
        }
    }

    fn try_serve(&mut self, place: usize, has_received: bool) {
        let Some(Entry { stream, waker }) = self.streams.entries.get_mut(place) else {
            return;
        };
        // What wakes it from now on, this poll may not see.
        waker.is_woken.swap(false, Ordering::AcqRel);
        let waker = waker_ref(waker);
        let mut context = Context::from_waker(&waker);
        let Poll::Ready(why) = stream.poll(&mut context, has_received) else {
            return;
        };
        let socket = stream.socket().as_raw_fd();
        let registry = self.poller.get_ref().registry();
        let ended = registry.deregister(&mut SourceFd(&socket));
        let Entry { stream, .. } = self.streams.entries.remove(place);
        match ended {
            Ok(()) => stream.leave(why),
            Err(error) => stream.leave(Leave::Failed(error)),
        }
    }
}

/// How many streams have been served in a row.
#[derive(Default)]
struct Turn(usize);

impl Turn {
    /// Lets other tasks have their turn now and then.
    async fn pause(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(TURN) {
            yield_now().await;
        }
    }
}

/// The streams of a loop, each in its place, and when they must be polled.
#[derive(Default)]
struct Streams {
    entries: Slab<Entry>,
    /// When places must be looked at: at the ping of the stream, or before it.
    pings: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The time of each place that counts. There may be later ones of it, which do not.
    scheduled: Vec<Option<Instant>>,
}

struct Entry {
    stream: Box<dyn Waiting>,
    waker: Arc<PlaceWaker>,
}

impl Streams {
    /// The place of the next stream.
    fn next_place(&self) -> usize {
        self.entries.vacant_key()
    }

    fn insert(&mut self, entry: Entry) {
        let place = self.entries.insert(entry);
        if self.scheduled.len() == place {
            self.scheduled.push(None);
        }
        self.schedule(place);
    }

    /// Notes when the stream at a place must be polled, if there is one, unless the place is looked at before.
    fn schedule(&mut self, place: usize) {
        let Some(entry) = self.entries.get(place) else {
            return;
        };
        let (at, scheduled) = (entry.stream.ping_at(), &mut self.scheduled[place]);
        if scheduled.is_none_or(|before| at < before) {
            *scheduled = Some(at);
            self.pings.push(Reverse((at, place)));
        }
    }

    /// The first time at which a place may have to be polled.
    fn next_ping(&self) -> Option<Instant> {
        self.pings.peek().map(|Reverse((at, _))| *at)
    }

    /// The places whose time has come. Each must be scheduled again.
    fn due(&mut self, now: Instant) -> Vec<usize> {
        let mut due = Vec::new();
        while let Some(Reverse((at, place))) = self.pings.peek().copied()
            && at <= now
        {
            self.pings.pop();
            if self.scheduled[place] == Some(at) {
                self.scheduled[place] = None;
                due.push(place);
            }
        }
        due
    }

    fn all(&self) -> Vec<usize> {
        self.entries.iter().map(|(place, _)| place).collect()
    }
}
