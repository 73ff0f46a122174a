use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};

use tidings_test_support::Panics;
use tokio::sync::mpsc;

use super::*;

/// What happens to a stream.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Polled { has_received: bool },
    Left,
    Dropped,
}

/// What a stream does when it is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Waits,
    /// It always has more to send.
    WakesItself,
    Leaves,
    Panics,
    /// Before it has entered.
    PanicsAtOnce,
}

struct Stream {
    name: &'static str,
    socket: TcpStream,
    does: Does,
    ping_at: Instant,
    wakers: mpsc::UnboundedSender<Waker>,
    seen: mpsc::UnboundedSender<(&'static str, Seen)>,
}

impl Waiting for Stream {
    fn socket(&self) -> &TcpStream {
        assert_ne!(self.does, Does::PanicsAtOnce, "on purpose");
        &self.socket
    }

    fn poll(&mut self, context: &mut Context<'_>, has_received: bool) -> Poll<Leave> {
        self.tell(Seen::Polled { has_received });
        if self.does != Does::WakesItself {
            let _unread = self.wakers.send(context.waker().clone());
        }
        if self.ping_at <= Instant::now() {
            self.ping_at = far();
        }
        match self.does {
            Does::Waits => Poll::Pending,
            Does::WakesItself => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Does::Leaves => Poll::Ready(Leave::Received(Bytes::new())),
            Does::Panics | Does::PanicsAtOnce => panic!("on purpose"),
        }
    }

    fn ping_at(&self) -> Instant {
        self.ping_at
    }

    fn leave(self: Box<Self>, _why: Leave) {
        self.tell(Seen::Left);
    }
}

impl Stream {
    fn tell(&self, seen: Seen) {
        let _unread = self.seen.send((self.name, seen));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.tell(Seen::Dropped);
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    (server, client)
}

struct Started {
    event_loops: EventLoops,
    tasks: LoopTasks,
    farewell: watch::Sender<()>,
    cutting_off: CancellationToken,
    to_wakers: mpsc::UnboundedSender<Waker>,
    wakers: mpsc::UnboundedReceiver<Waker>,
    to_seen: mpsc::UnboundedSender<(&'static str, Seen)>,
    seen: mpsc::UnboundedReceiver<(&'static str, Seen)>,
}

impl Started {
    fn start() -> Self {
        let (farewell, cutting_off) = (watch::Sender::new(()), CancellationToken::new());
        let (event_loops, tasks) = EventLoops::start(&farewell.subscribe(), &cutting_off).unwrap();
        let ((to_wakers, wakers), (to_seen, seen)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        Self {
            event_loops,
            tasks,
            farewell,
            cutting_off,
            to_wakers,
            wakers,
            to_seen,
            seen,
        }
    }

    /// Lets a stream wait. Returns the client's end of its connection.
    fn enter(&self, name: &'static str, does: Does, ping_at: Instant) -> TcpStream {
        let (socket, client) = connection();
        self.event_loops.enter(Box::new(Stream {
            name,
            socket,
            does,
            ping_at,
            wakers: self.to_wakers.clone(),
            seen: self.to_seen.clone(),
        }));
        client
    }

    async fn next(&mut self) -> (&'static str, Seen) {
        let next = tokio::time::timeout(Duration::from_secs(30), self.seen.recv());
        next.await.expect("something should have happened").unwrap()
    }

    async fn expect(&mut self, expected: &[(&'static str, Seen)]) {
        for expected in expected {
            assert_eq!(self.next().await, *expected);
        }
    }
}

const POLLED: Seen = Seen::Polled {
    has_received: false,
};

const RECEIVED: Seen = Seen::Polled { has_received: true };

#[tokio::test]
async fn a_stream_is_polled_when_it_enters_is_woken_receives_or_has_to_ping() {
    let mut loops = Started::start();
    let soon = Instant::now() + Duration::from_millis(20);
    let mut client = loops.enter("anna", Does::Waits, soon);
    loops.expect(&[("anna", POLLED)]).await;
    assert_eq!(loops.next().await, ("anna", POLLED));
    assert!(soon <= Instant::now(), "the second time is for the ping");
    loops.wakers.recv().await.unwrap().wake();
    loops.expect(&[("anna", POLLED)]).await;
    client.write_all(b"x").unwrap();
    loops.expect(&[("anna", RECEIVED)]).await;
    loops.farewell.send_replace(());
    loops.expect(&[("anna", POLLED)]).await;
    drop(client);
    loops.expect(&[("anna", RECEIVED)]).await;
}

#[tokio::test]
async fn what_came_before_a_stream_entered_is_reported() {
    let mut loops = Started::start();
    drop(loops.enter("anna", Does::Waits, far()));
    loops.expect(&[("anna", POLLED), ("anna", RECEIVED)]).await;
}

#[tokio::test]
async fn a_stream_that_always_has_more_to_send_does_not_keep_others_from_it() {
    let mut loops = Started::start();
    let _busy = loops.enter("busy", Does::WakesItself, far());
    let _anna = loops.enter("anna", Does::Waits, far());
    while loops.next().await.0 == "busy" {}
    loops.wakers.recv().await.unwrap().wake();
    while loops.next().await.0 == "busy" {}
    let soon = Instant::now() + Duration::from_millis(20);
    let _ben = loops.enter("ben", Does::Waits, soon);
    while loops.next().await.0 == "busy" {}
    while loops.next().await.0 == "busy" {}
}

#[tokio::test]
async fn a_stream_that_leaves_or_panics_is_not_polled_again_and_its_place_is_free() {
    let mut loops = Started::start();
    let mut clients = Vec::new();
    for does in [Does::Leaves, Does::Panics] {
        clients.push(loops.enter("first", does, far()));
        loops.expect(&[("first", POLLED)]).await;
        if does == Does::Leaves {
            loops.expect(&[("first", Seen::Left)]).await;
        }
        loops.expect(&[("first", Seen::Dropped)]).await;
        let its_waker = loops.wakers.recv().await.unwrap();
        clients.push(loops.enter("second", Does::Leaves, far()));
        loops
            .expect(&[
                ("second", POLLED),
                ("second", Seen::Left),
                ("second", Seen::Dropped),
            ])
            .await;
        let _waker = loops.wakers.recv().await.unwrap();
        clients.push(loops.enter("third", Does::Waits, far()));
        loops.expect(&[("third", POLLED)]).await;
        // The place is that of another stream now, which is polled once too often.
        its_waker.wake();
        loops.expect(&[("third", POLLED)]).await;
        while loops.wakers.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn regression_a_stream_and_a_tracing_layer_that_panic_do_not_end_the_loop() {
    let layer = Panics::at("tidings_server");
    let _tracing = tidings_test_support::set_default(layer.clone());
    let mut loops = Started::start();
    let _first = loops.enter("first", Does::Waits, far());
    loops.expect(&[("first", POLLED)]).await;
    let _panics = loops.enter("panics", Does::Panics, far());
    loops
        .expect(&[("panics", POLLED), ("panics", Seen::Dropped)])
        .await;
    let _at_once = loops.enter("at once", Does::PanicsAtOnce, far());
    loops.expect(&[("at once", Seen::Dropped)]).await;
    assert_eq!(layer.count(), 1, "one of the two was in the loop");
    let _last = loops.enter("last", Does::Waits, far());
    loops.expect(&[("last", POLLED)]).await;
    loops.wakers.recv().await.unwrap().wake();
    loops.expect(&[("first", POLLED)]).await;
}

#[tokio::test]
async fn streams_end_with_the_loops_and_when_they_are_cut_off() {
    let mut loops = Started::start();
    let _client = loops.enter("anna", Does::Waits, far());
    loops.expect(&[("anna", POLLED)]).await;
    loops.cutting_off.cancel();
    loops.expect(&[("anna", Seen::Dropped)]).await;
    let _late = loops.enter("late", Does::Waits, far());
    loops.expect(&[("late", Seen::Dropped)]).await;

    let mut loops = Started::start();
    let _client = loops.enter("anna", Does::Waits, far());
    loops.expect(&[("anna", POLLED)]).await;
    drop(loops.tasks);
    let dropped = tokio::time::timeout(Duration::from_secs(30), loops.seen.recv()).await;
    assert_eq!(dropped.unwrap().unwrap(), ("anna", Seen::Dropped));
}

#[test]
fn a_stream_is_looked_at_when_it_has_to_ping_whoever_had_its_place_before() {
    let mut streams = Streams::default();
    let (seen, _unread) = mpsc::unbounded_channel();
    let (wakers, _unread) = mpsc::unbounded_channel();
    let mailbox = Arc::<Mailbox>::default();
    let started = Instant::now();
    let at = |seconds| started + Duration::from_secs(seconds);
    let put = |streams: &mut Streams, seconds| {
        let (socket, _client) = connection();
        let place = streams.next_place();
        let stream = Box::new(Stream {
            name: "anna",
            socket,
            does: Does::Waits,
            ping_at: at(seconds),
            wakers: wakers.clone(),
            seen: seen.clone(),
        });
        let waker = Arc::new(PlaceWaker {
            mailbox: Arc::clone(&mailbox),
            place,
            is_woken: AtomicBool::new(false),
        });
        streams.insert(Entry { stream, waker });
        place
    };
    // Streams that come and go in the same place do not add up.
    for seconds in 10..100 {
        let place = put(&mut streams, seconds);
        streams.entries.remove(place);
    }
    assert_eq!(streams.pings.len(), 1);
    let place = put(&mut streams, 100);
    assert!(streams.due(at(9)).is_empty());
    // That of the first one is too early for the last.
    assert_eq!(streams.due(at(10)), [place]);
    streams.schedule(place);
    assert_eq!(streams.next_ping(), Some(at(100)));
    // One whose ping is due before that of its predecessor is looked at in time, and only once.
    streams.entries.remove(place);
    assert_eq!(put(&mut streams, 50), place);
    assert_eq!(streams.due(at(50)), [place]);
    streams.entries.remove(place);
    assert!(streams.due(at(100)).is_empty());
    assert_eq!(streams.next_ping(), None);
}
