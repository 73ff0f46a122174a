use super::*;

pub(in crate::hostile) fn sender() -> Sender {
    builder().connect_timeout(PATIENT).build().unwrap()
}

/// One attempt that has all the time in the world.
pub(in crate::hostile) async fn attempt(url: &str) -> Attempt {
    attempt_by(&sender(), Endpoint::builder(url).timeout(PATIENT)).await
}

/// One attempt with a short deadline.
pub(in crate::hostile) async fn hasty_attempt(url: &str) -> Attempt {
    attempt_by(&sender(), Endpoint::builder(url).timeout(SHORT)).await
}
