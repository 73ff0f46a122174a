//! Endpoints of the operator: they get the notifications of all users, and so those of a run.

use std::io::Write;

use reqwest::StatusCode;
use serde::Deserialize;
use tidings_webhooks::{EndpointId, EventPattern};

use super::super::CommandError;
use super::super::remote::{Refusal, Remote};
use super::TYPE;

#[derive(Deserialize)]
struct Listed {
    data: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    id: EndpointId,
    url: String,
    enabled: bool,
    event_types: Vec<EventPattern>,
}

impl Endpoint {
    fn is_reached(&self) -> bool {
        let types = &self.event_types;
        self.enabled && (types.is_empty() || types.iter().any(|pattern| pattern.matches(TYPE)))
    }
}

/// Refuses a run that would send webhooks to receivers which are not its own.
pub(super) async fn refuse(remote: &Remote) -> Result<(), CommandError> {
    let address = remote.address(&["v1", "endpoints"])?;
    let endpoints = match remote.get::<Listed>(address).await {
        Ok(listed) => listed.data,
        Err(error) if is_forbidden(&error) => {
            writeln!(
                std::io::stderr(),
                "tidings: the API key may not see whether endpoints of the operator get what this run sends"
            )?;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut reached = endpoints.iter().filter(|endpoint| endpoint.is_reached());
    let Some(Endpoint { id, url, .. }) = reached.next() else {
        return Ok(());
    };
    let others = and_others(reached.count());
    Err(format!(
        "the operator's endpoint {id} ({url}){others} would get every notification of this run, as those of all users; \
         add --to-operator-endpoints if that is right"
    )
    .into())
}

/// The words for so many others.
fn and_others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        others => format!(" and {others} others"),
    }
}

fn is_forbidden(error: &CommandError) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| refusal.status() == StatusCode::FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_other_endpoint_is_singular() {
        assert_eq!(and_others(0), "");
        assert_eq!(and_others(1), " and 1 other");
        assert_eq!(and_others(2), " and 2 others");
    }
}
