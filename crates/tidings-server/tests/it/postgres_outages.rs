//! Three instances over one PostgreSQL, whose surroundings break under load.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_test_support::{
    Fault, Outage, PostgresOutage, PostgresServer, Proxy, Receiver, RedisOutage, Reply, Schema,
};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::load::{Load, Tolerance};
use crate::support::{Home, Server, http, soon};

const ARGUMENTS: [&str; 4] = [
    "--webhook-schedule",
    "0s,100ms,100ms,1s,1s,1s,1s,1s,1s,1s",
    "--lease",
    "2s",
];

const REFUSALS: Tolerance = Tolerance {
    refusals: true,
    rewinds: false,
};

/// Most lines of a log that an instance may write for one outage: its loops report one each.
const LINES: usize = 20;

async fn three(home: &Home) -> Vec<Server> {
    let starting = (0..3).map(|_| home.start());
    futures_util::future::join_all(starting).await
}

/// Waits until `/health/ready` of every server replies with this status.
async fn readiness(servers: &[Server], expected: u16) {
    for server in servers {
        server.until_ready_is(expected).await;
    }
}

/// Stops the servers, and checks that they wrote few lines for each of the outages.
async fn stop(servers: Vec<Server>, outages: usize) {
    for server in servers {
        let (status, log) = server.stop("-TERM").await;
        assert!(status.success(), "{log}");
        let lines = log.lines().count();
        assert!(lines <= outages * LINES, "{lines} lines: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_database_is_survived_under_load() {
    let mut outage = PostgresOutage::start().await.unwrap();
    let home = Home::on(outage.url(), &ARGUMENTS);
    let servers = three(&home).await;
    let load = Load::start(&servers, 4000, REFUSALS).await;
    for (n, fault) in Fault::ALL.into_iter().enumerate() {
        load.has_reached(20 * n + 10).await;
        outage.begin(fault).await.unwrap();
        readiness(&servers, 503).await;
        outage.restore().await.unwrap();
        readiness(&servers, 200).await;
    }
    load.finish(&servers[0]).await;
    stop(servers, Fault::ALL.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_redis_goes_unnoticed_under_load() {
    let (schema, mut outage) = (Schema::create().await, RedisOutage::start().await.unwrap());
    let beside = format!("--redis={}", outage.url());
    let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([&*beside]).collect();
    let home = Home::on(&schema.url(), &arguments);
    let servers = three(&home).await;
    let load = Load::start(&servers, 4000, Tolerance::default()).await;
    for (n, fault) in Fault::ALL.into_iter().enumerate() {
        load.has_reached(20 * n + 10).await;
        outage.begin(fault).await.unwrap();
        load.has_reached(20 * n + 20).await;
        readiness(&servers, 200).await;
        outage.restore().await.unwrap();
        outage.server().command(&["FLUSHALL"]).unwrap();
    }
    load.finish(&servers[0]).await;
    stop(servers, Fault::ALL.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_synchronous_standby_loses_nothing_that_was_accepted() {
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    primary
        .execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        .unwrap();
    primary.execute("SELECT pg_reload_conf()").unwrap();
    let way = Proxy::start(&primary.url()).await.unwrap();
    let home = Home::on(way.url(), &ARGUMENTS);
    let servers = three(&home).await;
    let tolerance = Tolerance {
        refusals: true,
        rewinds: true,
    };
    let load = Load::start(&servers, 2000, tolerance).await;
    load.has_reached(40).await;
    primary.crash().unwrap();
    readiness(&servers, 503).await;
    standby.promote().unwrap();
    way.lead_to(&standby.url()).unwrap();
    readiness(&servers, 200).await;
    load.finish(&servers[0]).await;
    stop(servers, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_cut_off_from_the_database_leaves_its_work_to_the_others() {
    let schema = Schema::create().await;
    let database = std::env::var("DATABASE_URL").unwrap();
    let way = Proxy::start(&database).await.unwrap();
    let home = Home::on(&schema.url(), &ARGUMENTS);
    let mut servers = three(&home).await;
    let far = Home::on(&schema.url_at(way.url()), &ARGUMENTS);
    servers.push(far.start().await);
    // Callers who meet it wait for the reply limit.
    let load = Load::start(&servers, 800, REFUSALS).await;
    load.has_reached(20).await;
    way.freeze();
    load.has_reached(40).await;
    way.block();
    readiness(&servers[3..], 503).await;
    readiness(&servers[..3], 200).await;
    load.has_reached(60).await;
    way.restore();
    readiness(&servers, 200).await;
    load.finish(&servers[3]).await;
    stop(servers, 2).await;
}

#[tokio::test]
async fn regression_a_read_without_a_reply_of_the_database_has_stored_nothing() {
    let schema = Schema::create().await;
    let database = std::env::var("DATABASE_URL").unwrap();
    let way = Proxy::start(&database).await.unwrap();
    let server = Home::on(&schema.url_at(way.url()), &[]).start().await;
    let paths = ["/v1/users/anna/notifications", "/v1/endpoints"];
    for path in paths {
        server.get(path).await;
    }
    // A read that finds all connections in use opens another one.
    way.silence();
    let read = async |path| {
        let response = http().get(server.at(path)).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("Retry-After"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "storage_unavailable", "{body}");
    };
    tokio::join!(read(paths[0]), read(paths[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_the_synchronous_standby_lacks_gets_no_2xx() {
    let database = PostgresServer::start().unwrap();
    let server = Home::on(&database.url(), &[]).start().await;
    server.notify("bo", json!(1)).await;
    database.hold_commits().unwrap();
    let notification = json!({ "user_id": "anna", "payload": 1 });
    let endpoint = json!({ "url": "https://example.com/" });
    let nothing = json!({});
    let requests = [
        ("/v1/notifications", &notification),
        ("/v1/endpoints", &endpoint),
        ("/v1/users/bo/notifications/read-all", &nothing),
    ];
    let requests = requests.map(async |(path, body)| {
        let response = server.post(path, body).await;
        assert_eq!(response.status(), 503, "{path}");
        assert!(response.headers().contains_key("Retry-After"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "outcome_unknown", "{path}");
    });
    futures_util::future::join_all(requests).await;
    database.let_commits_go().unwrap();
    server.until_ready_is(200).await;
    server.notify("bo", json!(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_is_found_done_gets_no_2xx_either_while_the_standby_may_lack_it() {
    let database = PostgresServer::start().unwrap();
    let server = Home::on(&database.url(), &[]).start().await;
    let endpoint = json!({ "url": "https://example.com/" });
    let endpoint = server.post("/v1/endpoints", &endpoint).await;
    let endpoint: Value = endpoint.json().await.unwrap();
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let path = server.at(&path);
    let disabled = json!({ "enabled": false });
    let disable = || http().patch(&path).json(&disabled).send();
    let stop_replay = || http().delete(format!("{path}/replay")).send();
    database.hold_commits().unwrap();
    // It is made, and its wait for the standby is given up.
    assert_eq!(disable().await.unwrap().status(), 503);
    let (again, nothing) = tokio::join!(disable(), stop_replay());
    for response in [again, nothing] {
        assert_eq!(response.unwrap().status(), 503);
    }
    database.let_commits_go().unwrap();
    server.until_ready_is(200).await;
    assert_eq!(disable().await.unwrap().status(), 200);
    assert_eq!(stop_replay().await.unwrap().status(), 204);
}

/// A full disk refuses only what needs room.
#[tokio::test]
async fn regression_a_request_that_stores_nothing_does_not_end_an_outage() {
    let database = PostgresServer::start().unwrap();
    let server = Home::on(&database.url(), &["--log", "info"]).start().await;
    server.notify("anna", json!(1)).await;
    database.fill().unwrap();
    let notification = json!({ "user_id": "anna", "payload": 2 });
    for _ in 0..2 {
        let refused = server.post("/v1/notifications", &notification).await;
        assert_eq!(refused.status(), 503);
        // This user has none.
        let nothing = server
            .post("/v1/users/bo/notifications/read-all", &json!({}))
            .await;
        assert_eq!(nothing.status(), 200);
    }
    let (_, log) = server.stop("-TERM").await;
    let lines = |text: &str| log.matches(text).count();
    assert_eq!(lines("the database does not work"), 1, "{log}");
    assert_eq!(lines("the database works again"), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_and_posts_no_webhook_twice() {
    let schema = Schema::create().await;
    let home = Home::on(&schema.url(), &ARGUMENTS);
    let mut servers = three(&home).await;
    let load = Load::start(&servers, 4000, REFUSALS).await;
    for n in 0..6 {
        load.has_reached(15 * n + 10).await;
        let (status, log) = servers.remove(0).stop("-TERM").await;
        assert!(status.success(), "{log}");
        servers.push(home.start().await);
        load.move_to(&servers);
    }
    assert_eq!(load.finish(&servers[0]).await, 0, "repeated webhooks");
    stop(servers, 1).await;
}

#[tokio::test]
async fn regression_a_stop_without_database_and_redis_takes_as_long_as_documented() {
    let page = include_str!("../../../../docs/scaling.md");
    let (_, more) = page.split_once("(30 seconds by default) and ").unwrap();
    let (more, _) = more.split_once(" seconds more").unwrap();
    let documented = Duration::from_secs(more.parse().unwrap());

    let mut database = PostgresOutage::start().await.unwrap();
    let mut redis = RedisOutage::start().await.unwrap();
    let beside = format!("--redis={}", redis.url());
    let arguments = ["--shutdown-timeout", "0s", &*beside];
    let server = Home::on(database.url(), &arguments).start().await;
    // An endpoint that this instance serves, and a stream.
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let endpoint = json!({ "url": receiver.url("/") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    server.notify("anna", json!(1)).await;
    soon("the webhook", receiver.request(1)).await;
    database.freeze().await.unwrap();
    redis.freeze().await.unwrap();
    let mut waiting = crate::raw::connect(&server).await;
    let head = "POST /v1/notifications HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\n";
    let request = format!("{head}{{\"user_id\":\"a\",\"payload\":1}}");
    waiting.write_all(request.as_bytes()).await.unwrap();
    // It is read before a later connection is served.
    let alive = http().get(server.at("/health/live")).send().await;
    assert_eq!(alive.unwrap().status(), 200);

    let began = Instant::now();
    let (status, text) = server.stop("-TERM").await;
    let took = began.elapsed();
    assert!(status.success(), "{text}");
    assert!(text.contains("did not close in time"), "{text}");
    assert!(took <= documented, "{took:?} {text}");
}
