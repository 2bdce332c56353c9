//! A private RabbitMQ node for tests: its own folder, ports, cookie and port mapper, on loopback only.
//!
//! Most tests share one node ([`shared`]) and keep apart by names ([`unique`]); those that kill, freeze or block a node
//! start their own. A node takes about five seconds to start and 150 MB.

mod root;

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long a node may take to answer on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long anything else may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What no program should repeat.
pub const USER_PASSWORD: &str = "pw-8d2f61";

/// The node that tests share; it ends with the test process. Do not kill, freeze or block it.
pub async fn shared() -> &'static Broker {
    static SHARED: OnceCell<Broker> = OnceCell::const_new();
    SHARED.get_or_init(Broker::start).await
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A message as a consumer that is not the relay gets it.
#[derive(Clone, Debug)]
pub struct Received {
    pub routing_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Received {
    pub fn message_id(&self) -> String {
        self.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&lapin::types::AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }
}

/// What a TLS listener needs, in PEM.
#[derive(Clone, Debug)]
pub struct TlsListener {
    pub ca: String,
    pub certificate: String,
    pub key: String,
    /// Whether a client must show a certificate of that authority.
    pub client_certificate: bool,
}

/// What a node is started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// More lines for `rabbitmq.conf`.
    pub config: String,
    pub tls: Option<TlsListener>,
    /// The plugins that it runs with.
    pub plugins: Vec<&'static str>,
    /// The cluster that it joins at its first start.
    pub cluster: Option<Cluster>,
}

/// What the nodes of one cluster have in common, by its first node.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: String,
    cookie: String,
    mapper_port: u16,
}

/// One RabbitMQ node. Dropping it ends it and removes its folder.
pub struct Broker {
    // Dropped in this order: the node before the port mapper, and the folder last.
    node: Mutex<Option<Guarded>>,
    _port_mapper: Guarded,
    name: String,
    port: u16,
    mapper_port: u16,
    tls_port: Option<u16>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("name", &self.name).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts a node and waits until it speaks AMQP.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// As [`Broker::start`], with more configuration.
    pub async fn start_with(setup: Setup) -> Self {
        let broker = tokio::task::spawn_blocking(move || Self::launch(&setup)).await.unwrap();
        broker.wait_until_it_answers().await;
        broker
    }

    fn launch(setup: &Setup) -> Self {
        let folder = tempfile::Builder::new().prefix("vodrelay-rabbitmq-").tempdir().unwrap().keep();
        let [port, tls_port, dist_port, own_mapper_port] = free_ports();
        let mapper_port = setup.cluster.as_ref().map_or(own_mapper_port, |cluster| cluster.mapper_port);
        for name in ["home", "mnesia", "log"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let cookie = folder.join("home/.erlang.cookie");
        let shared = setup.cluster.as_ref().map(|cluster| cluster.cookie.clone());
        std::fs::write(&cookie, shared.unwrap_or_else(|| cookie_of(port))).unwrap();
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o400);
        std::fs::set_permissions(&cookie, owner_only).unwrap();
        std::fs::write(folder.join("plugins"), format!("[{}].\n", setup.plugins.join(","))).unwrap();
        std::fs::write(folder.join("rabbitmq.conf"), config(setup, &folder, port, tls_port)).unwrap();

        let name = format!("vodrelay{port}@localhost");
        let environment: Vec<(String, String)> = [
            ("HOME", path("home")),
            ("RABBITMQ_NODENAME", name.clone()),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_DIST_PORT", dist_port.to_string()),
            // The start script then becomes the node, so that one pid is the node's from beginning to end.
            ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput -kernel inet_dist_use_interface {127,0,0,1} +S 2:2".to_owned(),
            ),
            ("ERL_EPMD_PORT", mapper_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        // In a cluster the first node's is used, and this one has only its folder to remove.
        let mapper =
            ["epmd", "-port", &own_mapper_port.to_string(), "-address", "127.0.0.1"].map(str::to_owned);
        let port_mapper =
            Guarded::start(&[root::entrance(), mapper.to_vec()].concat(), &environment, &folder, true);
        let mut broker = Self {
            node: Mutex::new(None),
            _port_mapper: port_mapper,
            name,
            port,
            mapper_port,
            tls_port: setup.tls.as_ref().map(|_| tls_port),
            environment,
            folder,
        };
        *broker.node.get_mut().unwrap() = Some(broker.start_node());
        broker
    }

    fn start_node(&self) -> Guarded {
        Guarded::start(&root::tool("rabbitmq-server"), &self.environment, &self.folder, false)
    }

    async fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(Ok(connection)) =
                timeout(Duration::from_secs(5), Connection::connect(&self.url(), properties())).await
            {
                let _ = timeout(Duration::from_secs(5), connection.close(200, "it answers".into())).await;
                // Its listeners begin one after the other.
                let listens = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                if self.tls_port.is_none_or(listens) {
                    return;
                }
            }
            let log = || std::fs::read_to_string(self.folder.join("output.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "RabbitMQ did not answer within {START_LIMIT:?}:\n{}", log());
            let alive = self.node.lock().unwrap().as_ref().is_some_and(Guarded::alive);
            assert!(alive, "RabbitMQ ended before it answered:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For the nodes that are to join this one. It must outlive them.
    pub fn cluster(&self) -> Cluster {
        Cluster { name: self.name.clone(), cookie: cookie_of(self.port), mapper_port: self.mapper_port }
    }

    /// The node's name, as RabbitMQ shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A user that no other test uses, who may do everything, and what it connects with.
    pub async fn user(&self) -> User {
        let name = unique("user");
        let url = format!("amqp://{name}:{USER_PASSWORD}@127.0.0.1:{}/%2f", self.port);
        let user = User { name, url };
        self.make(&user).await;
        user
    }

    /// Makes the user, again if need be.
    pub async fn make(&self, user: &User) {
        self.ctl(&["add_user", &user.name, USER_PASSWORD]).await;
        self.ctl(&["set_permissions", &user.name, ".*", ".*", ".*"]).await;
    }

    /// The port of the TLS listener, if [`Setup::tls`] asked for one.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("this broker was started without TLS")
    }

    /// As `guest`, on the default virtual host.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// The process of the node.
    pub fn pid(&self) -> Pid {
        self.node.lock().unwrap().as_ref().expect("the node is not running").pid
    }

    /// Kills the node like a power cut: SIGKILL. Clients see the connection end.
    pub async fn kill(&self) {
        let node = self.node.lock().unwrap().take().expect("the node is not running");
        // Its guardian kills it; a frozen node dies too.
        tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
    }

    /// Starts the node again after [`Broker::kill`], with the same data and ports, and waits until it answers.
    pub async fn start_again(&self) {
        {
            let mut node = self.node.lock().unwrap();
            assert!(node.is_none(), "the node is running");
            *node = Some(self.start_node());
        }
        self.wait_until_it_answers().await;
    }

    /// Stops the node's process: its sockets stay open and nothing answers.
    pub fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    /// Runs `rabbitmqctl` against the node and returns what it printed. It must succeed.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let tool = root::tool("rabbitmqctl");
        let mut command = Command::new(&tool[0]);
        command
            .args(&tool[1..])
            .arg("--quiet")
            .args(["--node", &self.name])
            .args(["--timeout", "30"])
            .args(arguments);
        command
            .envs(self.environment.iter().cloned())
            .env_remove("RABBITMQ_ALLOW_INPUT")
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {printed}{complaint}");
        printed
    }

    /// Raises the memory alarm: whoever publishes from now on gets `connection.blocked`.
    pub async fn raise_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    }

    /// Clears the memory alarm.
    pub async fn clear_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.8"]).await;
    }

    /// A connection and a channel of a client that is not the relay.
    pub async fn channel(&self) -> (Connection, Channel) {
        let connect = async {
            let connection = Connection::connect(&self.url(), properties()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            (connection, channel)
        };
        timeout(LIMIT, connect).await.expect("the broker did not answer")
    }

    /// How many messages are ready in a queue.
    pub async fn queue_len(&self, queue: &str) -> u32 {
        let (connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
        let _ = timeout(LIMIT, connection.close(200, "counted".into())).await;
        queue.message_count()
    }

    /// Waits until `count` messages have come, takes whatever else is there, and returns and acks them all.
    pub async fn drain(&self, queue: &str, count: usize) -> Vec<Received> {
        let (connection, channel) = self.channel().await;
        let mut received = Vec::new();
        let everything = async {
            loop {
                match channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap() {
                    Some(message) => {
                        message.acker.ack(BasicAckOptions::default()).await.unwrap();
                        let delivery = message.delivery;
                        received.push(Received {
                            routing_key: delivery.routing_key.to_string(),
                            properties: delivery.properties,
                            body: delivery.data,
                        });
                    }
                    None if received.len() >= count => break,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let in_time = timeout(LIMIT, everything).await.is_ok();
        assert!(in_time, "{} of {count} messages came to {queue}", received.len());
        let _ = timeout(LIMIT, connection.close(200, "drained".into())).await;
        received
    }

    /// Waits until a quorum queue that was just declared would survive a kill: RabbitMQ 3.10.8 writes the names of its
    /// queues' logs to disk a moment after the declaration, and without the name the queue comes back empty (measured).
    pub async fn settle(&self) {
        // A process that tells nobody writes them every half second; a sync of its table is that write, now.
        let sync =
            "ok = dets:sync(maps:get(directory_rev, maps:get(names, ra_system:fetch(quorum_queues)))).";
        self.ctl(&["eval", sync]).await;
    }
}

/// Who a relay is at a broker.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub url: String,
}

fn cookie_of(port: u16) -> String {
    format!("vodrelay{port}")
}

fn properties() -> ConnectionProperties {
    ConnectionProperties::default().with_connection_name("test".into())
}

fn config(setup: &Setup, folder: &Path, port: u16, tls_port: u16) -> String {
    let mut lines = format!("listeners.tcp.1 = 127.0.0.1:{port}\n");
    if let Some(tls) = &setup.tls {
        lines += &format!("listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.verify = verify_peer\n");
        lines += &format!("ssl_options.fail_if_no_peer_cert = {}\n", tls.client_certificate);
        for (option, pem) in [("cacertfile", &tls.ca), ("certfile", &tls.certificate), ("keyfile", &tls.key)]
        {
            let path = folder.join(format!("{option}.pem"));
            std::fs::write(&path, pem).unwrap();
            lines += &format!("ssl_options.{option} = {}\n", path.to_str().unwrap());
        }
    }
    if let Some(cluster) = &setup.cluster {
        lines += "cluster_formation.peer_discovery_backend = classic_config\n";
        lines += &format!("cluster_formation.classic_config.nodes.1 = {}\n", cluster.name);
    }
    lines + &setup.config
}

/// Four ports that were free a moment ago, and differ.
fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A process that cannot outlive this one.
///
/// Its parent is a shell that waits for the end of its standard input, a pipe that this process holds: however this process
/// ends, the pipe closes, and the shell kills its child. The child stays unreaped until then, so that its pid is its own.
struct Guarded {
    guardian: Child,
    pid: Pid,
}

impl Guarded {
    fn start(command: &[String], env: &[(String, String)], folder: &Path, remove: bool) -> Self {
        // The folder goes in a second try too, because the node may be writing its last words.
        const GUARDIAN: &str = r#"
            folder=$1; remove=$2; shift 2
            "$@" </dev/null >>"$folder/output.log" 2>&1 &
            echo $!
            read -r _
            kill -9 $! 2>/dev/null
            wait $! 2>/dev/null
            if [ "$remove" = true ]; then rm -rf "$folder"; sleep 0.2; rm -rf "$folder"; fi"#;
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(folder)
            .arg(if remove { "true" } else { "false" })
            .args(command)
            .envs(env.iter().cloned())
            .env_remove("NOTIFY_SOCKET")
            .current_dir("/")
            // Out of reach of a Ctrl-C, which would end the guardian before its duty.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(guardian.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().expect("the guardian prints the pid of its child"));
        Self { guardian, pid }
    }

    fn alive(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // "pid (name) state ...": a zombie has ended.
        status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}
