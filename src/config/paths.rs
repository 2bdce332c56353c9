//! Whether the files that the relay writes are separate. A file that is another one, or lies inside it, would
//! destroy it or could not be created.

use std::path::{Component, Path, PathBuf};

use super::Config;

type KeyName = (&'static str, &'static str);

/// A path of the configuration, or a path beside it.
struct Used {
    key: KeyName,
    path: PathBuf,
    /// The suffix of the key's path.
    suffix: &'static str,
    /// The relay writes there.
    written: bool,
    folder: bool,
}

impl Used {
    fn named(&self) -> String {
        let (section, name) = self.key;
        match self.suffix {
            "" => format!("{section}.{name}"),
            suffix => format!("{section}.{name} with {suffix}"),
        }
    }
}

/// The first two paths that conflict, and why.
pub(super) fn conflict(config: &Config) -> Option<([KeyName; 2], String)> {
    let used = used(config);
    for (at, one) in used.iter().enumerate() {
        for other in &used[at + 1..] {
            if one.key == other.key || !(one.written || other.written) {
                continue;
            }
            let problem = if one.path == other.path {
                "are the same"
            } else if !one.folder && other.path.starts_with(&one.path) {
                "cannot both be: the first is a file, and the second lies in it"
            } else if !other.folder && one.path.starts_with(&other.path) {
                "cannot both be: the second is a file, and the first lies in it"
            } else {
                continue;
            };
            let message = format!(
                "{} and {} {problem} ({}); give each a path of its own",
                one.named(),
                other.named(),
                one.path.display()
            );
            return Some(([one.key, other.key], message));
        }
    }
    None
}

fn used(config: &Config) -> Vec<Used> {
    let file = |key, path: &Path, suffix: &'static str, written| {
        let mut name = resolved(path).into_os_string();
        name.push(suffix);
        Used { key, path: name.into(), suffix, written, folder: false }
    };
    let journal = ("journal", "path");
    let mut used: Vec<Used> = ["", "-wal", "-shm", "-journal", ".lock"]
        .map(|suffix| file(journal, &config.journal.path, suffix, true))
        .into();
    if let Some(socket) = &config.status.socket {
        used.push(file(("status", "socket"), socket, "", true));
    }
    if let Some(folder) = &config.maintenance.backup_dir {
        let key = ("maintenance", "backup_dir");
        used.push(Used { folder: true, ..file(key, folder, "", true) });
    }
    let amqp = &config.amqp;
    let read = [
        ("ca_file", &amqp.tls.ca_file),
        ("client_cert_file", &amqp.tls.client_cert_file),
        ("client_key_file", &amqp.tls.client_key_file),
    ];
    for (name, path) in read {
        if let Some(path) = path {
            used.push(file(("amqp", name), path, "", false));
        }
    }
    used
}

/// The path without links, as far as it exists, and without `.` and `..`.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (existing.canonicalize(), absolute.strip_prefix(existing)) {
            return plain(&real.join(rest));
        }
    }
    plain(&absolute)
}

fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(journal: &Path, socket: &Path, backups: Option<&Path>) -> Option<String> {
        let mut config = Config::default();
        config.journal.path = journal.to_owned();
        config.status.socket = Some(socket.to_owned());
        config.maintenance.backup_dir = backups.map(Path::to_owned);
        conflict(&config).map(|(_, message)| message)
    }

    #[test]
    fn files_that_are_one_or_lie_in_each_other_are_refused_however_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        let journal = real.join("journal.db");
        for socket in [
            journal.clone(),
            real.join("./x/../journal.db"),
            folder.path().join("link/journal.db"),
            real.join("journal.db-wal"),
            real.join("journal.db-shm"),
            real.join("journal.db.lock"),
            real.join("journal.db/status.sock"),
            real.clone(),
        ] {
            let told = told(&journal, &socket, None);
            assert!(told.is_some_and(|told| told.contains("status.socket")), "{}", socket.display());
        }
        let socket = real.join("status.sock");
        assert_eq!(told(&journal, &socket, None), None);
        assert_eq!(told(&journal, &socket, Some(&real)), None, "copies may lie beside the journal");
        for backups in [&journal, &socket, &socket.join("backups"), &journal.join("backups")] {
            assert!(told(&journal, &socket, Some(backups)).is_some(), "{}", backups.display());
        }
    }

    #[test]
    fn a_file_that_is_read_is_not_one_that_is_written() {
        let mut config = Config::default();
        config.amqp.tls.ca_file = Some("/etc/x.pem".into());
        config.amqp.tls.client_cert_file = Some("/etc/x.pem".into());
        config.amqp.tls.client_key_file = Some("/etc/x.pem".into());
        assert!(conflict(&config).is_none(), "one PEM file can hold all of it");
        config.status.socket = Some("/etc/x.pem".into());
        assert!(conflict(&config).is_some());
    }
}
