//! Who may ask, how often, and from which page.

use super::server::{OTHER_TOKEN, Place, Server, TOKEN, bearer, caller};

#[test]
fn only_a_caller_s_token_opens_the_door() {
    let server = Server::start("", &caller("web", ""));
    for (headers, code) in [
        (vec![], "token_missing"),
        (vec![bearer(OTHER_TOKEN)], "token_unknown"),
        (vec![bearer(&TOKEN[1..])], "token_unknown"),
        (vec![bearer("")], "token_unknown"),
        (vec![bearer(&TOKEN.to_uppercase())], "token_unknown"),
        (vec![format!("Authorization: Basic {TOKEN}")], "token_unknown"),
        (vec![format!("Authorization: {TOKEN}")], "token_unknown"),
        (vec![format!("X-Authorization: Bearer {TOKEN}")], "token_missing"),
        (vec![format!("Cookie: token={TOKEN}")], "token_missing"),
        // Two that could be read in two ways.
        (vec![bearer(TOKEN), bearer(TOKEN)], "token_unknown"),
        (vec![bearer("x"), bearer(TOKEN)], "token_unknown"),
    ] {
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = server.ask(&lines, "{}");
        assert_eq!((answer.status, answer.error().1.as_str()), (401, code), "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), Some("bearer"));
    }
    server.ask(&[&format!("authorization: bearer {TOKEN}")], "{}").signature();
    let page = server.metrics_page();
    for line in [
        r#"vodrelay_signature_requests_total{caller="",verdict="unauthenticated"} 11"#,
        r#"vodrelay_signature_requests_total{caller="web",verdict="granted"} 1"#,
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    let log = server.ends_well();
    assert_eq!(log.matches("VR-603").count(), 1, "told once a minute: {log}");
}

#[test]
fn a_token_is_rotated_without_a_gap() {
    let place = Place::new();
    let path = place.0.path().join("web-next");
    let callers = |tokens: &str| format!("[[callers]]\nname = \"web\"\ntokens = {tokens}\n");
    place.write("", &callers("[\"web\"]"));
    let mut server = place.start();
    let next = "n".repeat(64);
    std::fs::write(&path, &next).unwrap();
    let status = |server: &Server| [TOKEN, &next].map(|token| server.ask(&[&bearer(token)], "").status);
    assert_eq!(status(&server), [200, 401]);
    server.reload("", &callers(&format!("[\"web\", {path:?}]")), "were read again");
    assert_eq!(status(&server), [200, 200]);
    server.reload("", &callers(&format!("[{path:?}]")), "were read again");
    assert_eq!(status(&server), [401, 200]);
    // What cannot be read changes nothing.
    std::fs::remove_file(&path).unwrap();
    let line = server.reload("", &callers(&format!("[{path:?}]")), "reload refused");
    assert_eq!(line["error_code"], "VR-601");
    assert_eq!(status(&server), [401, 200]);
    server.ends_well();
}

#[test]
fn pages_of_named_origins_may_ask_and_no_others() {
    let origins = r#"cors_origins = ["https://app.example", "http://localhost:8080"]"#;
    let server = Server::start(origins, &caller("web", ""));
    let preflight = |origin: &str| {
        let request = format!(
            "OPTIONS /v1/upload-signature HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{origin}Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
        );
        server.send(request.as_bytes())
    };
    for origin in ["https://app.example", "http://localhost:8080"] {
        let answer = preflight(&format!("Origin: {origin}\r\n"));
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-methods"), Some("post"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, content-type"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let answer = server.ask(&[&bearer(TOKEN), &format!("Origin: {origin}")], "");
        answer.signature();
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("vary"), Some("origin, accept"));
        // The page learns why there is none, too.
        let answer = server.ask(&[&format!("Origin: {origin}")], "");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, Some(origin)));
    }
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "http://app.example",
        "https://APP.example",
        "null",
        "*",
        "",
    ] {
        let answer = preflight(&format!("Origin: {origin}\r\n"));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None), "{origin}");
        let answer = server.ask(&[&bearer(TOKEN), &format!("Origin: {origin}")], "");
        answer.signature();
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
    let twice = preflight("Origin: https://app.example\r\nOrigin: https://evil.example\r\n");
    assert_eq!((twice.status, twice.header("access-control-allow-origin")), (403, None));
    assert_eq!(preflight("").status, 403);
    server.ends_well();
    let closed = Server::start("", &caller("web", ""));
    let answer = closed.ask(&[&bearer(TOKEN), "Origin: https://app.example"], "");
    answer.signature();
    assert_eq!(answer.header("access-control-allow-origin"), None);
    closed.ends_well();
}

#[test]
fn a_caller_and_a_peer_that_ask_too_often_are_told_to_wait() {
    let callers = "[[callers]]\nname = \"web\"\ntokens = [\"web\"]\nrequests_per_second = 1\n";
    let server = Server::start("", &(callers.to_owned() + &caller("app", "")));
    let answers: Vec<_> = (0..10).map(|_| server.web("")).collect();
    let limited =
        answers.iter().find(|answer| answer.status == 429).expect("ten requests at once are too many");
    assert_eq!((limited.error().1.as_str(), limited.header("retry-after")), ("too_many_requests", Some("1")));
    // Others are not held up.
    server.ask(&[&bearer(OTHER_TOKEN)], "").signature();
    server.ends_well();

    let place = Place::new();
    place.write("requests_per_second = 2\ntrusted_proxies = [\"127.0.0.1\"]", &caller("web", ""));
    let server = place.start();
    let from = |peer: &str| {
        server.ask(&[&bearer(TOKEN), &format!("X-Forwarded-For: 203.0.113.99, {peer}")], "").status
    };
    let statuses: Vec<u16> = (0..10).map(|_| from("198.51.100.1")).collect();
    assert!(statuses.contains(&429) && statuses[0] == 200, "{statuses:?}");
    assert_eq!(from("198.51.100.2"), 200);
    let log = server.ends_well();
    assert!(log.contains(r#""peer":"198.51.100.1""#) && !log.contains("203.0.113.99"), "{log}");
}

#[test]
fn without_tokens_it_answers_programs_of_this_host_and_no_page() {
    let place = Place::new();
    place.write("requests_per_second = 10000", "[[callers]]\nname = \"laptop\"\n");
    let server = place.start();
    server.ask(&[], "").signature();
    let with_host = |host: &str| {
        let request = format!(
            "POST /v1/upload-signature HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        server.send(request.as_bytes())
    };
    for host in ["Host: localhost:1\r\n", "Host: 127.0.0.1\r\n", "Host: [::1]:9\r\n"] {
        with_host(host).signature();
    }
    // A name of somebody else's that leads here, as a page can have it.
    for host in [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost.evil.example:1\r\n",
        "Host: 192.0.2.1\r\n",
        "",
    ] {
        let answer = with_host(host);
        assert!([400, 403].contains(&answer.status), "{host}: {answer:?}");
    }
    let answer = server.ask(&["Origin: https://evil.example"], "");
    assert_eq!((answer.status, answer.error().1.as_str()), (403, "origin_not_allowed"));
    // A token that nobody has does not become nobody's.
    assert_eq!(server.web("").status, 401);
    let log = server.ends_well();
    assert!(log.contains("VR-104") && log.contains("every program on this host can ask"), "{log}");
}
