//! Links that are slow, and links that are dead.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::server::{Play, Server, answer};
use super::{BODY, PROOFS, content, large, soon, target};
use crate::cos::{Client, Options, StorageFailure, Traffic};

#[tokio::test]
async fn a_slow_reader_gets_it_all_however_long_it_takes() {
    let Play::Send(then) = answer("200 OK", PROOFS, "") else { unreachable!() };
    let (step, pause) = (128 * 1024, Duration::from_millis(40));
    let server = Server::always(Play::ReadSlowly { step, pause, then }).await;
    // What the kernels hold at the end is read in about a second.
    let limit = Duration::from_secs(3);
    let client = Client::new(Options { progress_timeout: limit, ..server.options() }).unwrap();
    let (body, began) = (large(16), Instant::now());
    soon(client.put_part(&target(), "U1", 1, content(&body))).await.unwrap();
    assert!(began.elapsed() > limit, "it was not slow: {:?}", began.elapsed());
    assert!(server.seen()[0].body == body);
}

#[tokio::test]
async fn a_request_that_stands_still_is_given_up() {
    let limit = Duration::from_millis(500);
    let server = Server::always(Play::Silence).await;
    let client =
        Client::new(Options { progress_timeout: limit, complete_timeout: limit, ..server.options() })
            .unwrap();
    for body in [BODY.to_vec(), large(16)] {
        let error = soon(client.put_part(&target(), "U1", 1, content(&body))).await.unwrap_err();
        assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Unanswered, "stalled"), "{error}");
        assert!(error.may_have_acted && error.try_other_host, "{error}");
    }
    let error = soon(client.complete(&target(), "U1", [(1, "aa")])).await.unwrap_err();
    assert_eq!(error.code, "stalled", "{error}");
    // An answer that stops in the middle.
    let first = b"HTTP/1.1 200 OK\r\nx-cos-request-id: R1\r\nContent-Length: 100\r\n\r\n<In".to_vec();
    let server = Server::always(Play::Early(first)).await;
    let client = Client::new(Options { progress_timeout: limit, ..server.options() }).unwrap();
    let error = soon(client.initiate(&target())).await.unwrap_err();
    assert_eq!((error.failure, error.code.as_str()), (StorageFailure::Unanswered, "stalled"), "{error}");
}

#[tokio::test]
async fn what_is_sent_keeps_to_its_pace_and_waiting_for_it_is_no_standstill() {
    let server = Server::always(answer("200 OK", PROOFS, "")).await;
    // A piece has 16 KiB: the first of the four leaves at once, and each of the others half a second later.
    let traffic = Arc::new(Traffic::limited(NonZeroU64::new(32 * 1024).unwrap()));
    let progress_timeout = Duration::from_millis(400);
    let options = Options { traffic: Arc::clone(&traffic), progress_timeout, ..server.options() };
    let client = Client::new(options).unwrap();
    let (body, target, began) = (vec![7; 32 * 1024], target(), Instant::now());
    let put = |number| client.put_part(&target, "U1", number, content(&body));
    let (one, two) = soon(async { tokio::join!(put(1), put(2)) }).await;
    one.unwrap();
    two.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert_eq!(traffic.sent(), 64 * 1024);
    assert!(server.seen().iter().all(|seen| seen.body == body));
}
