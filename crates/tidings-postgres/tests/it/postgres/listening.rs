use std::sync::Mutex;

use tidings_postgres::Error;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_test_support::{Proxy, soon};

use super::support::{database, execute, url};

#[tokio::test]
async fn what_is_notified_arrives_in_order_even_while_a_statement_runs() {
    let database = database(&url());
    let mut listening = database.config().listen().await.unwrap();
    let channel = format!("test_order_{}", std::process::id());
    let arrived = Mutex::new(Vec::new());
    let keep = |payload: &str| arrived.lock().unwrap().push(payload.to_owned());
    let listen = format!("LISTEN {channel}");
    let unexpected = async |_| panic!("nothing was notified yet");
    listening.run(&listen, unexpected).await.unwrap();

    let notify = |payload| format!("NOTIFY {channel}, '{payload}'");
    execute(&database, notify("one")).await;
    execute(&database, notify("two")).await;
    let pinged = listening.run("", async |it| keep(it.payload()));
    soon("a reply", pinged).await.unwrap();
    execute(&database, notify("three")).await;
    while arrived.lock().unwrap().len() < 3 {
        let notification = soon("a notification", listening.next()).await.unwrap();
        keep(notification.payload());
    }
    assert_eq!(arrived.into_inner().unwrap(), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_refused_statement_leaves_the_connection_and_a_break_ends_it() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let mut listening = database(proxy.url()).config().listen().await.unwrap();
    let refused = listening.run("LISTN x", async |_| ()).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::SYNTAX_ERROR));
    listening.run("LISTEN x", async |_| ()).await.unwrap();
    proxy.block();
    let ended = soon("the end", listening.next()).await.unwrap_err();
    assert!(matches!(ended, Error::NoReply(_)), "{ended:?}");
    let ended = soon("the end", listening.run("", async |_| ())).await;
    assert!(matches!(ended, Err(Error::NoReply(_))), "{ended:?}");
}

#[tokio::test]
async fn listening_has_a_url_of_its_own() {
    let [statements, direct] = [url(), url()].map(|url| async move { Proxy::start(&url).await });
    let (statements, direct) = (statements.await.unwrap(), direct.await.unwrap());
    let config = tidings_postgres::Config::new(statements.url()).unwrap();
    let config = config.with_listen_url(direct.url()).unwrap();
    let _listening = config.listen().await.unwrap();
    assert_eq!((statements.accepted(), direct.accepted()), (0, 1));
    let _client = config.connect().await.unwrap();
    assert_eq!((statements.accepted(), direct.accepted()), (1, 1));
}
