//! Begins an upload, or goes on with one that an earlier process left.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tencent_vod::upload::ApplyUpload;
use tencent_vod::upload::record::{HeldRecord, OtherFile, RESUMABLE_SECONDS, RecordFolder, UploadRecord};
use tencent_vod::upload::run::Work;
use tencent_vod::upload::source::SourceFile;
use tencent_vod::{Client, FailureKind, cos};
use tencent_vod_event::SubAppId;
use url::Url;

use super::{How, What, manifest, places, record_failure, source_failure, state_folder};
use crate::app;
use crate::cli::exit::{Exit, Failure};
use crate::cloud;
use crate::config::Config;

/// An upload that can run.
pub(super) struct PreparedUpload {
    pub(super) work: Work,
    pub(super) resumed: bool,
}

/// What all uploads of a command share.
pub(super) struct UploadStarter {
    pub(super) folder: RecordFolder,
    how: How,
    config: Config,
}

impl UploadStarter {
    pub(super) fn new(how: &How, config: &Config) -> Result<Self, Failure> {
        Ok(Self {
            folder: state_folder(how.who.state_dir.as_deref())?,
            how: how.clone(),
            config: config.clone(),
        })
    }

    fn client(&self, endpoint: &Url) -> Result<Client, Failure> {
        let mut config = self.config.clone();
        config.vod.endpoint = endpoint.clone();
        let options = app::client_options(&config, places(&self.how));
        Client::new(options).map_err(|error| Failure::new(Exit::Configuration, error))
    }

    /// Begins an upload of a file, or goes on with one that was stopped.
    pub(super) async fn begin(
        &self,
        what: &What,
        path: &Path,
        restart: bool,
    ) -> Result<PreparedUpload, Failure> {
        let path = std::path::absolute(path).map_err(|error| Failure::new(Exit::Failure, error))?;
        let file = SourceFile::open(&path).map_err(source_failure)?;
        let endpoint = self.how.place.endpoint.clone().unwrap_or_else(|| self.config.vod.endpoint.clone());
        let mut apply = asked(what, &path)?;
        let client = self.client(&endpoint)?;
        let sub_app = SubAppId(what.sub_app);
        if let Some(earlier) = self.earlier(&path, &file, what, &apply, restart)? {
            return self.resume(&earlier, Some(file));
        }
        if let Some(region) = &what.storage_region {
            check_region(&client, sub_app, region).await?;
        }
        let mut others = Vec::new();
        if let Some(cover) = &what.cover {
            others.push(other(
                std::path::absolute(cover).map_err(|error| Failure::new(Exit::Failure, error))?,
                None,
            )?);
            apply.cover_type = Some(ending(cover).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("{} has no ending that tells its type", cover.display()))
                    .next("name a picture like cover.jpg")
            })?);
        }
        for (segment, name) in manifest::segments(&client, sub_app, &path, &apply.media_type).await? {
            others.push(other(segment, Some(name))?);
        }
        let id = format!("{:08x}", fastrand::u32(..));
        let held = self.folder.hold(&id).map_err(record_failure)?;
        let began_at = vodrelay_host::wall_clock_ms() / 1_000;
        let cos_endpoint = self.cos_endpoint(&endpoint);
        let record = UploadRecord::new(
            id,
            path,
            file.identity(),
            others,
            sub_app,
            apply,
            endpoint,
            cos_endpoint,
            began_at,
        );
        self.work(client, record, held, file, false)
    }

    /// An earlier upload of the same file with the same wishes, that can be gone on with.
    fn earlier(
        &self,
        path: &Path,
        file: &SourceFile,
        what: &What,
        apply: &ApplyUpload,
        restart: bool,
    ) -> Result<Option<String>, Failure> {
        let records = self.folder.list().map_err(record_failure)?;
        let now_s = vodrelay_host::wall_clock_ms() / 1_000;
        for record in records.into_iter().flatten().filter(|record| record.path == path) {
            let id = &record.id;
            let expired = record.resumable_until().is_some_and(|until| until <= now_s);
            if record.may_be_committed() {
                // Another upload could make a second medium of it.
                return Ok(Some(record.id));
            }
            if restart || expired || record.identity != file.identity() {
                let why = if expired {
                    format!("it began more than {} h ago", RESUMABLE_SECONDS / 3_600)
                } else if restart {
                    "--restart".to_owned()
                } else {
                    "the file has changed since".to_owned()
                };
                say(&format!("an earlier upload of it ({id}) is dropped: {why}"));
                self.folder.hold(id).map_err(record_failure)?.remove().map_err(record_failure)?;
                continue;
            }
            let same = ApplyUpload { cover_type: None, ..record.apply.clone() } == *apply
                && record.sub_app == what.sub_app;
            if !same {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("an upload of {} with other options is not done yet ({id})", path.display()),
                )
                .next(format!(
                    "`vodrelay uploads resume {id}` goes on with it, `vodrelay uploads abort {id}` drops it, --restart begins a new one"
                )));
            }
            return Ok(Some(record.id));
        }
        Ok(None)
    }

    /// Goes on with the upload of this name.
    pub(super) fn resume(&self, id: &str, file: Option<SourceFile>) -> Result<PreparedUpload, Failure> {
        let held = self.folder.hold(id).map_err(record_failure)?;
        let record = match self.folder.read(id) {
            Ok(record) => record,
            Err(error) => {
                // The name of a record that is not there.
                let _ = held.remove();
                return Err(record_failure(error));
            }
        };
        let file = match file {
            Some(file) => file,
            None => SourceFile::open(&record.path).map_err(source_failure)?,
        };
        say(&format!("going on with the upload {id} of {}", record.path.display()));
        let client = self.client(&record.endpoint)?;
        self.work(client, record, held, file, true)
    }

    fn cos_endpoint(&self, endpoint: &Url) -> Option<Url> {
        let given = self.how.place.cos_endpoint.clone();
        given.or_else(|| (endpoint.scheme() == "http").then(|| endpoint.clone()))
    }

    fn work(
        &self,
        client: Client,
        mut record: UploadRecord,
        held: HeldRecord,
        file: SourceFile,
        resumed: bool,
    ) -> Result<PreparedUpload, Failure> {
        let opened = record.others.iter().map(|other| SourceFile::open(&other.path));
        let others = opened.collect::<Result<Vec<_>, _>>().map_err(source_failure)?;
        let mut options =
            cos::Options { cos_endpoint: record.cos_endpoint.clone(), ..cos::Options::default() };
        if let Some(rate) = self.how.speed.bwlimit {
            options.traffic = Arc::new(cos::Traffic::limited(rate));
        }
        options.user_agent = cloud::USER_AGENT;
        options.observer = cloud::observer();
        let storage = cos::Client::new(options).map_err(|error| Failure::new(Exit::Configuration, error))?;
        record.process = Some(std::process::id());
        if resumed {
            held.write(&record).map_err(record_failure)?;
        }
        let work =
            Work { client, storage, record, held, file, others, concurrency: self.how.speed.concurrency };
        Ok(PreparedUpload { work, resumed })
    }
}

/// A line for the person who looks on.
pub(super) fn say(text: &str) {
    // Standard error may be closed; then there is no reader.
    let _ = writeln!(io::stderr(), "{text}");
}

fn other(path: PathBuf, beside: Option<String>) -> Result<OtherFile, Failure> {
    let identity = SourceFile::open(&path).map_err(source_failure)?.identity();
    Ok(OtherFile { path, identity, beside })
}

/// The ending of a file's name, as the cloud wants a type.
fn ending(path: &Path) -> Option<String> {
    path.extension().and_then(OsStr::to_str).filter(|ending| !ending.is_empty()).map(str::to_lowercase)
}

fn asked(what: &What, path: &Path) -> Result<ApplyUpload, Failure> {
    let media_type = what.media_type.clone().or_else(|| ending(path)).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{} has no ending that tells its type", path.display()))
            .next("give the type, like --type mp4")
    })?;
    let media_name = what.name.clone().or_else(|| Some(path.file_stem()?.to_string_lossy().into_owned()));
    Ok(ApplyUpload {
        media_type,
        media_name,
        cover_type: None,
        procedure: what.procedure.clone(),
        expire_time: what.expires.clone(),
        storage_region: what.storage_region.clone(),
        class_id: what.class_id,
        source_context: what.source_context.clone(),
        session_context: what.session_context.clone(),
    })
}

/// Whether the application can store there: an upload that is refused after an hour is worse.
async fn check_region(client: &Client, sub_app: SubAppId, region: &str) -> Result<(), Failure> {
    match client.describe_storage_regions(sub_app).await {
        Ok(open) if open.iter().any(|known| known == region) => Ok(()),
        Ok(open) => Err(Failure::new(
            Exit::Usage,
            format!("the application cannot store in {region}; it can in {}", open.join(", ")),
        )
        .next("switch the region on in the console, or choose another")),
        // A key without the right to ask may have the right to upload.
        Err(error) if error.failure == FailureKind::Configuration => {
            say(&format!("the region {region} cannot be checked: {error}"));
            Ok(())
        }
        Err(error) => Err(Failure::new(Exit::Temporary, error)),
    }
}
