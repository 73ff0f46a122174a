//! Starting the binary, and talking to it as an ordinary client does.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
pub(crate) use tidings_test_support::{PATIENCE, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A client for one test. It has no certificates, because to load the platform's takes longer than
/// most of the tests.
pub(crate) fn http() -> Client {
    Client::builder()
        .tls_backend_rustls()
        .tls_certs_only([])
        .build()
        .unwrap()
}

/// A folder with a database, on which servers are started one after another, or a database on
/// PostgreSQL, on which several run at the same time.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    arguments: Vec<String>,
    /// Not the file.
    server: Option<String>,
    /// Removed with the home, unless it is elsewhere.
    _folder: Option<TempDir>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// A home whose servers get these arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            path: folder.path().to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            server: None,
            _folder: Some(folder),
        }
    }

    /// A home in a folder that exists.
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            path: folder.to_owned(),
            arguments: Vec::new(),
            server: None,
            _folder: None,
        }
    }

    /// A home whose servers share the database of this URL, and get these arguments.
    pub(crate) fn on(url: &str, arguments: &[&str]) -> Self {
        Self {
            server: Some(url.to_owned()),
            ..Self::with(arguments)
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path().join("tidings.db")
    }

    /// The command that starts a server here, on a free port.
    pub(crate) fn command(&self) -> Command {
        self.command_at("127.0.0.1:0")
    }

    /// The command that starts a server here, on this address.
    pub(crate) fn command_at(&self, address: &str) -> Command {
        let mut command = binary();
        let file = || format!("sqlite:{}", self.database().display());
        command
            .arg("serve")
            .args(["--listen", address, "--dev", "--database"])
            .arg(self.server.clone().unwrap_or_else(file))
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) async fn start(&self) -> Server {
        Server::of(self.command()).await
    }
}

/// The binary, without settings of the surroundings.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command.kill_on_drop(true);
    command
}

/// Runs a command against a server; gives whether it succeeded, and what it said on standard output and error.
pub(crate) async fn run(server: &Server, arguments: &[&str]) -> (bool, String, String) {
    said_by(binary().args(arguments).args(["--url", &server.url])).await
}

/// Runs a command; gives whether it succeeded, and what it said on standard output and error.
pub(crate) async fn said_by(command: &mut Command) -> (bool, String, String) {
    let output = soon("the command", command.output()).await.unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A running server process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) url: String,
    pub(crate) first_lines: Vec<String>,
    /// Kept open: a server whose output is not read must not notice it by a broken pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub(crate) async fn of(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut first_lines = Vec::new();
        for _ in 0..3 {
            let line = soon("the server's start", stdout.next_line())
                .await
                .unwrap();
            let Some(line) = line else {
                let mut complaint = String::new();
                let mut stderr = process.stderr.take().unwrap();
                stderr.read_to_string(&mut complaint).await.unwrap();
                panic!("the server did not start: {complaint}");
            };
            first_lines.push(line);
        }
        let url = first_lines[0]
            .split([' ', ','])
            .find(|word| word.starts_with("http://"))
            .unwrap()
            .to_owned();
        Self {
            process,
            url,
            first_lines,
            _stdout: stdout,
        }
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Sends the process a signal.
    pub(crate) async fn signal(&self, signal: &str) {
        assert!(signal_process(signal, self.process_id()).await);
    }

    /// The memory of the process, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let id = self.process.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kibibytes.parse::<usize>().unwrap() * 1024
    }

    /// Whether the process waits for something: no thread of it runs, or is ready to.
    pub(crate) fn is_asleep(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process_id())).unwrap();
        // A thread may end meanwhile.
        let states = tasks.filter_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // The name of the thread is in parentheses, and its state is the next field.
            stat.rsplit_once(") ")?.1.chars().next()
        });
        states.into_iter().all(|state| state == 'S')
    }

    /// Ends the process as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Asks the process to stop, and gives its exit status and what it said on standard error.
    pub(crate) async fn stop(self, signal: &str) -> (std::process::ExitStatus, String) {
        self.signal(signal).await;
        self.ended().await
    }

    /// Stops a server whose standard error is not a pipe of the test.
    pub(crate) async fn stop_unread(mut self, signal: &str) -> std::process::ExitStatus {
        self.signal(signal).await;
        soon("the end of the server", self.process.wait())
            .await
            .unwrap()
    }

    /// Stops a server that runs under another process, which ends with it.
    pub(crate) async fn stop_traced(self, signal: &str) -> (std::process::ExitStatus, String) {
        self.signal_traced(signal).await;
        self.ended().await
    }

    /// Sends a signal to a server that runs under another process.
    async fn signal_traced(&self, signal: &str) {
        let id = self.process.id().unwrap();
        let children = format!("/proc/{id}/task/{id}/children");
        let child = std::fs::read_to_string(children).unwrap();
        assert!(signal_process(signal, child.trim().parse().unwrap()).await);
    }

    /// Asks a server that runs under another process to stop, and gives its last line on standard error,
    /// which begins with "stopped". The end of the process is not waited for.
    pub(crate) async fn farewell_traced(mut self, signal: &str) -> String {
        self.signal_traced(signal).await;
        let mut lines = BufReader::new(self.process.stderr.take().unwrap()).lines();
        loop {
            let line = soon("the end of the server", lines.next_line()).await;
            match line.unwrap() {
                Some(line) if line.starts_with("stopped") => return line,
                Some(_) => {}
                None => panic!("the server ended without a word"),
            }
        }
    }

    /// The exit status of a process that was asked to stop, and what it said on standard error.
    pub(crate) async fn ended(mut self) -> (std::process::ExitStatus, String) {
        let mut stderr = self.process.stderr.take().unwrap();
        let mut text = String::new();
        soon("the end of the server", stderr.read_to_string(&mut text))
            .await
            .unwrap();
        (self.process.wait().await.unwrap(), text)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        http().post(self.at(path)).json(body).send().await.unwrap()
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Value {
        let response = http().patch(self.at(path)).json(body).send();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = http().get(self.at(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn ready(&self) -> Response {
        http().get(self.at("/health/ready")).send().await.unwrap()
    }

    /// Waits until `/health/ready` replies with this status: its last reply is repeated for a second.
    pub(crate) async fn until_ready_is(&self, status: u16) -> Response {
        soon("another readiness", async {
            loop {
                let ready = self.ready().await;
                if ready.status() == status {
                    return ready;
                }
            }
        })
        .await
    }

    /// Posts a notification that must be accepted.
    pub(crate) async fn notify(&self, user: &str, payload: Value) -> Value {
        let body = json!({ "user_id": user, "type": "test", "payload": payload });
        let response = self.post("/v1/notifications", &body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }

    /// Posts this many notifications with payloads of a number and so many bytes, in few requests.
    pub(crate) async fn notify_many(&self, user: &str, count: usize, bytes: usize) {
        let padding = "x".repeat(bytes);
        let numbers: Vec<_> = (0..count).collect();
        for numbers in numbers.chunks((900_000 / bytes).max(1)) {
            let notification = |n| json!({ "user_id": user, "payload": [n, padding] });
            let notifications: Vec<_> = numbers.iter().map(notification).collect();
            let body = json!({ "notifications": notifications });
            let response = self.post("/v1/notifications/batch", &body).await;
            assert_eq!(response.status(), StatusCode::CREATED);
        }
    }

    /// Opens a user's event stream; `query` starts with `?` or is empty.
    pub(crate) async fn events(&self, user: &str, query: &str) -> Events {
        self.events_after(user, query, None).await
    }

    pub(crate) async fn events_after(
        &self,
        user: &str,
        query: &str,
        last_event_id: Option<&str>,
    ) -> Events {
        let url = self.at(&format!("/v1/users/{user}/events{query}"));
        Events::open(&url, last_event_id).await.unwrap()
    }
}

/// Sends a process a signal; returns whether there is such a process.
pub(crate) async fn signal_process(signal: &str, process: u32) -> bool {
    let kill = Command::new("kill")
        .args([signal, &process.to_string()])
        .stderr(Stdio::null())
        .status();
    kill.await.unwrap().success()
}

/// One frame of an event stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let mut frame = Self::default();
        let mut data = Vec::new();
        for line in text.lines() {
            match line
                .split_once(": ")
                .unwrap_or((line.trim_end_matches(':'), ""))
            {
                ("event", name) => name.clone_into(&mut frame.name),
                ("id", id) => frame.id = Some(id.to_owned()),
                ("retry", wait) => frame.retry = Some(wait.parse().unwrap()),
                ("data", line) => data.push(line),
                ("", _comment) => {}
                other => panic!("an unknown line: {other:?}"),
            }
        }
        frame.data = data.join("\n");
        frame
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// An open event stream.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response,
    text: String,
    whole: VecDeque<Frame>,
}

impl Events {
    /// Opens the stream of this URL.
    pub(crate) async fn open(
        url: &str,
        last_event_id: Option<&str>,
    ) -> Result<Self, reqwest::Error> {
        let mut request = http().get(url);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        Ok(Self::of(request.send().await?.error_for_status()?))
    }

    /// The stream that a response has.
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
            whole: VecDeque::new(),
        }
    }

    /// The next frame with an event in it; `None` when the stream has ended.
    pub(crate) async fn try_next(&mut self) -> Result<Option<Frame>, reqwest::Error> {
        loop {
            if let Some(frame) = self.whole.pop_front() {
                if !frame.data.is_empty() {
                    return Ok(Some(frame));
                }
                continue;
            }
            let Some(chunk) = self.response.chunk().await? else {
                return Ok(None);
            };
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                self.whole.push_back(Frame::parse(frame));
                let rest = rest.to_owned();
                self.text = rest;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Frame {
        soon("the next frame", self.try_next())
            .await
            .unwrap()
            .expect("the stream ended")
    }

    /// Reads up to and including the control frame of this name; gives the notifications before it.
    pub(crate) async fn until(&mut self, name: &str) -> (Vec<Value>, Frame) {
        let mut notifications = Vec::new();
        loop {
            let frame = self.next().await;
            if frame.name == name {
                return (notifications, frame);
            }
            if frame.name.is_empty() {
                assert_eq!(frame.json()["id"].as_str(), frame.id.as_deref());
                notifications.push(frame.json());
            }
        }
    }
}

/// The payloads of notifications.
pub(crate) fn payloads(notifications: &[Value]) -> Vec<Value> {
    notifications
        .iter()
        .map(|notification| notification["payload"].clone())
        .collect()
}

/// A file that a process waits for when it opens it.
#[derive(Debug)]
pub(crate) struct HeldFile {
    said: Lines<BufReader<ChildStdout>>,
    /// Lets go when it ends.
    _holder: Child,
}

/// The kernel asks the holder to let go, and takes the file away from it after 45 seconds.
const HOLD: &str = "
import fcntl, signal, sys
signal.signal(signal.SIGIO, lambda *_: print('asked for', flush=True))
file = open(sys.argv[1], 'r+')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
while True:
    signal.pause()
";

impl HeldFile {
    /// Less than the kernel waits.
    pub(crate) const TIME: Duration = Duration::from_secs(35);

    pub(crate) async fn new(path: &Path) -> Self {
        let mut holder = Command::new("python3");
        holder.args(["-c", HOLD]).arg(path);
        let mut holder = holder
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(holder.stdout.take().unwrap()).lines();
        let mut held = Self {
            said,
            _holder: holder,
        };
        held.until_it_says("held").await;
        held
    }

    /// Waits until another process waits for the file.
    pub(crate) async fn is_asked_for(&mut self) {
        self.until_it_says("asked for").await;
    }

    async fn until_it_says(&mut self, text: &str) {
        let line = soon(text, self.said.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(text));
    }
}
