//! Each stage in trouble: readiness, metrics, log, `status` and the alert say the same, and say so again when it is over.

use std::io::BufRead;
use std::time::Duration;

use serde_json::Value;
use tencent_vod_emulator::{Action, Credential, Fault, FaultKind};
use tencentcloud_signing::Secret;
use tokio::time::timeout;
use vodrelay_testkit::broker::{Broker, LIMIT, shared};
use vodrelay_testkit::encodings::encodings;
use vodrelay_testkit::world::World;

use super::program::{Program, relay};
use super::put_events;

/// The relay and where it shows its state.
struct Desk {
    world: World,
    program: Program,
    base: String,
    socket: std::path::PathBuf,
}

impl Desk {
    async fn new(world: World, more: &[(&str, &str)]) -> Self {
        // An idle queue proves these two.
        let desk = Self::with_stage(world, more, &["pull", "confirm"]).await;
        desk.until("no stage fails", |page| page.ready).await;
        desk
    }

    /// With some stages proven.
    async fn with_stage(mut world: World, more: &[(&str, &str)], proven: &[&str]) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        world.set("HEALTH__READY_LIMIT", "1s");
        world.set("LOG__FORMAT", "json");
        for (key, value) in more {
            world.set(key, value);
        }
        let program = Program::start(relay(world.environment()));
        program.logs("serving /metrics").await;
        let line = program.log().lines().find(|line| line.contains("serving /metrics")).unwrap().to_owned();
        let line: Value = serde_json::from_str(&line).unwrap();
        let base = format!("http://{}", line["address"].as_str().unwrap());
        let socket = world.folder().join("status.sock");
        let desk = Self { world, program, base, socket };
        desk.until("the stages are proven", |page| page.is_proven(proven)).await;
        desk
    }

    async fn page(&self) -> Page {
        let text = async |path: &str| {
            let answer = reqwest::get(format!("{}{path}", self.base)).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (status, readyz) = text("/readyz").await;
        let readyz: Value = serde_json::from_str(&readyz).unwrap();
        assert_eq!(status == 200, readyz["ready"] == true);
        Page { ready: status == 200, readyz, metrics: text("/metrics").await.1 }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Page) -> bool) -> Page {
        let found = async {
            loop {
                let page = self.page().await;
                if holds(&page) {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(LIMIT, found).await {
            Ok(page) => page,
            Err(_) => {
                panic!("{what}: not within the time; {}\n{}", self.page().await.readyz, self.program.log())
            }
        }
    }

    /// The page, the metrics, the log and the status document show this stage with this error code.
    async fn tells(&self, stage: &str, code: &str) {
        let page = self
            .until(&format!("{stage} has {code}"), |page| page.error_code(stage) == Some(code.into()))
            .await;
        assert!(!page.ready);
        let ready = format!("vodrelay_stage_state{{stage=\"{stage}\",state=\"not_ready\"}} 1");
        let error_code = format!("vodrelay_stage_error_code{{stage=\"{stage}\",error_code=\"{code}\"}} 1");
        for sample in [&ready, &error_code] {
            assert!(page.metrics.lines().any(|line| line == sample), "{sample}\n{}", page.metrics);
        }
        self.program.logs("stage is not ready").await;
        let told =
            |line: &str| line.contains("stage is not ready") && line.contains(code) && line.contains(stage);
        assert!(self.program.log().lines().any(told), "{}", self.program.log());
        let document = vodrelay::ops::status::ask(&self.socket).await.unwrap().unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let problems = document["problems"].as_array().unwrap();
        assert!(problems.iter().any(|told| told["error_code"] == code), "{document}");
        // What the alert looks at is what it was written for.
        let alerts = include_str!("../../../docs/monitoring/alerts.yml");
        let looked_at = "vodrelay_stage_state{state=\"not_ready\"}[5m]";
        assert!(alerts.contains(looked_at), "the alert looks at another figure");
        let runbook = include_str!("../../../docs/runbook.md");
        assert!(runbook.contains(&format!("### {code} ")), "the runbook has no page for {code}");
    }

    async fn recovers(&self, stage: &str) {
        let page = self.until(&format!("{stage} recovers"), |page| page.ready).await;
        let ready = format!("vodrelay_stage_state{{stage=\"{stage}\",state=\"not_ready\"}} 0");
        assert!(page.metrics.lines().any(|line| line == ready), "{}", page.metrics);
        let still = |line: &&str| line.starts_with("vodrelay_stage_error_code") && line.ends_with(" 1");
        assert_eq!(page.metrics.lines().find(still), None);
        self.program.logs("stage is ready again").await;
    }

    async fn ends(self) {
        let log = self.program.drained().await;
        assert!(!log.contains("panicked"), "{log}");
        let after = log.split("drain begins").nth(1).unwrap();
        assert!(!after.contains("\"WARN\""), "an end that was asked for is no problem: {after}");
        assert!(!self.socket.exists(), "nobody listens there any more");
    }
}

struct Page {
    ready: bool,
    readyz: Value,
    metrics: String,
}

impl Page {
    fn is_proven(&self, stages: &[&str]) -> bool {
        let all = self.readyz["stages"].as_array().unwrap();
        stages.iter().all(|stage| all.iter().any(|one| one["stage"] == **stage && one["state"] == "ready"))
    }

    fn counter(&self, sample: &str) -> u64 {
        let value = |line: &str| line.strip_prefix(sample)?.trim().parse().ok();
        self.metrics.lines().find_map(value).unwrap_or(0)
    }

    fn error_code(&self, stage: &str) -> Option<String> {
        let stage = self.readyz["stages"].as_array()?.iter().find(|one| one["stage"] == stage)?;
        stage["error_code"].as_str().map(str::to_owned)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cloud_rejects_the_key_and_then_confirms() {
    let world = World::new(&shared().await.url(), &[0]).await;
    let desk = Desk::new(world, &[]).await;
    let credential = desk.world.emulator.credential();
    desk.world.emulator.set_credentials(Vec::new());
    desk.tells("pull", "VR-302").await;
    desk.world.emulator.set_credentials(vec![credential]);
    desk.recovers("pull").await;

    let faults = desk.world.emulator.faults();
    faults.add(Fault::always(FaultKind::Html { status: 502 }).on(Action::ConfirmEvents));
    put_events(&desk.world, 0..20);
    desk.tells("confirm", "VR-304").await;
    faults.clear();
    desk.recovers("confirm").await;
    desk.world.until_confirmed().await;
    desk.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_goes_away_and_blocks() {
    let broker = Broker::start().await;
    let world = World::new(&broker.url(), &[0]).await;
    let desk = Desk::new(world, &[]).await;
    broker.raise_memory_alarm().await;
    put_events(&desk.world, 0..20);
    desk.tells("publish", "VR-404").await;
    broker.clear_memory_alarm().await;
    desk.recovers("publish").await;
    broker.kill().await;
    desk.tells("publish", "VR-401").await;
    broker.start_again().await;
    desk.recovers("publish").await;
    desk.world.until_confirmed().await;
    desk.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_locked() {
    let world = World::new(&shared().await.url(), &[0]).await;
    let desk = Desk::new(world, &[]).await;
    let operator = rusqlite::Connection::open(desk.world.journal_path()).unwrap();
    operator.execute_batch("BEGIN IMMEDIATE").unwrap();
    put_events(&desk.world, 0..20);
    desk.tells("journal", "VR-205").await;
    operator.execute_batch("ROLLBACK").unwrap();
    desk.recovers("journal").await;
    desk.world.until_confirmed().await;
    desk.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_nacks_everything_answers_and_ends_no_process() {
    let broker = shared().await;
    let mut world = World::new(&broker.url(), &[0]).await;
    // A queue that takes nothing: the broker is there, and nacks.
    let (_connection, channel) = broker.channel().await;
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert("x-max-length".into(), 0_i32.into());
    arguments.insert("x-overflow".into(), lapin::types::AMQPValue::LongString("reject-publish".into()));
    let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    let full = format!("{}.full", world.queue);
    let exchange = world.queue.clone();
    channel
        .exchange_declare(
            exchange.as_str().into(),
            lapin::ExchangeKind::Topic,
            lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() },
            lapin::types::FieldTable::default(),
        )
        .await
        .unwrap();
    channel.queue_declare(full.as_str().into(), options, arguments).await.unwrap();
    channel
        .queue_bind(
            full.as_str().into(),
            exchange.as_str().into(),
            "#".into(),
            Default::default(),
            Default::default(),
        )
        .await
        .unwrap();
    world.set("AMQP__QUEUE", "");
    let desk = Desk::new(world, &[("HEALTH__EXIT_AFTER", "1s")]).await;
    put_events(&desk.world, 0..5);
    desk.tells("publish", "VR-405").await;
    // Nacks go on for longer than the limit, with waits between them that are longer than it.
    let nacked = |page: &Page| page.counter("vodrelay_published_total{outcome=\"nacked\"}") >= 30;
    let page = desk.until("many tries are nacked", nacked).await;
    assert_eq!(page.error_code("publish").as_deref(), Some("VR-405"));
    assert!(!desk.program.log().contains("VR-501"), "{}", desk.program.log());
    desk.program.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_work_waits_for_too_long_ends_with_the_reason() {
    let world = World::new(&shared().await.url(), &[0]).await;
    let desk = Desk::new(world, &[("HEALTH__EXIT_AFTER", "1s")]).await;
    // The broker and the journal are there, and no confirm gets an answer.
    desk.world
        .emulator
        .faults()
        .add(Fault::always(FaultKind::Html { status: 502 }).on(Action::ConfirmEvents));
    put_events(&desk.world, 0..5);
    let (code, log) = desk.program.ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("VR-501") && log.contains("work has waited for an answer"), "{log}");
    assert!(log.contains("VR-304"), "why: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_may_not_confirm_is_told_of_while_the_queue_is_idle() {
    let world = World::new(&shared().await.url(), &[0]).await;
    let code = "UnauthorizedOperation".to_owned();
    world.emulator.faults().add(Fault::always(FaultKind::Error { code }).on(Action::ConfirmEvents));
    let desk = Desk::with_stage(world, &[("HEALTH__EXIT_AFTER", "1s")], &["pull"]).await;
    desk.until("confirm is not ready", |page| page.error_code("confirm").as_deref() == Some("VR-306")).await;
    desk.program.logs("requests fail, and are repeated").await;
    let log = desk.program.log();
    assert!(log.contains("vod:ConfirmEvents") && log.contains("VR-306"), "{log}");
    assert!(!log.contains("every stage is ready"), "{log}");
    // The first event whose confirm is accepted proves more than the question would.
    desk.world.emulator.faults().clear();
    put_events(&desk.world, 0..1);
    desk.until("confirm is ready", |page| page.is_proven(&["confirm"])).await;
    desk.world.until_confirmed().await;
    desk.program.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_change_nothing_and_metrics_are_those_of_the_list() {
    let world = World::new(&shared().await.url(), &[0]).await;
    let desk = Desk::new(world, &[]).await;
    put_events(&desk.world, 0..20);
    desk.world.until_confirmed().await;
    // `status --watch` tells it again and again, to whoever reads.
    let mut watching = std::process::Command::new(env!("CARGO_BIN_EXE_vodrelay"))
        .args(["status", "--watch", "--json"])
        .env_clear()
        .envs(desk.world.environment())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let told: Vec<Value> = std::io::BufReader::new(watching.stdout.take().unwrap())
        .lines()
        .take(2)
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert!(told.iter().all(|document| document["stages"].as_array().unwrap().len() == 4), "{told:?}");
    let counted = |page: &Page| page.metrics.contains("vodrelay_confirmed_total{outcome=\"confirmed\"} ");
    let page = desk.until("the confirms are counted", counted).await;
    for (path, status) in [("/livez", 200), ("/", 404), ("/events", 404)] {
        let answer = reqwest::get(format!("{}{path}", desk.base)).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        let answer = reqwest::Client::new().post(format!("{}{path}", desk.base)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 405, "{path}");
    }
    // Every metric that is served is documented, with its kind.
    let documented = vodrelay::ops::metrics::METRICS;
    for line in page.metrics.lines().filter_map(|line| line.strip_prefix("# TYPE vodrelay_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = format!("vodrelay_{name}");
        let found = documented.iter().find(|(known, ..)| *known == name);
        let (_, known, _) = found.unwrap_or_else(|| panic!("{name} is in no list"));
        assert_eq!(format!("{known:?}").to_lowercase(), kind, "{name}");
    }
    // The signature server is a process of its own, on the same page of the documents.
    let of_both: Vec<&str> =
        documented.iter().chain(vodrelay::serve::signature::METRICS).map(|(name, ..)| *name).collect();
    let manual = include_str!("../../../docs/metrics.md");
    for name in &of_both {
        assert!(manual.contains(&format!("`{name}`")), "docs/metrics.md says nothing of {name}");
    }
    for word in manual.split('`').filter(|word| word.starts_with("vodrelay_") && word.len() > 9) {
        let name = word.split(['{', ' ']).next().unwrap();
        let base = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(of_both.iter().any(|known| *known == name || *known == base), "{name} is no metric");
    }
    assert!(page.metrics.contains("process_resident_memory_bytes "), "the process's own");
    desk.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_secret_is_nowhere_in_what_the_process_shows() {
    let broker = shared().await;
    let user = broker.user().await;
    let password = r#"Pw/5f"3a\+planted"#;
    broker.ctl(&["change_password", &user.name, password]).await;
    let given = user.url.split(['/', ':', '@']).nth(4).unwrap();
    let encoded = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
    let url = user.url.replace(&format!(":{given}@"), &format!(":{encoded}@"));
    assert_ne!(url, user.url);
    let mut world = World::new(&url, &[0]).await;
    let token = "planted-token-5f3a";
    let credential = Credential {
        token: Some(Secret::new(r#"session"Token\planted/+1"#.to_owned())),
        ..Credential::new("AKIDplantedId/+0123456789", r#"Key"planted\5f3a/+="#)
    };
    world.emulator.set_credentials(vec![credential.clone()]);
    world.set("HEALTH__DEAD_MANS_SWITCH_URL", &format!("http://127.0.0.1:1/{token}"));
    // Whatever any library tells.
    world.set("LOG__LEVEL", "trace,lapin=trace,amq_protocol=trace,amq_protocol_types=trace,amq_protocol_tcp=trace,async_rs=trace,tcp_stream=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,mio=trace,tokio_cron_scheduler=trace");
    let desk = Desk::new(world, &[]).await;
    desk.program.logs("the dead man's switch cannot be called").await;
    // Work, and problem of each kind that has words of others in it.
    put_events(&desk.world, 0..20);
    desk.world.until_confirmed().await;
    desk.world.emulator.set_credentials(Vec::new());
    desk.tells("pull", "VR-302").await;
    broker.ctl(&["change_password", &user.name, "another"]).await;
    broker.ctl(&["close_all_user_connections", &user.name, "maintenance"]).await;
    desk.tells("publish", "VR-402").await;
    let proc = |file: &str| std::fs::read(format!("/proc/{}/{file}", desk.program.pid())).unwrap();
    let page = desk.page().await;
    let status = vodrelay::ops::status::ask(&desk.socket).await.unwrap().unwrap();
    let journal = desk.world.journal_path();
    let wal = journal.with_extension("db-wal");
    let shown: [(&str, Vec<u8>); 8] = [
        ("the log", desk.program.log().into_bytes()),
        ("/metrics", page.metrics.into_bytes()),
        ("/readyz", page.readyz.to_string().into_bytes()),
        ("status", status.into_bytes()),
        ("the journal", std::fs::read(&journal).unwrap()),
        ("its WAL", std::fs::read(&wal).unwrap()),
        ("the arguments", proc("cmdline")),
        ("standard output", desk.program.output().join("\n").into_bytes()),
    ];
    let session = credential.token.as_ref().map(Secret::expose).unwrap();
    for (place, bytes) in &shown {
        let text = String::from_utf8_lossy(bytes);
        for secret in [&credential.secret_id, credential.secret_key.expose(), session, password, token] {
            for (encoding, encoded) in encodings(secret) {
                let found = text.lines().find(|line| line.contains(&encoded));
                let found = found.map(|line| line.replace(&encoded, "SECRET"));
                assert_eq!(found, None, "{place} has a secret in it ({encoding})");
            }
        }
    }
    assert!(shown[0].1.windows(7).any(|bytes| bytes == b"\"DEBUG\""), "the log is talkative");
    let limits = String::from_utf8(proc("limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    desk.program.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_over_what_it_can_and_names_what_it_cannot() {
    let mut world = World::new(&shared().await.url(), &[8]).await;
    let file = world.folder().join("config.toml");
    // The environment goes over the file: what the file is to change must not stand there.
    for key in ["VOD__SUB_APP_IDS", "AMQP__EXCHANGE"] {
        world.unset(key);
    }
    let write = |level: &str, ids: &str, exchange: &str| {
        let text = format!(
            "[vod]\nsub_app_ids = {ids}\n[amqp]\nexchange = \"{exchange}\"\n[log]\nlevel = \"{level}\"\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let exchange = world.queue.clone();
    write("info", "[8]", &exchange);
    world.set("HEALTH__READY_LIMIT", "1s");
    let mut environment = world.environment();
    environment.insert("VODRELAY_CONFIG".to_owned(), file.display().to_string());
    let program = Program::start(relay(environment));
    program.tells("READY=1").await;
    write("debug", "[7, 8]", &exchange);
    program.signals(nix::sys::signal::Signal::SIGHUP);
    program.tells("RELOADING=1").await;
    program.logs("configuration reloaded").await;
    assert!(program.log().contains("vod.sub_app_ids, log.level"), "{}", program.log());
    // The new sub-application is relayed, and the log says more.
    world.emulator.put(7, tencent_vod_emulator::events::sample("NewFileUpload", 1).unwrap());
    world.until_confirmed().await;
    program.logs("event confirmed").await;
    write("debug", "[7]", "elsewhere");
    program.signals(nix::sys::signal::Signal::SIGHUP);
    program.logs("changed settings need a restart").await;
    assert!(program.log().contains("amqp.exchange") && program.log().contains("VR-103"), "{}", program.log());
    std::fs::write(&file, "[log]\nlevl = \"info\"\n").unwrap();
    program.signals(nix::sys::signal::Signal::SIGHUP);
    program.logs("reload refused").await;
    assert!(program.log().contains("did you mean"), "{}", program.log());
    world.emulator.put(7, tencent_vod_emulator::events::sample("NewFileUpload", 2).unwrap());
    world.until_confirmed().await;
    program.drained().await;
}
