//! What nobody means well with: half, slow, huge and odd requests, and very many of them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::server::{Server, TOKEN, answer, bearer, caller, connect};

fn server() -> Server {
    Server::start("", &caller("web", ""))
}

#[test]
fn a_body_is_read_of_known_callers_only_and_when_it_is_small() {
    let server = server();
    let head = |more: &str| {
        format!(
            "POST /v1/upload-signature HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}\r\n"
        )
    };
    let token = bearer(TOKEN);
    // None of the bodies is sent: an answer is proof that it was not waited for.
    for (request, status) in [
        (head("Content-Length: 100\r\n"), 401),
        (head("Content-Length: 100\r\nExpect: 100-continue\r\n"), 401),
        (head(&format!("{token}\r\nContent-Length: 8193\r\n")), 413),
        (head(&format!("{token}\r\nContent-Length: 99999999999999\r\nExpect: 100-continue\r\n")), 413),
        (head(&format!("{token}\r\nContent-Length: 100\r\nContent-Encoding: gzip\r\n")), 415),
    ] {
        let answer = server.send(request.as_bytes());
        assert_eq!(answer.status, status, "{request}: {answer:?}");
    }
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(4_096));
    let chunked = head(&format!("{token}\r\nTransfer-Encoding: chunked\r\n")) + &chunk.repeat(1_000);
    assert_eq!(server.send(chunked.as_bytes()).status, 413);
    // A little too large, and whole.
    let chunked =
        head(&format!("{token}\r\nTransfer-Encoding: chunked\r\n")) + &chunk.repeat(3) + "0\r\n\r\n";
    assert_eq!(server.send(chunked.as_bytes()).status, 413);
    let exact = serde_json::json!({ "sourceContext": "u" }).to_string();
    let padded = format!("{exact}{}", " ".repeat(8_192 - exact.len()));
    server.web(&padded).signature();
    assert_eq!(server.web(&format!("{padded} ")).status, 413);
    server.ends_well();
}

#[test]
fn what_is_no_request_is_refused_and_what_is_no_http_is_hung_up_on() {
    let server = server();
    let post = "POST /v1/upload-signature HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let token = bearer(TOKEN);
    for (request, statuses) in [
        (format!("{}{token}\r\n\r\n", post.replace("POST", "GET")), &[405][..]),
        (format!("{}{token}\r\n\r\n", post.replace("POST", "PUT")), &[405]),
        (format!("{}{token}\r\n\r\n", post.replace("POST", "DELETE")), &[405]),
        (format!("{}{token}\r\n\r\n", post.replace("POST", "HEAD")), &[405]),
        (format!("{}{token}\r\n\r\n", post.replace("POST", "TRACE")), &[405]),
        (format!("{}{token}\r\n\r\n", post.replace("POST", "FOO")), &[405]),
        (format!("{}{token}\r\n\r\n", post.replace("POST", "CONNECT")), &[400, 404, 405]),
        (format!("{}{token}\r\n\r\n", post.replace("/v1/upload-signature", "/")), &[404]),
        (format!("{}{token}\r\n\r\n", post.replace("/v1/upload-signature", "/v1/upload-signature/")), &[404]),
        (format!("{}{token}\r\n\r\n", post.replace("/v1/upload-signature", "//v1/upload-signature")), &[404]),
        (format!("{}{token}\r\n\r\n", post.replace("/v1/upload-signature", "/metrics")), &[404]),
        (
            format!("{}{token}\r\n\r\n", post.replace("/v1/upload-signature", "/v1/../v1/upload-signature")),
            &[404],
        ),
        (format!("{post}{token}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}"), &[415]),
        (
            format!(
                "{post}{token}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b"
            ),
            &[415],
        ),
        (format!("{post}{token}\r\nContent-Length: 2\r\n\r\n{{}}"), &[415]),
        (format!("{post}{token}\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{{"), &[400]),
        // Two lengths, and a length with chunks: two servers could read two requests.
        (format!("{post}{token}\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"), &[400]),
        (format!("{post}{token}\r\nContent-Length: 0, 5\r\n\r\n"), &[400]),
        (format!("{post}{token}\r\nContent-Length: -1\r\n\r\n"), &[400]),
        (format!("{post}{token}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), &[400]),
        (format!("{post}X: a\rb\r\n\r\n"), &[400]),
        (format!("{post}X\r\n\r\n"), &[400]),
        (format!("{post} folded: x\r\n\r\n"), &[400]),
        (format!("{post}X: {}\r\n\r\n", "a".repeat(1 << 20)), &[431, 400]),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned() + &"\0".repeat(100), &[400]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[400, 505, 0]),
        ("\r\n".repeat(5_000), &[400, 431, 0]),
    ] {
        let answer = server.send(request.as_bytes());
        assert!(statuses.contains(&answer.status), "{request:.200}: {answer:?}");
        assert!(!answer.body.contains("signature\":"), "{answer:?}");
    }
    assert_eq!(server.send(post.replace("POST", "GET").as_bytes()).header("allow"), None);
    server.web("").signature();
    server.ends_well();
}

#[test]
fn what_a_client_sends_does_not_come_back_as_a_header() {
    let server =
        Server::start("cors_origins = [\"https://app.example\"]", &caller("web", "procedures = [\"P\"]"));
    for body in [
        r#"{"procedure":"P\r\nSet-Cookie: a=b"}"#,
        r#"{"Set-Cookie: a=b\r\n\r\n<script>":1}"#,
        r#"{"ttl":"\r\nSet-Cookie: a=b"}"#,
    ] {
        let answer = server.ask(&[&bearer(TOKEN), "Origin: https://app.example"], body);
        assert!((400..404).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("set-cookie"), None, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        answer.json();
    }
    server.ends_well();
}

#[test]
fn a_client_that_is_slow_is_not_waited_for() {
    let server = server();
    let token = bearer(TOKEN);
    let began = Instant::now();
    let mut half_head = connect(server.address);
    half_head.write_all(b"POST /v1/upload-signature HTTP/1.1\r\nHost: x\r\nX-Half: ").unwrap();
    let mut half_body = connect(server.address);
    half_body
        .write_all(
            format!("POST /v1/upload-signature HTTP/1.1\r\nHost: x\r\n{token}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{")
                .as_bytes(),
        )
        .unwrap();
    let mut silent = connect(server.address);
    // A client that says a little now and then is slow, too.
    let mut dripping = connect(server.address);
    let dripped = std::thread::spawn(move || {
        for byte in b"POST /v1/upload-signature HTTP/1.1\r\nHost: x\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter() {
            if dripping.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut rest = Vec::new();
        let _ = dripping.read_to_end(&mut rest);
        Instant::now()
    });
    server.web("").signature();
    assert!([0, 408].contains(&answer(&mut half_head).status));
    assert_eq!(answer(&mut half_body).status, 408);
    assert!([0, 408].contains(&answer(&mut silent).status));
    let waited = began.elapsed();
    assert!((4..10).contains(&waited.as_secs()), "{waited:?}");
    let dripped = dripped.join().unwrap().duration_since(began);
    assert!(dripped < Duration::from_secs(15), "{dripped:?}");
    server.ends_well();
}

#[test]
fn very_many_connections_cost_little_and_keep_nobody_out() {
    // The quick lane of scripts/test makes do with fewer.
    let many = std::env::var("HALF_REQUESTS").map_or(10_000, |many| many.parse().unwrap());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let at_once = limit.maximum.map_or(many, |most| many.min(usize::try_from(most).unwrap() - 500));
    let server = server();
    server.web("").signature();
    let pid = server.process.0.id();
    let memory = || -> usize {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (before, files_before) = (memory(), files());
    let mut held = Vec::new();
    for number in 0..many {
        if held.len() == at_once {
            held.clear();
        }
        let mut stream = connect(server.address);
        let _ = stream.write_all(b"POST /v1/upload-signature HTTP/1.1\r\nHost: x\r\nX-Half: ");
        held.push(stream);
        if number % 1_000 == 0 {
            server.web("").signature();
        }
    }
    server.web("").signature();
    assert!(files() <= files_before + 600, "{} files, {files_before} before", files());
    let after = memory();
    assert!(after <= before + 32 * 1_024, "{after} kB, {before} before");
    drop(held);
    server.ends_well();
}
