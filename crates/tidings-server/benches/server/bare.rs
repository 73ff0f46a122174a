//! The least that accepts events and shows them: no checks, SQLite alone, and one write to the screen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::raw::Logs;
use crate::server::read_message;

/// The screens of users.
type Screens = Arc<Mutex<HashMap<String, TcpStream>>>;

/// An event whose user is named, and who waits for its commit.
type Waiting = (String, oneshot::Sender<()>);

/// Starts it with as many threads as the server has, and returns its address. It ends with the process.
pub(crate) async fn start() -> String {
    let (bound, address) = oneshot::channel();
    let (events, waiting) = mpsc::channel();
    std::thread::spawn(move || commit_what_waits(&waiting));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let screens = Screens::default();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, Arc::clone(&screens), events.clone()));
            }
        });
    });
    address.await.unwrap().to_string()
}

/// Shares a commit among the events that wait.
fn commit_what_waits(events: &mpsc::Receiver<Waiting>) {
    let mut logs = Logs::new();
    while let Ok(first) = events.recv() {
        let (users, replies): (Vec<_>, Vec<_>) =
            [first].into_iter().chain(events.try_iter()).unzip();
        logs.append(&users);
        for reply in replies {
            reply.send(()).unwrap();
        }
    }
}

/// Serves a poster, or keeps a screen.
async fn serve(mut socket: TcpStream, screens: Screens, events: mpsc::Sender<Waiting>) {
    socket.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(request) = read_message(&mut socket, &mut buffer).await {
        let request = String::from_utf8(request).unwrap();
        if let Some(screen) = between(&request, "GET /v1/users/", "/events ") {
            let head = b"HTTP/1.1 200 OK\r\n\r\n: caught_up\n\n";
            socket.write_all(head).await.unwrap();
            lock(&screens).insert(screen.to_owned(), socket);
            return;
        }
        let user = between(&request, r#""user_id":""#, r#"""#)
            .unwrap()
            .to_owned();
        let (_, payload) = request.split_once(r#""payload":"#).unwrap();
        // As long as the event of a stream; the payload ends with the bracket that ends the request.
        let id = "bd8b91d7b315b052-1";
        let event = format!(
            r#"{{"id":"{id}","user_id":"{user}","type":"notification","timestamp":"2026-11-27T07:49:49.270557Z","read_at":null,"archived_at":null,"key":null,"payload":{payload}"#
        );
        let (reply, committed) = oneshot::channel();
        events.send((user.clone(), reply)).unwrap();
        committed.await.unwrap();
        let frame = format!("id: {id}\ndata: {event}\n\n");
        // A screen that reads has room for it.
        let written = lock(&screens)[&user].try_write(frame.as_bytes());
        assert_eq!(written.unwrap(), frame.len());
        let reply = format!(
            "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{event}",
            event.len()
        );
        socket.write_all(reply.as_bytes()).await.unwrap();
    }
}

fn lock(screens: &Screens) -> std::sync::MutexGuard<'_, HashMap<String, TcpStream>> {
    screens.lock().unwrap_or_else(PoisonError::into_inner)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}
