//! `GET /v1/whoami`: who calls, and what they may do.

use axum::{Extension, Json};

use crate::access::Caller;
use crate::wire::whoami::WhoAmI;

pub(super) async fn show(Extension(caller): Extension<Caller>) -> Json<WhoAmI> {
    Json(WhoAmI::from(&caller))
}
