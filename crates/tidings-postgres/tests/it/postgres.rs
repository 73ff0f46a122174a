mod connection;
mod connections;
mod given_up;
mod listening;
mod migration;
mod primary;
mod support;
mod tls;
