//! `cargo run -p tidings-test-support --example hostile_receiver -- 127.0.0.1:8099`
//!
//! Serves every behaviour of the catalogue by path, for any sender to be pointed at. Further ports
//! fail at TLS, or before it. Without an address it takes a free port of 127.0.0.1.

#![allow(clippy::print_stdout, reason = "an example that talks to a person")]

use std::net::{Ipv4Addr, SocketAddr};

use tidings_test_support::{Receiver, Script, Tls, Unreachable, catalogue};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = match std::env::args().nth(1) {
        Some(text) => text
            .parse()
            .map_err(|_| format!("expected an address such as 127.0.0.1:8099, got {text:?}"))?,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let plain = Receiver::builder(announced())
        .with_address(address)
        .start()
        .await?;
    println!("{}\n\n{}", plain.url(""), catalogue::list());

    // Each has a certificate authority of its own; the first's is printed, to try a good one.
    let mut with_tls = Vec::new();
    for (tls, does) in [
        (Tls::Valid, "a certificate in order, of the authority below"),
        (Tls::Expired, "a certificate that has expired"),
        (
            Tls::UnknownAuthority,
            "a certificate of an unknown authority",
        ),
        (Tls::WrongName, "a certificate for another name"),
        (Tls::Stalled, "a handshake that never goes on"),
    ] {
        let receiver = Receiver::builder(announced())
            .with_address(SocketAddr::new(address.ip(), 0))
            .with_tls(tls)
            .start()
            .await?;
        println!("{:<34} {does}", receiver.url("/ok"));
        with_tls.push(receiver);
    }
    println!("{:<34} plain text on a TLS port", plain.https_url("/ok"));
    let refusing = Unreachable::refusing()?;
    println!("{:<34} connections refused", refusing.url("/"));
    let silent = Unreachable::silent().await?;
    println!("{:<34} connections never made", silent.url("/"));
    if let Some(authority) = with_tls.first().and_then(Receiver::authority) {
        println!("\n{}", authority.pem());
    }

    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// The catalogue, with a line for each request.
fn announced() -> Script {
    let script = catalogue::script();
    Script::by(move |head| {
        println!("{} {}", head.method, head.target);
        script.decide(head)
    })
}
