//! A client uploads to a local VOD with signatures of the server, one for each of its calls.

use serde_json::json;

use super::server::{OTHER_TOKEN, Place, bearer, caller};
use crate::uploads::client::{ID, KEY, World};
use crate::uploads::web::{applied, put, video};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_uploads_with_one_time_signatures_and_the_event_says_who_it_was() {
    let world = World::start(|_| {}).await;
    let place = Place::new();
    place.credential("secret_id", ID);
    place.credential("secret_key", KEY);
    let policy = "one_time = \"always\"\nsub_app_id = 1500000001\nsource_context = \"{caller}:{request}\"";
    place.write("requests_per_second = 10000", &caller("app", policy));
    let server = place.start();
    let signature = || {
        let body = r#"{"sourceContext":"user=17&order=4"}"#;
        let answer = tokio::task::block_in_place(|| server.ask(&[&bearer(OTHER_TOKEN)], body));
        answer.json()["signature"].as_str().unwrap().to_owned()
    };
    let first = signature();
    let place = applied(&world.ugc("ApplyUploadUGC", video(&first)).await);
    // The next call needs another one.
    assert_eq!(world.ugc("ApplyUploadUGC", video(&first)).await["code"], 1001);
    assert_eq!(put(&world, &place, &place.media).await, "ok");
    let commit = json!({ "signature": signature(), "vodSessionKey": place.session });
    let committed = world.ugc("CommitUploadUGC", commit).await;
    assert_eq!(committed["code"], 0, "{committed}");
    let events = world.events(1_500_000_001).await;
    let event = &events[0]["FileUploadEvent"];
    assert_eq!(event["FileId"], committed["data"]["fileId"]);
    assert_eq!(event["MediaBasicInfo"]["SourceInfo"]["SourceContext"], "app:user=17&order=4");
    tokio::task::block_in_place(|| server.ends_well());
}
