//! A name means one thing in every layer, and what is mistyped is refused by what is wrong.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::errors;
use crate::support::{Home, Server, binary, http, run};

/// Posts what must be refused; returns the status, and the field with what is wrong with it.
async fn refusal(server: &Server, path: &str, body: &Value) -> (u16, String) {
    let (status, error) = errors::refusal(server, Method::POST, path, &body.to_string()).await;
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (status, format!("{}: {}", text("field"), text("message")))
}

#[tokio::test]
async fn a_user_who_would_look_like_another_or_get_lost_in_a_path_is_refused_everywhere() {
    let home = Home::new();
    let server = home.start().await;
    for (user, encoded) in [
        (".", "%2e"),
        ("..", "%2E%2E"),
        (" anna", "%20anna"),
        ("anna ", "anna%20"),
        ("an\u{202e}na", "an%E2%80%AEna"),
    ] {
        for (path, body) in [
            (
                "/v1/notifications",
                json!({ "user_id": user, "payload": 1 }),
            ),
            (
                "/v1/notifications",
                json!({ "user_ids": ["ben", user], "payload": 1 }),
            ),
            (
                "/notifications",
                json!({ "user_id": user, "message": "hi" }),
            ),
        ] {
            let (status, message) = refusal(&server, path, &body).await;
            assert_eq!(status, 400, "{user:?} {path}");
            assert!(message.starts_with("user_id"), "{message}");
        }
        // A client that sends the path as it is written: others lose the dots.
        for path in ["notifications", "endpoints", "events"] {
            let head = format!("GET /v1/users/{encoded}/{path} HTTP/1.1\r\n");
            let response = crate::raw::ask(&server, &head).await;
            assert!(
                response.starts_with("HTTP/1.1 400"),
                "{user:?} {path}: {response}"
            );
        }
        for command in [
            ["inbox", user].as_slice(),
            &["tail", user],
            &["send", user, "hi"],
        ] {
            let output = binary().args(command).args(["--url", &server.url]).output();
            let output = output.await.unwrap();
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{command:?}");
            assert!(complaint.contains("USER"), "{command:?}: {complaint}");
        }
    }
    // A URL would lose them in the place of an id, too.
    for id in [".", ".."] {
        for command in [
            ["inbox", "anna", "--read", id].as_slice(),
            &["key", "revoke", id],
        ] {
            let (ok, _, complaint) = run(&server, command).await;
            assert!(!ok, "{command:?}");
            assert!(
                complaint.contains("other than `.` and `..`"),
                "{command:?}: {complaint}"
            );
        }
    }
    // Everything else is opaque, and compared byte by byte.
    for user in [
        "Anna",
        "anna",
        "\u{e9}",
        "e\u{301}",
        "a/b?c#d",
        "...",
        "日本 🙂",
    ] {
        server.notify(user, json!(user)).await;
        let mut url = reqwest::Url::parse(&server.at("/v1/users")).unwrap();
        url.path_segments_mut()
            .unwrap()
            .extend([user, "notifications"]);
        let page: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{user}");
        assert_eq!(page["data"][0]["payload"], user);
    }
}

#[tokio::test]
async fn a_mistyped_url_is_refused_by_what_is_wrong_and_any_other_shown_as_it_is_called() {
    let home = Home::new();
    let server = home.start().await;
    let long = format!("http://{}.example/", "a".repeat(64));
    for (url, reason) in [
        (" http://127.0.0.1/a", "no spaces"),
        ("http://127.0.0.1/a\nb", "no spaces"),
        ("http:\\\\127.0.0.1\\x", "no backslashes"),
        ("http:127.0.0.1/x", "absolute"),
        ("http:///127.0.0.1/x", "a host after"),
        ("http://", "a host after"),
        ("http://?x", "a host after"),
        ("//127.0.0.1/x", "absolute"),
        ("ftp://127.0.0.1/", "absolute"),
        ("http://anna:secret@127.0.0.1/", "no user name"),
        ("http://127.0.0.1/#part", "no fragment"),
        ("http://127.0.0.1:0/", "a port"),
        ("http://127.0.0.1:99999/", "a port"),
        ("http://[::1/", "a valid IP address"),
        ("http://256.0.0.1/", "a valid IP address"),
        ("http://a%2fb/", "a valid host name"),
        ("http://a..b/", "labels"),
        (&long, "labels"),
    ] {
        let (status, message) = refusal(&server, "/v1/endpoints", &json!({ "url": url })).await;
        assert_eq!(status, 400, "{url}");
        assert!(
            message.starts_with("url: ") && message.contains(reason),
            "{url}: {message}"
        );
        assert!(!message.contains("secret"), "{message}");
    }
    for (url, called) in [
        ("HTTP://0x7f.1:9000/", "http://127.0.0.1:9000/"),
        ("http://127.0.0.1/a/../b", "http://127.0.0.1/b"),
        ("http://127.0.0.1/%2e%2e/x", "http://127.0.0.1/x"),
        ("http://127.0.0.1:80", "http://127.0.0.1/"),
        ("http://%6cocalhost./?x", "http://localhost./?x"),
        (
            "http://h\u{e9}.example/\u{e9}",
            "http://xn--h-bga.example/%C3%A9",
        ),
    ] {
        let response = server.post("/v1/endpoints", &json!({ "url": url })).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{url}");
        let endpoint: Value = response.json().await.unwrap();
        assert_eq!(endpoint["url"], called, "{url}");
    }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn a_mistyped_secret_is_refused_by_what_is_wrong_and_never_repeated() {
    let home = Home::new();
    let server = home.start().await;
    for (secret, reason) in [
        (format!("v1,{SECRET}"), "without `v1,`"),
        (format!(" {SECRET}"), "no spaces"),
        (format!("{SECRET}\n"), "no spaces"),
        (format!("\"{SECRET}\""), "quotation marks"),
        (
            SECRET.replace("MfKQ9r8G", "MfKQ9r8_"),
            "instead of `-` and `_`",
        ),
        ("whsk_abc".to_owned(), "another prefix"),
        ("whsec_abcd".to_owned(), "24 to 64 bytes"),
    ] {
        let body = json!({ "url": "http://127.0.0.1:9/", "secret": secret });
        let (status, message) = refusal(&server, "/v1/endpoints", &body).await;
        assert_eq!(status, 400, "{secret}");
        assert!(
            message.starts_with("secret: ") && message.contains(reason),
            "{message}"
        );
        assert!(!message.contains("MfKQ9r8"), "{message}");
    }
}
