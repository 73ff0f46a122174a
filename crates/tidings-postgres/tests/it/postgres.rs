mod connection;
mod listening;
mod migration;
mod support;
