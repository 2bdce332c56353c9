//! The catalogue of problems: one error code for each, the same in the log, the metrics, the health page, the
//! journal, `vodrelay check`, `vodrelay status` and `docs/runbook.md`.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! catalogue {
    ($($name:ident = $code:literal, $summary:literal;)*) => {
        /// What is wrong. A code never gets another meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = concat!($code, ": ", $summary, ".")] $name,)*
        }

        impl ErrorCode {
            /// Every error code, in the order of the codes.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code: `VR-` and three digits. The first digit is the area: 1 the setup, 2 the journal, 3
            /// the cloud, 4 RabbitMQ, 5 the relay itself, 6 the signature server.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The meaning in a few words, as in the runbook's heading.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$name => $summary),* }
            }
        }
    };
}

catalogue! {
    ConfigurationWrong = "VR-101", "The configuration is wrong";
    NoCredentials = "VR-102", "There are no usable credentials";
    NeedsRestart = "VR-103", "A changed setting needs a restart";
    ConfigurationDoubtful = "VR-104", "The configuration works, and something about it is doubtful";
    JournalInUse = "VR-201", "The journal is in use by another process";
    JournalDamaged = "VR-202", "The journal is damaged";
    JournalUnusable = "VR-203", "The journal's file cannot be used";
    DiskFull = "VR-204", "The journal's disk is full";
    JournalLocked = "VR-205", "The journal is locked by another program";
    JournalNotWritable = "VR-206", "The journal cannot be written";
    JournalIo = "VR-207", "The journal's disk fails";
    JournalFailed = "VR-208", "The journal failed for good";
    JournalCopied = "VR-209", "The journal is a copy";
    Throttled = "VR-301", "Calls are throttled, and nothing else";
    CredentialsRejected = "VR-302", "The cloud rejects the credentials";
    ClockWrong = "VR-303", "The host's clock is wrong";
    CloudUnreachable = "VR-304", "The cloud cannot be reached, or fails";
    RequestRejected = "VR-305", "The cloud rejects a request";
    AccountWrong = "VR-306", "The account is set up wrongly";
    NoPull = "VR-307", "No pull has succeeded for too long";
    NoConfirm = "VR-308", "Confirms do not get through";
    NotUtf8 = "VR-309", "An event is not UTF-8";
    BrokerUnreachable = "VR-401", "RabbitMQ cannot be reached";
    BrokerLogin = "VR-402", "RabbitMQ refuses the login";
    BrokerTopology = "VR-403", "The exchange or the queue is missing, or of another kind";
    BrokerBlocked = "VR-404", "RabbitMQ blocks publishers";
    PublishNacked = "VR-405", "RabbitMQ nacks publishes";
    PublishReturned = "VR-406", "A publish was returned: no queue is bound for it";
    PublishRefused = "VR-407", "RabbitMQ closes the channel because of a publish";
    PublishUnanswered = "VR-408", "A publish has no answer";
    BrokerTls = "VR-409", "TLS to RabbitMQ fails";
    NoPublish = "VR-410", "Publishes do not get through";
    Stuck = "VR-501", "Work waits and nothing moves";
    DrainCutOff = "VR-502", "A drain was cut off";
    Maintenance = "VR-503", "Maintenance failed, or is overdue";
    Backup = "VR-504", "A backup failed";
    LoopStuck = "VR-505", "A loop is stuck";
    Parked = "VR-506", "An event was parked";
    ReloadRefused = "VR-507", "A reload was refused";
    ListenerFailed = "VR-508", "The status socket or the HTTP listener cannot be opened";
    SwitchUnreachable = "VR-509", "The dead man's switch cannot be called";
    ManagerUnreachable = "VR-510", "The service manager cannot be told how things stand";
    Bug = "VR-511", "The program met a bug of its own";
    LogDropped = "VR-512", "Lines of the log were dropped";
    TokenUnusable = "VR-601", "A caller's token cannot be used";
    CannotSign = "VR-602", "The signature server cannot sign";
    TokenRefused = "VR-603", "Requests for signatures come from no known caller";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_are_well_formed() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!(pair[0].as_str() < pair[1].as_str(), "{pair:?}");
        }
        for code in ErrorCode::ALL {
            let digits = code.as_str().strip_prefix("VR-").unwrap();
            assert!(digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()), "{code}");
            assert!(!code.summary().ends_with('.'), "{code}");
        }
    }
}
