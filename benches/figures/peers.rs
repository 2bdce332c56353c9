//! The relay beside the loops that people write by hand today (`benches/peers`).

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use vodrelay_testkit::broker::{Broker, unique};

use crate::SCRATCH;
use crate::report::{Figure, Goal, median, median_ratio};
use crate::world::cloud::{Behaviour, CREDENTIALS, Cloud};
use crate::world::events::ONE_KB;
use crate::world::queue;
use crate::world::relay::{NO_LIMIT, Setup};
use crate::world::run::work_off;
use crate::world::{Bench, STEP_LIMIT, until};

/// What a call to the cloud takes here.
const LATENCY: Duration = Duration::from_millis(40);

/// How long a registry and a compiler may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// A loop, and how it gets what it needs.
#[derive(Debug)]
struct Peer {
    name: &'static str,
    program: &'static str,
    /// Below `benches/peers`, as all files here.
    script: &'static str,
    /// What pins the versions of its packages.
    pins: &'static [&'static str],
    /// For a shell, in the folder that the packages go to, with the pins in it.
    install: &'static str,
    /// Where the program looks for packages, and the place below that folder.
    packages: (&'static str, &'static str),
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "the Python loop",
        program: "python3",
        script: "python/relay.py",
        pins: &["python/requirements.txt"],
        install: "python3 -m pip install --quiet --target . --requirement requirements.txt",
        packages: ("PYTHONPATH", ""),
    },
    Peer {
        name: "the Node loop",
        program: "node",
        script: "node/relay.js",
        pins: &["node/package.json", "node/package-lock.json"],
        install: "npm ci --no-audit --no-fund",
        packages: ("NODE_PATH", "node_modules"),
    },
];

/// What a loop says of itself at its end.
#[derive(Debug, Deserialize)]
struct Said {
    events: u64,
    seconds: f64,
    cpu_seconds: f64,
}

/// How somebody did in one round.
#[derive(Clone, Copy, Debug)]
struct Pace {
    events_per_second: f64,
    cpu_us_per_event: f64,
}

pub(crate) async fn run(bench: &Bench) -> Vec<Figure> {
    let mut installed = Vec::new();
    for peer in &PEERS {
        installed.push((peer, peer.installed(bench).await));
    }
    let broker = bench.broker().await;
    let (rounds, events) = bench.pick((3, 10_000), (1, 40));
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); installed.len()];
    for round in 1..=rounds {
        // In turn, so that whatever else the machine does hits all of them.
        let pace = vodrelay(bench, broker, events).await;
        say(bench, "vodrelay", round, pace);
        ours.push(pace);
        for ((peer, packages), paces) in installed.iter().zip(&mut theirs) {
            if let Some(packages) = packages {
                let pace = peer.relay(bench, packages, broker, events).await;
                say(bench, peer.name, round, pace);
                paces.push(pace);
            }
        }
    }
    let mut figures = told("vodrelay", &ours).to_vec();
    for ((peer, packages), paces) in installed.iter().zip(&theirs) {
        match packages {
            Some(_) => figures.extend(beside(peer.name, &ours, paces)),
            None => {
                let skipped = format!("{}: SKIPPED, its packages cannot be had", peer.name);
                figures.push(Figure::new(skipped, None, ""));
            }
        }
    }
    figures
}

fn say(bench: &Bench, who: &str, round: u32, pace: Pace) {
    bench.say(&format!(
        "round {round}, {who}: {:.0} events/s, {:.0} us of CPU an event",
        pace.events_per_second, pace.cpu_us_per_event
    ));
}

fn told(who: &str, paces: &[Pace]) -> [Figure; 2] {
    [
        Figure::new(format!("{who}: relayed"), median(&rates(paces)), "events/s"),
        Figure::new(format!("{who}: CPU an event"), median(&costs(paces)), "us"),
    ]
}

/// A peer's figures, and the relay's beside them.
fn beside(who: &str, ours: &[Pace], theirs: &[Pace]) -> Vec<Figure> {
    let pace = median_ratio(&rates(ours), &rates(theirs));
    let cpu = median_ratio(&costs(theirs), &costs(ours));
    let mut figures = told(who, theirs).to_vec();
    figures.push(Figure::new(format!("vodrelay / {who}: events/s"), pace, "").goal(Goal::AtLeast(8.0)));
    figures.push(Figure::new(format!("{who} / vodrelay: CPU an event"), cpu, "").goal(Goal::AtLeast(10.0)));
    figures
}

fn rates(paces: &[Pace]) -> Vec<f64> {
    paces.iter().map(|pace| pace.events_per_second).collect()
}

fn costs(paces: &[Pace]) -> Vec<f64> {
    paces.iter().map(|pace| pace.cpu_us_per_event).collect()
}

async fn backlog(bench: &Bench, events: u64) -> Cloud {
    let latency_ms = u64::try_from(LATENCY.as_millis()).expect("a latency is short");
    let cloud = Cloud::start(bench, Behaviour { latency_ms, ..Behaviour::UNLIMITED }).await;
    cloud.put(0, ONE_KB.events(0, events)).await;
    cloud
}

async fn vodrelay(bench: &Bench, broker: &Broker, events: u64) -> Pace {
    let cloud = backlog(bench, events).await;
    let setup = Setup::new(bench, &cloud, broker, NO_LIMIT);
    let run = work_off(bench, &cloud, broker, &setup, events).await;
    assert_eq!(u64::from(queue::delete(broker, &setup.queue).await), events, "everything was published once");
    // The loops count from when they ask for the first time, a run from when it is answered.
    let took = run.took() + LATENCY;
    Pace {
        events_per_second: events as f64 / took.as_secs_f64(),
        cpu_us_per_event: run.cpu_us_per_event()[0],
    }
}

impl Peer {
    /// The folder with its packages, if they can be had.
    async fn installed(&self, bench: &Bench) -> Option<PathBuf> {
        // Under the digest of the pins: for each state of them it is made once.
        let mut digest = Sha256::new();
        for pin in self.pins {
            digest.update(std::fs::read(file(pin)).expect("the pins are in the repository"));
        }
        let digest = hex::encode(digest.finalize());
        let folder = Path::new(SCRATCH).join(format!("{}-packages-{}", self.program, &digest[..12]));
        if folder.exists() {
            return Some(folder);
        }
        bench.say(&format!("{}: its packages are fetched", self.name));
        let begun = bench.folder().join(self.program);
        std::fs::create_dir(&begun).expect("a folder can be made");
        for pin in self.pins {
            let name = Path::new(pin).file_name().expect("a file has a name");
            std::fs::copy(file(pin), begun.join(name)).expect("a file can be copied");
        }
        let log = begun.join("install.log");
        let mut install = Command::new("sh");
        install.args(["-c", self.install]).current_dir(&begun);
        if finished(bench, install, &log, INSTALL_LIMIT).await != Some(true) {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            bench.say(&format!("*** {} IS NOT MEASURED: its packages cannot be had ***\n{text}", self.name));
            return None;
        }
        // Only what is whole gets the name that is looked for.
        std::fs::rename(&begun, &folder).expect("a folder can be renamed");
        Some(folder)
    }

    async fn relay(&self, bench: &Bench, packages: &Path, broker: &Broker, events: u64) -> Pace {
        let cloud = backlog(bench, events).await;
        let name = unique("peer");
        let journal = bench.folder().join(format!("{name}.db"));
        let said = bench.folder().join(format!("{name}.json"));
        let (variable, below) = self.packages;
        let mut command = Command::new(self.program);
        command
            .arg(file(self.script))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(variable, packages.join(below))
            .envs(CREDENTIALS)
            .env("RELAY_SCHEME", "http")
            .env("RELAY_ENDPOINT", cloud.endpoint().trim_start_matches("http://"))
            .env("RELAY_AMQP_URL", broker.url())
            .env("RELAY_EXCHANGE", &name)
            .env("RELAY_QUEUE", &name)
            .env("RELAY_JOURNAL", journal)
            .env("RELAY_EVENTS", events.to_string());
        let well = finished(bench, command, &said, STEP_LIMIT * 3).await;
        let text = std::fs::read_to_string(&said).unwrap_or_default();
        assert_eq!(well, Some(true), "{} did not end well:\n{text}", self.name);
        let Said { events: relayed, seconds, cpu_seconds } = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} says something else: {error}\n{text}", self.name));
        let confirmed = cloud.stats().await.events().confirmed;
        let published = u64::from(queue::delete(broker, &name).await);
        assert_eq!([relayed, confirmed, published], [events; 3], "said, confirmed and published");
        Pace {
            events_per_second: events as f64 / seconds,
            cpu_us_per_event: cpu_seconds * 1e6 / events as f64,
        }
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

/// Runs a command on the bench's leash, with all its output in a file. Says whether it ended well; nothing when it did not
/// end within the limit, or could not begin.
async fn finished(bench: &Bench, mut command: Command, output: &Path, limit: Duration) -> Option<bool> {
    let file = File::create(output).expect("a file can be made");
    let errors = file.try_clone().expect("a file can be shared");
    let child = command.process_group(bench.group()).stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
    let mut child = child.ok()?;
    let ended = async || child.try_wait().expect("a child can be waited for");
    match tokio::time::timeout(limit, until("its end", limit * 2, ended)).await {
        Ok(status) => Some(status.success()),
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            None
        }
    }
}
