//! Scripts that a server keeps.

use tidings_redis::{Config, Error, Scripts, Server, hash_tag};
use tidings_test_support::RedisServer;

tidings_redis::scripts! {
    /// What the tests run.
    enum Counter in "tests/it/lua" {
        Count = "": "count",
    }
}

#[tokio::test]
async fn a_script_that_the_server_has_forgotten_is_loaded_again_and_run_once() {
    let server = RedisServer::start().await.unwrap();
    let root = hash_tag("counter").unwrap();
    let at = Server::new(Config::new(&server.url()).unwrap());
    let scripts = Scripts::<Counter>::load(at, root).await.unwrap();
    assert_eq!(scripts.key("count"), "{counter}:count");
    let mut call = scripts.call(Counter::Count);
    call.arg(2);
    assert_eq!(scripts.run::<u64>(Counter::Count, &call).await.unwrap(), 2);
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(scripts.run::<u64>(Counter::Count, &call).await.unwrap(), 4);
    let list = scripts.run::<(String, String)>(Counter::Count, &call).await;
    let list = list.unwrap_err();
    assert!(matches!(list, Error::Unexpected(_)), "{list:?}");
}
