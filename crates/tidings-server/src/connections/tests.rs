use std::time::Duration;

use reqwest::Client;
use serde_json::json;
use tidings_test_support::{Panics, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::app::SharedApp;
use crate::{Config, Server};

const PAGE: &str = "/v1/users/anna/notifications?limit=1000";

/// The route that writes its response in parts.
const UNVERSIONED: &str = "/notifications/anna";

/// Responses that are larger together than what the operating system buffers.
const RESPONSES: usize = 4;

fn config(folder: &tempfile::TempDir, flags: &[&str]) -> Config {
    let database = folder.path().join("tidings.db");
    let database = format!("--database=sqlite:{}", database.display());
    let open = ["--dev", "--listen=127.0.0.1:0", &database];
    Config::from_flags([&open, flags].concat()).unwrap()
}

/// A server with large responses for anna, and its folder.
async fn start() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, &[]).with_read_period(Duration::from_secs(2));
    let server = Server::start(config).await.unwrap();
    let client = Client::builder().tls_certs_only([]).build().unwrap();
    let body = json!({ "user_id": "anna", "payload": { "message": "x".repeat(1_000_000) } });
    for _ in 0..4 {
        let post = client.post(format!("http://{}/v1/notifications", server.address()));
        let response = post.json(&body).send().await.unwrap();
        assert_eq!(response.status(), 201);
    }
    (server, folder)
}

/// Asks for a response several times at once, the last time to be followed by the end of the connection.
async fn ask(mut stream: TcpStream, path: &str) -> TcpStream {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
    let more = format!("{head}\r\n").repeat(RESPONSES - 1);
    let all = format!("{more}{head}Connection: close\r\n\r\n");
    stream.write_all(all.as_bytes()).await.unwrap();
    stream
}

/// Waits until the server has no connection, while the client reads a little.
async fn until_closed(app: &SharedApp, stream: &mut TcpStream) {
    soon("the end of the connection", async {
        while !app.tasks.is_empty() {
            let _ended = stream.read(&mut [0; 64]).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn read_all(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    // A connection that is cut off may be reset.
    let _end = soon("all responses", stream.read_to_end(&mut all)).await;
    all.len()
}

#[tokio::test]
async fn regression_a_client_that_reads_a_response_too_slowly_is_cut_off() {
    let (server, _folder) = start().await;
    let (app, address) = (server.app(), server.address());
    for path in [PAGE, UNVERSIONED] {
        let steady = TcpStream::connect(address).await.unwrap();
        let whole = read_all(&mut ask(steady, path).await).await;
        assert!(whole > RESPONSES * 4_000_000, "{path}: {whole}");

        let socket = TcpSocket::new_v4().unwrap();
        // Little room for what is not read.
        socket.set_recv_buffer_size(4096).unwrap();
        let slow = socket.connect(address).await.unwrap();
        let mut slow = ask(slow, path).await;
        slow.read_u8().await.unwrap();
        until_closed(&app, &mut slow).await;
        let rest = read_all(&mut slow).await;
        assert!(rest < whole - 4_000_000, "{path}: {rest} of {whole}");
    }
}

/// The first line of the response to a request, empty if the connection ends without one.
async fn live(stream: &mut TcpStream) -> String {
    let request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _sent = stream.write_all(request).await;
    let mut line = Vec::new();
    while let Ok(byte) = soon("a response", stream.read_u8()).await
        && byte != b'\r'
    {
        line.push(byte);
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn regression_a_recorder_and_a_tracing_layer_that_panic_do_not_end_the_accepting() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, &["--max-address-connections=1"]);
    let server = Server::start(config).await.unwrap();
    let (recorder, layer) = (Panics::at("tidings_server"), Panics::at("tidings_server"));
    let _recording = metrics::set_default_local_recorder(&recorder);
    let _tracing = tidings_test_support::set_default(layer.clone());

    let connect = async || TcpStream::connect(server.address()).await.unwrap();
    let mut first = connect().await;
    assert_eq!(live(&mut first).await, "HTTP/1.1 200 OK");
    let mut second = connect().await;
    let mut third = connect().await;
    assert_eq!(live(&mut third).await, "");
    let refused = "HTTP/1.1 429 Too Many Requests";
    assert_eq!(live(&mut second).await, refused);
    assert!(recorder.count() > 0);
    assert_eq!(layer.count(), 1, "one line for the address");
    drop((first, second));
    soon("room for the address", async {
        while live(&mut connect().await).await != "HTTP/1.1 200 OK" {}
    })
    .await;
}
