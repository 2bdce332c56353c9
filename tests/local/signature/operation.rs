//! What an operator does with the server: the file, the check, reloads, the end.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::server::{Place, Server, TOKEN, bearer, caller};

fn run(place: &Place, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = place.command(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[test]
fn a_file_that_is_wrong_is_named_with_line_and_next_step() {
    let place = Place::new();
    let web = caller("web", "");
    for (text, words) in [
        ("", "there are no callers"),
        ("[server]\nlisten = \"127.0.0.1:0\"\n", "there are no callers"),
        ("[sever]\n", ":1: unknown section [sever]; did you mean [server]?"),
        (
            &format!("[server]\nlissen = \"x\"\n{web}"),
            ":2: unknown key \"lissen\" in [server]; did you mean \"listen\"?",
        ),
        (
            &caller("web", "sesion_context = \"P\""),
            ":5: unknown key \"sesion_context\" in [[callers]]; did you mean \"session_context\"?",
        ),
        (&format!("[server]\nprocedure = \"P\"\n{web}"), "it belongs under [[callers]]"),
        (
            &format!("procedure = \"P\"\n{web}"),
            ":1: \"procedure\" stands in no section; put it under [[callers]]",
        ),
        ("[callers]\nname = \"x\"\n", "write [[callers]] in double brackets"),
        ("[[callers]]\nname = \"a b\"\ntokens = [\"web\"]\n", ":2: callers.name must be at most 64 letters"),
        ("[[callers]]\ntokens = [\"web\"]\n", ":1: the caller has no name"),
        (&(web.clone() + &web), "there are two callers \"web\""),
        (
            "[[callers]]\nname = \"a\"\n[[callers]]\nname = \"b\"\n",
            ":3: the caller \"b\" is a second one without tokens",
        ),
        (&caller("web", "expiry = \"91d\""), ":5: callers.expiry is more than 90d"),
        (&caller("web", "expiry = \"1500ms\""), "must be whole seconds"),
        (&caller("web", "expiry = \"1h\""), "has expiry 1h and expiry_max 10m"),
        (&caller("web", "task_priority = 11"), "must be a whole number from -10 to 10"),
        (&caller("web", "task_notify_mode = \"finish\""), "did you mean \"Finish\"?"),
        (&caller("web", "procedure = \"P\"\nprocedures = [\"P\"]"), "has both procedure and procedures"),
        (&caller("web", "procedures = [\"*\", \"P\"]"), "\"*\" beside other values"),
        (&caller("web", "source_context = \"{user}\""), "the placeholders are {caller} and {request}"),
        (&caller("web", "one_time = \"sometimes\""), "it is one of \"never\", \"always\", \"request\""),
        (
            "[[callers]]\nname = \"w\"\ntokens = [\"../web\"]\n",
            "neither an absolute path nor the name of a credential",
        ),
        ("[[callers]]\nname = \"w\"\ntokens = [\"a\", \"b\", \"c\"]\n", "has 3 tokens; two are enough"),
        (&format!("[server]\ncors_origins = [\"*\"]\n{web}"), "write each origin"),
        (
            &format!("[server]\ncors_origins = [\"https://app.example/\"]\n{web}"),
            "write \"https://app.example\"",
        ),
        (&format!("[server]\ntrusted_proxies = [\"proxy\"]\n{web}"), "is no IP address"),
        (&format!("[server]\nmetrics_listen = \"0.0.0.0:1\"\n{web}"), "has no authentication"),
        (
            &format!("[server]\nlisten = \"127.0.0.1:7\"\nmetrics_listen = \"127.0.0.1:7\"\n{web}"),
            "are both 127.0.0.1:7",
        ),
        (&format!("[log]\nlevel = \"loud\"\n{web}"), "unknown level \"loud\""),
        (&format!("[server\n{web}"), ":1: not TOML"),
    ] {
        fs::write(place.file(), text).unwrap();
        for arguments in [&[][..], &["--check"]] {
            let (exit, told) = run(&place, arguments);
            assert_eq!(exit, 78, "{text}: {told}");
            assert!(told.contains(words) && told.contains("VR-101"), "{text}: {told}");
            assert!(told.contains(place.file().to_str().unwrap()), "{told}");
        }
    }
    fs::remove_file(place.file()).unwrap();
    let (exit, told) = run(&place, &[]);
    assert!(exit == 78 && told.contains("cannot be read") && told.contains("--file"), "{told}");
}

#[test]
fn it_does_not_listen_beyond_loopback_without_tokens() {
    let place = Place::new();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"] {
        fs::write(
            place.file(),
            format!("[server]\nlisten = \"{listen}\"\n[[callers]]\nname = \"web\"\ntokens = [\"web\"]\n[[callers]]\nname = \"open\"\n"),
        )
        .unwrap();
        let (exit, told) = run(&place, &[]);
        assert_eq!(exit, 78, "{told}");
        assert!(told.contains("the caller \"open\" has no tokens, and server.listen is"), "{told}");
        assert!(told.contains("give the caller tokens, or listen on 127.0.0.1"), "{told}");
    }
    // With tokens it may, and says what that means. It is not started: a test listens on loopback.
    fs::write(place.file(), format!("[server]\nlisten = \"192.0.2.1:0\"\n{}", caller("web", ""))).unwrap();
    let (_, told) = run(&place, &["--check"]);
    assert!(told.contains("plain HTTP") && told.contains("VR-104"), "{told}");
}

#[test]
fn a_key_or_a_token_that_cannot_be_used_ends_the_start() {
    let place = Place::new();
    place.write("", &caller("web", ""));
    place.credential("web", "short");
    let (exit, told) = run(&place, &[]);
    assert!(exit == 78 && told.contains("fewer than 32 characters") && told.contains("VR-601"), "{told}");
    place.credential("web", TOKEN);
    place.credential("token", "of-a-role");
    let (exit, told) = run(&place, &[]);
    assert!(exit == 78 && told.contains("temporary pair") && told.contains("VR-602"), "{told}");
    fs::remove_file(place.0.path().join("credentials/token")).unwrap();
    fs::remove_file(place.0.path().join("credentials/secret_key")).unwrap();
    let (exit, told) = run(&place, &[]);
    assert!(exit == 78 && told.contains("no secret_key") && told.contains("VR-102"), "{told}");
    let (exit, told) = run(&place, &["--check"]);
    assert!(exit == 78 && told.contains("VR-102"), "{told}");
}

#[test]
fn a_port_that_is_taken_is_tried_again_later() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::new();
    let listen = taken.local_addr().unwrap();
    fs::write(place.file(), format!("[server]\nlisten = \"{listen}\"\n{}", caller("web", ""))).unwrap();
    let (exit, told) = run(&place, &[]);
    assert!(exit == 75 && told.contains("(server.listen)") && told.contains("VR-508"), "{told}");
}

#[test]
fn a_reload_takes_over_what_it_can_and_a_wrong_one_nothing() {
    let mut server = Server::start("", &caller("web", "procedure = \"Old\""));
    let procedure = |server: &Server| server.web("").signature().grant().unwrap().procedure;
    let refused = server.reload("", &caller("web", "procedur = \"New\""), "reload refused");
    assert_eq!(refused["error_code"], "VR-507");
    assert!(refused["cause"].as_str().unwrap().contains("did you mean \"procedure\"?"), "{refused}");
    assert_eq!(procedure(&server).as_deref(), Some("Old"));
    let restart = server.reload("connections = 7", &caller("web", "procedure = \"New\""), "need a restart");
    assert_eq!((&restart["error_code"], &restart["error"]), (&"VR-103".into(), &"server.connections".into()));
    assert_eq!(procedure(&server).as_deref(), Some("New"));
    // The key too: its file is read again.
    let credentials = server.folder.path().join("credentials");
    fs::write(credentials.join("secret_id"), "AKIDanother").unwrap();
    server.reload("", &caller("web", ""), "AKIDanot***");
    let answer = server.web("");
    let json = answer.json();
    let signature =
        tencentcloud_signing::upload::Signature::parse(json["signature"].as_str().unwrap()).unwrap();
    assert_eq!(signature.parameter("secretId").as_deref(), Some("AKIDanother"));
    server.ends_well();
}

#[test]
fn the_audit_is_logged_whatever_the_level_is_and_says_who_got_what() {
    let place = Place::new();
    place.write("", &caller("web", "one_time = \"always\""));
    let mut server = place.start();
    // Of a reload, a warning is logged at this level; what succeeds is not.
    let quiet = "connections = 7\n[log]\nlevel = \"warn\"";
    server.reload(quiet, &caller("web", "one_time = \"always\""), "need a restart");
    assert!(!server.log().contains("were read again"));
    let signature = server.web(r#"{"sourceContext":"user=17\r\n\u001b[2J"}"#).signature();
    server.web(r#"{"procedure":"P"}"#);
    let line = server.logged("upload signature granted");
    let grant = signature.grant().unwrap();
    assert_eq!((&line["caller"], &line["peer"]), (&"web".into(), &"127.0.0.1".into()));
    assert_eq!((&line["random"], &line["expire_time"]), (&grant.random.into(), &grant.expire_time.into()));
    let granted: serde_json::Value = serde_json::from_str(line["granted"].as_str().unwrap()).unwrap();
    assert_eq!(granted, serde_json::json!({"oneTimeValid": "1", "sourceContext": "user=17\r\n\u{1b}[2J"}));
    let refused = server.logged("upload signature refused");
    assert_eq!((&refused["status"], &refused["code"]), (&403.into(), &"parameter_not_allowed".into()));
    server.ends_well();
}

#[test]
fn an_answer_is_json_or_the_bare_signature_and_nobody_keeps_it() {
    let server = Server::start("", &caller("web", ""));
    let token = bearer(TOKEN);
    for (accept, plain) in [
        ("Accept: */*", false),
        ("Accept: application/json", false),
        ("Accept: application/json, text/plain, */*", false),
        ("Accept: text/plain", true),
        ("Accept: text/plain;q=0.9, */*;q=0.1", true),
        ("Accept: image/png", false),
        ("Accept: \u{fc}", false),
    ] {
        let answer = server.ask(&[&token, accept], "{}");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{accept}");
        let kind = answer.header("content-type").unwrap();
        if plain {
            assert_eq!(kind, "text/plain; charset=utf-8");
            tencentcloud_signing::upload::Signature::parse(&answer.body).unwrap();
        } else {
            assert_eq!(kind, "application/json");
            answer.signature();
        }
        let refused = server.ask(&[accept], "{}");
        assert_eq!(refused.body.starts_with('{'), !plain, "{refused:?}");
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    server.ends_well();
}

#[test]
fn the_check_says_what_each_caller_gets() {
    let place = Place::new();
    let callers = caller("web", "one_time = \"always\"\nprocedure = \"Transcode\"")
        + &caller("app", "expiry_max = \"1h\"");
    place.write("", &callers);
    let (exit, told) = run(&place, &["--check"]);
    assert_eq!(exit, 0, "{told}");
    for words in [
        "ok    tokens       2 tokens can be read",
        "ok    caller       web: one upload within 600 s, with the task flow Transcode",
        "ok    caller       app: any number of uploads within 600 s",
        "ok    credentials  the pair AKIDexam*** in",
    ] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn the_example_of_the_file_is_one_that_works() {
    let place = Place::new();
    place.credential("app-backend", TOKEN);
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("signature.example.toml"), place.file()).unwrap();
    let (exit, told) = run(&place, &["--check"]);
    assert_eq!(exit, 0, "{told}");
    assert!(told.contains("app-backend: any number of uploads within 600 s"), "{told}");
}
