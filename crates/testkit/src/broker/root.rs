//! Where RabbitMQ is run from: this system, or another Debian in a folder.
//!
//! `VODRELAY_TEST_RABBITMQ_ROOT` names the folder of a Debian with rabbitmq-server in it (`scripts/make-debian` makes one). The
//! tests then run against that version of RabbitMQ. Only root can use it.

use std::path::Path;

/// The variable that names the folder.
const VARIABLE: &str = "VODRELAY_TEST_RABBITMQ_ROOT";

/// Where RabbitMQ's own scripts can be. Debian's wrappers in `/usr/sbin` insist on being a certain user.
const FOLDERS: [&str; 3] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin"];

/// Goes into the root `$1` with this system's `/proc`, `/dev` and folder for temporary files, and becomes the rest of its
/// arguments. The mounts are in a namespace of their own: they end with the last process in it.
const ENTER: &str = r#"
    root=$1; shared=$2; shift 2
    for place in /proc /dev "$shared"; do
        mkdir -p "$root$place" && mount --rbind "$place" "$root$place" || exit 1
    done
    exec chroot "$root" "$@""#;

/// What comes before a command so that it runs where RabbitMQ is. Empty on this system.
pub(super) fn entrance() -> Vec<String> {
    let Some(root) = root() else { return Vec::new() };
    let shared = std::env::temp_dir().display().to_string();
    ["unshare", "--mount", "sh", "-c", ENTER, "enter", &root, &shared].map(str::to_owned).to_vec()
}

/// The command of one of RabbitMQ's own scripts.
pub(super) fn tool(name: &str) -> Vec<String> {
    let root = root().unwrap_or_default();
    let paths = FOLDERS.map(|folder| format!("{folder}/{name}"));
    let found = paths.into_iter().find(|path| Path::new(&format!("{root}{path}")).exists());
    let missing =
        || panic!("{name} is in none of {root}{{{}}}: apt-get install rabbitmq-server", FOLDERS.join(","));
    let mut command = entrance();
    command.push(found.unwrap_or_else(missing));
    command
}

fn root() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|root| !root.is_empty())
}
