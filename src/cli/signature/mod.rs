//! `signature make`, `explain` and `serve`: signatures that let a client upload.

mod explain;
mod make;
mod serve;
mod try_out;

use tencent_vod::{CredentialSource, Credentials, CredentialsError, Places};
use vodrelay_core::error_code::ErrorCode;

use super::exit::{Exit, Failure};
use crate::config::signature::DEFAULT_PATH;

/// Give signatures that let a client upload, and look into them
#[derive(Debug, clap::Subcommand)]
pub(super) enum SignatureCommand {
    Make(make::Args),
    Explain(explain::Args),
    Serve(serve::Args),
}

pub(super) fn run(command: &SignatureCommand) -> Result<Exit, Failure> {
    match command {
        SignatureCommand::Make(args) => make::run(args),
        SignatureCommand::Explain(args) => explain::run(args),
        SignatureCommand::Serve(args) => serve::run(args),
    }
}

/// Where the key comes from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KeySource {
    /// The first that is there: systemd, environment, file, CVM role
    Auto,
    /// TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY
    Env,
    /// $TENCENTCLOUD_CREDENTIALS_FILE, else ~/.tencentcloud/credentials, else /etc/tencentcloud/credentials
    File,
    /// $CREDENTIALS_DIRECTORY/secret_id and secret_key
    Systemd,
}

impl KeySource {
    fn read(self) -> Result<Credentials, Failure> {
        let source = match self {
            Self::Auto => CredentialSource::Auto,
            Self::Env => CredentialSource::Env,
            Self::File => CredentialSource::File,
            Self::Systemd => CredentialSource::Systemd,
        };
        Ok(super::runtime()?.block_on(Places::new(source).read())?)
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        Self::new(Exit::Configuration, error).error_code(ErrorCode::NoCredentials)
    }
}
