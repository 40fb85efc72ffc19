//! HTTP/2, which is what the real peers speak: one connection carries everything, so what happens to it happens to all requests
//! that are under way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use h2::Reason;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Sandbox, WorldHandle};

use crate::binary::{Place, account_emails, people_emails, sandbox};
use crate::front::{Authority, Front, Mode};
use crate::network::below;

/// A server that speaks nothing but HTTP/2, and a place whose connector goes there.
async fn behind(sandbox: &Sandbox, mode: Mode) -> (Front, Place) {
    let authority = Authority::new();
    let acceptor = authority.acceptor_speaking("127.0.0.1", 2100, &["h2"]);
    let front = Front::tls(mode, acceptor).await;
    let network = "[network]\nca_file = \"ca.pem\"\nconnect_timeout = \"2s\"\ntimeout = \"4s\"\n";
    let url = format!("https://{}", front.address);
    let place = Place::with(network, &[below(&url, sandbox)]);
    place.write("ca.pem", &authority.pem());
    (front, place)
}

async fn through(sandbox: &Sandbox) -> (Front, Place) {
    behind(sandbox, Mode::Through(sandbox.addr())).await
}

fn assert_everybody_has_one_account(world: &WorldHandle) {
    assert_eq!(account_emails(world), people_emails(world));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_http2_takes_a_connection_for_each_peer() {
    let sandbox = sandbox(40).await;
    let (front, place) = through(&sandbox).await;
    place.run(&["sync"]).await.exits(0);
    assert_everybody_has_one_account(&sandbox.world());
    assert!(front.connections() <= 3, "{} connections", front.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_the_connection_broke_is_looked_for_and_made_once() {
    let sandbox = sandbox(40).await;
    let world = sandbox.world();
    world.behave(|behaviour| behaviour.accept_duplicates = true);
    let (front, place) = through(&sandbox).await;
    // Eight creates are under way: they take effect, and their answers are lost with the connection.
    let slow = Fault::Delay(std::time::Duration::from_millis(300));
    world.fault(FaultRule::always(Endpoint::AccountCreate, slow));
    let command = place.command(&["sync"]);
    let (ran, ()) = tokio::join!(crate::binary::finish(command), async {
        world.seen(Endpoint::AccountCreate, 12).await;
        front.cut();
        world.clear_faults();
    });
    ran.exits(0);
    assert_everybody_has_one_account(&world);
    assert_eq!(world.count(Endpoint::AccountCreate), 40, "none was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fell_silent_is_given_up_for_a_new_one() {
    let sandbox = sandbox(40).await;
    let world = sandbox.world();
    let (front, place) = through(&sandbox).await;
    let command = place.command(&["sync"]);
    let (ran, ()) = tokio::join!(crate::binary::finish(command), async {
        world.seen(Endpoint::AccountCreate, 12).await;
        front.silence();
    });
    ran.exits(0).tells(&["the connection fell silent and was given up"]);
    assert_everybody_has_one_account(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_resets_a_stream_or_sends_us_away_is_asked_again() {
    let sandbox = sandbox(3).await;
    let answers = [
        Mode::Reset(Reason::REFUSED_STREAM),
        Mode::Reset(Reason::INTERNAL_ERROR),
        Mode::GoAway(Reason::ENHANCE_YOUR_CALM),
        Mode::GoAway(Reason::NO_ERROR),
    ];
    for answer in answers {
        let (front, place) = behind(&sandbox, answer).await;
        let daemon = place.daemon().await;
        let status = daemon.state("main", "retrying").await;
        let reason = status["reason"].as_str().unwrap();
        println!("{reason}");
        assert!(
            reason.starts_with("Torq: get a token: the connection broke"),
            "{reason}"
        );
        front.set(Mode::Through(sandbox.addr()));
        front.cut();
        daemon.state("main", "connected").await;
        daemon.stop().await;
    }
}
