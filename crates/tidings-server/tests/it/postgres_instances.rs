//! Several instances over one PostgreSQL database behave as one.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_test_support::{PostgresServer, RedisServer, Schema};

use crate::support::{Home, Server, http, payloads, soon};
use crate::webhooks::Webhooks;

/// A database, and instances that share it.
struct Cluster {
    servers: Vec<Server>,
    home: Home,
    /// Dropped last.
    schema: Schema,
    redis: Option<RedisServer>,
}

impl Cluster {
    async fn start(instances: usize, arguments: &[&str]) -> Self {
        Self::beside(None, instances, arguments).await
    }

    async fn with_redis(instances: usize, arguments: &[&str]) -> Self {
        let redis = RedisServer::start().await.unwrap();
        Self::beside(Some(redis), instances, arguments).await
    }

    async fn beside(redis: Option<RedisServer>, instances: usize, arguments: &[&str]) -> Self {
        let schema = Schema::create().await;
        let url = redis.as_ref().map(RedisServer::url);
        let flag = url.map(|url| format!("--redis={url}"));
        let arguments: Vec<&str> = arguments.iter().copied().chain(flag.as_deref()).collect();
        let home = Home::on(&schema.url(), &arguments);
        // Together, so that they meet at the migrations.
        let servers = (0..instances).map(|_| home.start());
        Self {
            servers: futures_util::future::join_all(servers).await,
            home,
            schema,
            redis,
        }
    }
}

#[tokio::test]
async fn a_notification_reaches_the_screens_of_every_instance_once_and_in_order() {
    reaches_the_screens_of_every_instance(&Cluster::start(3, &[]).await).await;
}

#[tokio::test]
async fn a_notification_reaches_the_screens_of_every_instance_by_way_of_redis() {
    let cluster = Cluster::with_redis(3, &[]).await;
    reaches_the_screens_of_every_instance(&cluster).await;
    let stats = cluster.redis.as_ref().unwrap();
    let commands = stats.command(&["INFO", "commandstats"]).unwrap();
    assert!(commands.contains("cmdstat_publish"), "{commands}");
}

async fn reaches_the_screens_of_every_instance(cluster: &Cluster) {
    let mut screens = Vec::new();
    for server in &cluster.servers {
        let mut events = server.events("anna", "").await;
        events.until("tidings.caught_up").await;
        screens.push(events);
    }
    for n in 0..60 {
        cluster.servers[n % 3].notify("anna", json!(n)).await;
    }
    let expected: Vec<Value> = (0..60).map(|n| json!(n)).collect();
    for mut screen in screens {
        let mut seen = Vec::new();
        while seen.len() < 60 {
            let frame = screen.next().await;
            if frame.name.is_empty() {
                seen.push(frame.json());
            }
        }
        assert_eq!(payloads(&seen), expected);
    }
}

#[tokio::test]
async fn an_idempotency_key_is_one_on_every_instance() {
    let cluster = Cluster::start(3, &[]).await;
    let client = http();
    let post = |n: usize| {
        client
            .post(cluster.servers[n % 3].at("/v1/notifications"))
            .header("Idempotency-Key", "one")
            .json(&json!({ "user_id": "anna", "payload": "once" }))
            .send()
    };
    let mut ids = Vec::new();
    for response in futures_util::future::join_all((0..12).map(post)).await {
        let response = response.unwrap();
        assert_eq!(response.status(), 201);
        let body: Value = response.json().await.unwrap();
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let list = cluster.servers[2].get("/v1/users/anna/notifications").await;
    assert_eq!(list["unread"], 1);
}

#[tokio::test]
async fn what_is_read_on_one_instance_is_read_on_the_others_and_their_screens_know() {
    let cluster = Cluster::start(2, &[]).await;
    let [first, second] = &cluster.servers[..] else {
        panic!("two instances")
    };
    let notification = first.notify("anna", json!(1)).await;
    let mut screen = second.events("anna", "").await;
    screen.until("tidings.caught_up").await;
    let id = notification["id"].as_str().unwrap();
    let path = format!("/v1/users/anna/notifications/{id}/read");
    assert_eq!(first.post(&path, &Value::Null).await.status(), 200);
    let (_, changed) = screen.until("tidings.changed").await;
    assert_eq!(changed.json()["unread"], 0);
    let count = second
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 0);
}

#[tokio::test]
async fn presence_counts_the_streams_of_all_instances_and_forgets_those_of_one_that_was_killed() {
    presence_is_one(Cluster::start(2, &["--lease", "1s"]).await).await;
}

#[tokio::test]
async fn presence_on_redis_is_that_of_all_instances_and_is_written_again_after_a_flush() {
    let cluster = Cluster::with_redis(2, &["--lease", "1s"]).await;
    let stream = cluster.servers[0].events("bob", "").await;
    let is_online = async || {
        let presence = cluster.servers[1].get("/v1/users/bob/presence").await;
        presence["online"] == true
    };
    soon("bob to be online", async { while !is_online().await {} }).await;
    let redis = cluster.redis.as_ref().unwrap();
    redis.command(&["FLUSHALL"]).unwrap();
    soon("bob to be online again", async {
        while !is_online().await {}
    })
    .await;
    drop(stream);
    presence_is_one(cluster).await;
}

async fn presence_is_one(mut cluster: Cluster) {
    let second = cluster.servers.pop().unwrap();
    let first = &cluster.servers[0];
    let online = async |expected: bool| loop {
        let presence = first.get("/v1/users/anna/presence").await;
        if presence["online"] == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let stream = second.events("anna", "").await;
    soon("anna to be online", online(true)).await;
    second.kill().await;
    drop(stream);
    soon("anna to be offline", online(false)).await;
}

#[tokio::test]
async fn an_endpoint_gets_the_events_of_a_user_in_order_whichever_instance_accepts_them() {
    const EVENTS: usize = 300;
    let cluster = Cluster::start(3, &[]).await;
    let mut receiver = Webhooks::start().await;
    let endpoint = json!({ "url": receiver.url() });
    let created = cluster.servers[0].post("/v1/users/anna/endpoints", &endpoint);
    assert_eq!(created.await.status(), 201);
    for n in 0..EVENTS {
        cluster.servers[n % 3].notify("anna", json!(n)).await;
    }
    let mut order = Vec::new();
    for _ in 0..EVENTS {
        let webhook = soon("a webhook", receiver.next()).await;
        order.push(webhook.json()["data"].as_u64().unwrap());
    }
    let displacement = order
        .iter()
        .zip(0_u64..)
        .map(|(n, place)| n.abs_diff(place))
        .sum::<u64>();
    let mut all = order.clone();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), EVENTS, "each event is sent once");
    // An endpoint has several requests at a time, which may pass each other.
    assert!(displacement < 10 * EVENTS as u64, "{order:?}");
}

/// No test lives to see the end of such a lease: the lane is handed over.
#[tokio::test]
async fn the_webhooks_of_an_instance_that_stops_are_handed_over() {
    webhooks_go_on("5m", async |server| {
        let (status, log) = server.stop("-TERM").await;
        assert!(status.success(), "{log}");
    })
    .await;
}

#[tokio::test]
async fn the_webhooks_of_an_instance_that_is_killed_go_on_after_its_lease() {
    webhooks_go_on("2s", Server::kill).await;
}

async fn webhooks_go_on(lease: &str, end: impl AsyncFn(Server)) {
    let mut cluster = Cluster::start(2, &["--lease", lease]).await;
    let mut receiver = Webhooks::start().await;
    let endpoint = json!({ "url": receiver.url() });
    let created = cluster.servers[0].post("/v1/endpoints", &endpoint);
    assert_eq!(created.await.status(), 201);
    for round in 0..4 {
        cluster.servers[0].notify("anna", json!(round)).await;
        // One of a round before can come again, if the instance was killed before it noted the outcome.
        while soon("a webhook", receiver.next()).await.json()["data"] != round {}
        // One of the two has the lane; from the second round on it is this one, which is older.
        end(cluster.servers.remove(0)).await;
        cluster.servers.push(cluster.home.start().await);
    }
}

#[tokio::test]
async fn an_instance_starts_without_redis_and_uses_it_once_it_is_there() {
    let (schema, mut redis) = (Schema::create().await, RedisServer::start().await.unwrap());
    let beside = format!("--redis={}", redis.url());
    redis.stop().unwrap();
    let home = Home::on(&schema.url(), &[&beside, "--lease=2s"]);
    let server = home.start().await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    server.notify("anna", json!(1)).await;
    let event = soon("the event", events.next()).await;
    assert_eq!(event.json()["payload"], 1);
    redis.start_again().await.unwrap();
    let online = async {
        let path = server.at("/v1/users/anna/presence");
        while http().get(&path).send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while server.get("/v1/users/anna/presence").await["online"] != true {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("anna to be online", online).await;
    let (status, log) = server.stop("-TERM").await;
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("starting without Redis").count(), 1, "{log}");
    // One from each part that uses Redis, and two about the stop.
    assert!(log.lines().count() <= 6, "{log}");
}

#[tokio::test]
async fn presence_is_refused_by_name_while_redis_is_away_and_nothing_else_is() {
    let mut cluster = Cluster::with_redis(1, &[]).await;
    let server = cluster.servers.pop().unwrap();
    cluster.redis.as_mut().unwrap().stop().unwrap();
    let presence = http().get(server.at("/v1/users/anna/presence")).send();
    let presence = presence.await.unwrap();
    assert_eq!(presence.status(), 503);
    let body: Value = presence.json().await.unwrap();
    assert_eq!(body["error"]["code"], "presence_unavailable");
    server.notify("anna", json!(1)).await;
    server.get("/health/ready").await;
    let (_, log) = server.stop("-TERM").await;
    assert!(!log.contains("the database"), "{log}");
}

#[tokio::test]
async fn regression_a_log_that_an_application_holds_delays_its_own_user_alone() {
    let cluster = Cluster::start(1, &[]).await;
    let server = &cluster.servers[0];
    let config = tidings_postgres::Config::new(&cluster.schema.url()).unwrap();
    let application = config.connect().await.unwrap();
    let hold = "BEGIN; SELECT tidings_notify('anna', 'test', '1')";
    application.batch_execute(hold).await.unwrap();
    let body = json!({ "user_id": "anna", "payload": 1 });
    let mut rounds = 0;
    let annas = async {
        loop {
            let refused = (0..20).map(|_| server.post("/v1/notifications", &body));
            futures_util::future::join_all(refused).await;
            rounds += 1;
        }
    };
    let others = async {
        for n in 0..100 {
            server.notify("bob", json!(n)).await;
        }
    };
    tokio::select! {
        biased;
        () = others => {}
        () = annas => {}
    }
    // Behind anna's requests, each of the others would take as long as a round of them.
    assert!(rounds < 20, "{rounds} rounds of refusals");
    let response = server.post("/v1/notifications", &body).await;
    assert_eq!(response.status(), 503);
    let refusal: Value = response.json().await.unwrap();
    assert_eq!(refusal["error"]["code"], "locked");
    application.batch_execute("ROLLBACK").await.unwrap();
    server.notify("anna", json!(1)).await;
}

#[tokio::test]
async fn the_statement_of_the_handbook_stores_a_notification() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scaling.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, statement) = page.split_once("```sql\n").unwrap();
    let (statement, _) = statement.split_once("```").unwrap();
    let cluster = Cluster::start(1, &[]).await;
    let config = tidings_postgres::Config::new(&cluster.schema.url()).unwrap();
    let application = config.connect().await.unwrap();
    application.batch_execute(statement).await.unwrap();
    let inbox = cluster.servers[0].get("/v1/users/anna/notifications").await;
    let stored = &inbox["data"][0];
    assert_eq!(stored["type"], "order.paid");
    assert_eq!(stored["payload"], json!({ "order": 17 }));
}

#[tokio::test]
async fn a_change_of_an_inbox_whose_log_is_held_is_refused_as_locked_and_is_no_outage() {
    let mut cluster = Cluster::start(1, &[]).await;
    let server = cluster.servers.pop().unwrap();
    server.notify("anna", json!(1)).await;
    let config = tidings_postgres::Config::new(&cluster.schema.url()).unwrap();
    let application = config.connect().await.unwrap();
    let hold = "BEGIN; SELECT tidings_notify('anna', 'test', '1')";
    application.batch_execute(hold).await.unwrap();
    let read_all = async || {
        let path = "/v1/users/anna/notifications/read-all";
        server.post(path, &json!({})).await
    };
    let response = read_all().await;
    assert_eq!(response.status(), 503);
    let refusal: Value = response.json().await.unwrap();
    assert_eq!(refusal["error"]["code"], "locked");
    application.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(read_all().await.status(), 200);
    let (_, log) = server.stop("-TERM").await;
    assert!(!log.contains("the database"), "{log}");
}

/// Each commit waits for a standby that is far away, and holds its logs meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_logs_that_every_instance_writes_all_the_time_are_never_refused() {
    const POSTERS: usize = 45;
    const EACH: usize = 8;
    let database = PostgresServer::start().unwrap();
    let _standby = database.start_standby(Duration::from_millis(150)).unwrap();
    let home = Home::on(&database.url(), &[]);
    let servers = futures_util::future::join_all((0..3).map(|_| home.start())).await;
    for setting in [
        "synchronous_commit = remote_apply",
        "synchronous_standby_names = '*'",
    ] {
        let set = format!("ALTER SYSTEM SET {setting}");
        database.execute(&set).unwrap();
    }
    database.execute("SELECT pg_reload_conf()").unwrap();
    let posting = (0..POSTERS).map(|poster| {
        let server = &servers[poster % servers.len()];
        async move {
            for n in 0..EACH {
                let users: Vec<_> = (n..n + 3).map(|n| format!("user-{}", n % 4)).collect();
                let body = json!({ "user_ids": users, "payload": poster });
                let response = server.post("/v1/notifications", &body).await;
                let status = response.status();
                assert_eq!(status, 201, "{}", response.text().await.unwrap());
            }
        }
    });
    futures_util::future::join_all(posting).await;
    for n in 0..4 {
        let path = format!("/v1/users/user-{n}/notifications/unread-count");
        assert_eq!(
            servers[0].get(&path).await["unread"],
            POSTERS * EACH * 3 / 4
        );
    }
}

/// Another session than the one that has prepared it does not know a statement's name, and a pooler changes sessions.
#[tokio::test]
async fn regression_no_statement_of_a_server_is_prepared_under_a_name() {
    let database = PostgresServer::start().unwrap();
    let log_all = "ALTER SYSTEM SET log_statement = 'all'";
    database.execute(log_all).unwrap();
    database.execute("SELECT pg_reload_conf()").unwrap();
    let server = Home::on(&database.url(), &[]).start().await;
    let mut receiver = Webhooks::start().await;
    let endpoint = json!({ "url": receiver.url() });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    server.notify("anna", json!(1)).await;
    soon("a webhook", receiver.next()).await;
    assert_eq!(
        server.get("/v1/users/anna/notifications").await["unread"],
        1
    );
    server.stop("-TERM").await;
    let log = std::fs::read_to_string(database.folder().join("log")).unwrap();
    let executed = log.lines().filter_map(|line| line.split_once("execute "));
    let executed: Vec<_> = executed.map(|(_, statement)| statement).collect();
    assert!(executed.len() > 10, "{log}");
    for statement in executed {
        assert!(statement.starts_with("<unnamed>"), "{statement}");
    }
}
