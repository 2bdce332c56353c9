use serde::Deserialize;

use super::*;

/// The documents' example, and signatures computed from the algorithm; each says which.
const VECTORS: &str = include_str!("../../tests/upload.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    #[serde(rename = "origin")]
    _origin: String,
    secret_key: String,
    params: Vec<(String, String)>,
    space: String,
    original: String,
    hmac_sha1_hex: String,
    signature: String,
}

const NOW: i64 = 1_571_215_095;

fn full() -> Grant {
    Grant {
        class_id: Some(0),
        procedure: Some("LongVideoPreset".to_owned()),
        task_priority: Some(10),
        task_notify_mode: Some(TaskNotifyMode::Change),
        source_context: Some("{\"uid\":\"u-1\",\"名\":\"测试 &=+\"}".to_owned()),
        one_time_valid: Some(true),
        sub_app_id: Some(1_500_000_001),
        session_context: Some("sess-1".to_owned()),
        storage_region: Some("ap-guangzhou".to_owned()),
        ..Grant::new("IamSecretId", NOW, NOW + 86_400, 220_625)
    }
}

fn parsed(grant: &Grant) -> Signature {
    Signature::parse(&grant.sign("key").unwrap()).unwrap()
}

/// A signature over any text, good or not.
fn over(original: &str) -> Signature {
    Signature::parse(&seal("key", original)).unwrap()
}

#[test]
fn every_vector_is_sealed_and_read() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in &vectors {
        let name = &vector.name;
        assert_eq!(seal(&vector.secret_key, &vector.original), vector.signature, "{name}");
        let read = Signature::parse(&vector.signature).unwrap();
        assert_eq!(
            hex::encode(hmac_sha1(vector.secret_key.as_bytes(), vector.original.as_bytes())),
            vector.hmac_sha1_hex
        );
        assert!(read.verify(&vector.secret_key) && !read.verify("another key"), "{name}");
        assert_eq!(read.original(), vector.original, "{name}");
        let read: Vec<(String, String)> =
            read.parameters().into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        assert_eq!(read, vector.params, "{name}");
    }
    // Ours is the one with %20; the other is read as the same.
    let with = |space: &str| vectors.iter().find(|v| v.space == space && v.params.len() == 13).unwrap();
    assert_eq!(full().sign("IamSecretKey").unwrap(), with("%20").signature);
    assert_eq!(Signature::parse(&with("+").signature).unwrap().grant(), Ok(full()));
    // The documents' example lives for ten years, which their own rule forbids.
    let example = Grant::new("IamSecretId", NOW, 1_886_575_095, 220_625);
    assert_eq!(example.original(), vectors[0].original);
    assert_eq!(example.sign("IamSecretKey"), Err(InvalidGrant::LifeTooLong(315_360_000)));
}

#[test]
fn a_value_cannot_bring_in_a_parameter() {
    for text in
        ["a&procedure=Evil", "a=b", "%26procedure%3DEvil", "\0", "a b+c", "😀测", "&", "=", "\"", "\r\n"]
    {
        let grant = Grant {
            source_context: Some(text.to_owned()),
            session_context: Some(text.to_owned()),
            procedure: Some(text.to_owned()),
            storage_region: Some(text.to_owned()),
            secret_id: text.to_owned(),
            ..full()
        };
        let read = parsed(&grant);
        assert_eq!(read.grant(), Ok(grant), "{text:?}");
        assert_eq!(read.parameters().len(), PARAMETERS.len(), "{text:?}");
    }
}

#[test]
fn a_limit_is_kept_and_what_is_over_it_is_refused_and_not_cut() {
    let check = |change: fn(&mut Grant)| {
        let mut grant = full();
        change(&mut grant);
        grant.sign("key").map(|_| ())
    };
    assert_eq!(check(|g| g.source_context = Some("测".repeat(250))), Ok(()));
    assert_eq!(
        check(|g| g.source_context = Some("测".repeat(251))),
        Err(InvalidGrant::TooLong { name: "sourceContext", characters: 251, most: 250 })
    );
    assert_eq!(check(|g| g.session_context = Some("é".repeat(1_000))), Ok(()));
    assert_eq!(
        check(|g| g.session_context = Some("é".repeat(1_001))),
        Err(InvalidGrant::TooLong { name: "sessionContext", characters: 1_001, most: 1_000 })
    );
    assert_eq!(check(|g| g.source_context = Some(String::new())), Err(InvalidGrant::Empty("sourceContext")));
    assert_eq!(check(|g| g.secret_id.clear()), Err(InvalidGrant::Empty("secretId")));
    assert_eq!(check(|g| g.expire_time = NOW + MAX_LIFE), Ok(()));
    assert_eq!(check(|g| g.expire_time = NOW + MAX_LIFE + 1), Err(InvalidGrant::LifeTooLong(MAX_LIFE + 1)));
    assert_eq!(check(|g| g.expire_time = NOW), Err(InvalidGrant::NoLife));
    assert_eq!(check(|g| g.expire_time = i64::MIN), Err(InvalidGrant::NoLife));
    assert_eq!(check(|g| g.expire_time = i64::MAX), Err(InvalidGrant::LifeTooLong(i64::MAX - NOW)));
    assert_eq!(check(|g| g.task_priority = Some(-10)), Ok(()));
    for priority in [11, -11, i8::MIN] {
        let grant = Grant { task_priority: Some(priority), ..full() };
        assert!(matches!(grant.check(), Err(InvalidGrant::Value { name: "taskPriority", .. })), "{priority}");
    }
}

#[test]
fn what_others_sign_is_read_strictly() {
    let good = "secretId=id&currentTimeStamp=100&expireTime=200&random=5";
    assert_eq!(over(good).grant(), Ok(Grant::new("id", 100, 200, 5)));
    let cases = [
        ("secretId=id&currentTimeStamp=100&expireTime=200".to_owned(), "random is missing"),
        (format!("{good}&random=6"), "\"random\" stands more than once"),
        (format!("{good}&procedure=a&proc%65dure=b"), "stands more than once"),
        (format!("{good}&admin=1"), "\"admin\" is no parameter"),
        (format!("{good}&oneTimeValid=true"), "0 or 1"),
        (format!("{good}&taskNotifyMode=finish"), "Finish, Change or None"),
        (format!("{good}&taskPriority=11"), "-10 to 10"),
        (format!("{good}&taskPriority=300"), "-10 to 10"),
        (format!("{good}&sourceContext={}", "x".repeat(251)), "251 characters"),
        (good.replace("random=5", "random=4294967296"), "0 to 4294967295"),
        (good.replace("=100", "=soon"), "a number of seconds"),
        (good.replace("=200", "=100"), "not after"),
    ];
    for (original, words) in cases {
        let error = over(&original).grant().unwrap_err().to_string();
        assert!(error.contains(words), "{original}: {error}");
    }
}

#[test]
fn what_is_no_signature_is_told_by_its_fault() {
    let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
    let hex_and_text = format!("{}&secretId=a", hex::encode([7; 20]));
    let cases = [
        ("*".to_owned(), NotASignature::Base64),
        (String::new(), NotASignature::Short),
        (encoded(&[1; 20]), NotASignature::Short),
        (encoded(hex_and_text.as_bytes()), NotASignature::HexMac),
        (encoded(&[0xff; 40]), NotASignature::NotText),
    ];
    for (text, fault) in cases {
        assert_eq!(Signature::parse(&text), Err(fault), "{text}");
    }
}

#[test]
fn what_is_odd_is_found_and_what_is_well_is_not() {
    let well = Grant { random: 3_000_000_000, expire_time: NOW + 600, ..full() };
    assert_eq!(parsed(&well).findings(NOW), []);
    assert_eq!(parsed(&well).findings(NOW + 600), [Finding::Expired(0)]);
    assert_eq!(parsed(&well).findings(NOW - 61), [Finding::FromTheFuture(61)]);
    let found = |change: fn(&mut Grant)| {
        let mut grant = well.clone();
        change(&mut grant);
        parsed(&grant).findings(NOW)
    };
    assert_eq!(found(|g| g.procedure = None).len(), 3);
    assert_eq!(found(|g| g.random = 8), [Finding::SmallRandom]);
    assert_eq!(found(|g| g.expire_time = NOW + 86_401), [Finding::LongLife(86_401)]);
    let milliseconds =
        over("secretId=id&currentTimeStamp=1571215095000&expireTime=1571215181400&random=4000000000");
    assert_eq!(
        milliseconds.findings(NOW),
        [Finding::Milliseconds("currentTimeStamp"), Finding::Milliseconds("expireTime")]
    );
    let naked = over(
        "secretId=id&currentTimeStamp=1571215095&expireTime=1571215195&random=4000000000&sourceContext=a b",
    );
    assert_eq!(naked.findings(NOW), [Finding::NotEncoded("sourceContext".to_owned())]);
    let injected =
        over("secretId=id&currentTimeStamp=1571215095&expireTime=1571215195&random=4000000000&random=1");
    let findings = injected.findings(NOW);
    assert!(matches!(&findings[..], [Finding::Invalid(InvalidGrant::Repeated(_))]), "{findings:?}");
    assert!(findings[0].refused() && !Finding::SmallRandom.refused());
}

#[test]
fn a_signature_does_not_print_and_two_random_numbers_differ() {
    assert_eq!(format!("{:?}", parsed(&full())), "Signature(***)");
    let drawn: std::collections::HashSet<u32> = (0..64).map(|_| random().unwrap()).collect();
    assert!(drawn.len() > 60, "{drawn:?}");
}

proptest::proptest! {
    #[test]
    fn any_grant_within_the_limits_comes_back_as_it_was(
        text in proptest::string::string_regex("(?s).{1,250}").unwrap(),
        random: u32,
        life in 1..=MAX_LIFE,
        sub_app_id: Option<u64>,
        class_id: Option<i64>,
    ) {
        let grant = Grant {
            source_context: Some(text.clone()),
            session_context: Some(text),
            random,
            expire_time: NOW + life,
            sub_app_id,
            class_id,
            ..full()
        };
        let read = parsed(&grant);
        assert!(read.verify("key"));
        assert_eq!(read.grant(), Ok(grant));
    }

    #[test]
    fn no_text_breaks_the_reader(text: String, original in ".{1,200}") {
        let _any = Signature::parse(&text);
        if let Ok(signature) = Signature::parse(&seal("key", &original)) {
            let _any = (signature.grant(), signature.findings(NOW));
        }
    }
}
