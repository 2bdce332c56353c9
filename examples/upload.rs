//! Uploads a file as a library does it: `cargo run --example upload -- film.mp4`.
//!
//! It needs `TENCENTCLOUD_SECRET_ID` and `TENCENTCLOUD_SECRET_KEY` in the environment. `VOD_ENDPOINT` names a local VOD, such as
//! `vodrelay emulate --listen 127.0.0.1:8900` serves one: `VOD_ENDPOINT=http://127.0.0.1:8900`.

use std::error::Error;
use std::path::PathBuf;

use tencent_vod::upload::ApplyUpload;
use tencent_vod::upload::plan::UploadOutcome;
use tencent_vod::upload::record::{RecordFolder, UploadRecord};
use tencent_vod::upload::run::{self, CONCURRENCY, Work};
use tencent_vod::upload::source::SourceFile;
use tencent_vod::{Client, CredentialSource, Options, cos};
use tencent_vod_event::SubAppId;
use tokio::sync::{mpsc, watch};
use url::Url;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("name a file")?);
    let local = std::env::var("VOD_ENDPOINT").ok();
    let endpoint: Url = local.as_deref().unwrap_or("https://vod.tencentcloudapi.com").parse()?;
    tencent_vod::install_crypto_provider();
    let client = Client::new(Options::new(endpoint.clone(), CredentialSource::Env))?;
    let cos_endpoint = local.is_some().then(|| endpoint.clone());
    let storage =
        cos::Client::new(cos::Options { cos_endpoint: cos_endpoint.clone(), ..cos::Options::default() })?;

    let file = SourceFile::open(&path)?;
    let media_type =
        path.extension().and_then(|ending| ending.to_str()).ok_or("the name has no ending")?.to_lowercase();
    let apply =
        ApplyUpload { media_type, procedure: std::env::var("VOD_PROCEDURE").ok(), ..ApplyUpload::default() };

    // A later process can go on from what is written here. `vodrelay uploads` keeps its records in such a folder.
    let id = format!("{:08x}", fastrand::u32(..));
    let folder = RecordFolder::new(std::env::temp_dir().join("vodrelay-upload-example"));
    let held = folder.hold(&id)?;
    let began_at = jiff::Timestamp::now().as_second();
    let record = UploadRecord::new(
        id,
        path,
        file.identity(),
        Vec::new(),
        SubAppId(0),
        apply,
        endpoint,
        cos_endpoint,
        began_at,
    );

    let work = Work { client, storage, record, held, file, others: Vec::new(), concurrency: CONCURRENCY };
    let (_control, inputs) = mpsc::channel(1);
    let (figures, _seen) = watch::channel(run::UploadFigures::default());
    let end = run::run(work, inputs, figures).await;
    match end.outcome {
        UploadOutcome::Committed { medium, .. } => {
            println!("{}", medium.file_id);
            end.held.remove()?;
            Ok(())
        }
        outcome => Err(format!("{outcome:?}: {}", end.error.unwrap_or_default()).into()),
    }
}
