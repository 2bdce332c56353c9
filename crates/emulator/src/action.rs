//! The actions of the emulator, by their names in the documents.

use serde::{Deserialize, Serialize};

/// The service of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The API 3.0: `POST /` with the action in a header, or in a form under signature v1.
    Api,
    /// The API of the web SDK: `POST /v3/index.php?Action=…`.
    Ugc,
    /// The object storage. Method, path and query select the action.
    Cos,
}

/// An action of the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Takes up to sixteen events.
    PullEvents,
    /// Deletes events by their handles.
    ConfirmEvents,
    /// Reports how many events wait.
    DescribeEventsState,
    /// Reports how an application is notified.
    DescribeEventConfig,
    /// Sets how an application is notified.
    ModifyEventConfig,
    /// Returns a place for an upload, and a temporary key.
    ApplyUpload,
    /// Makes a medium of an upload.
    CommitUpload,
    /// Lists the files in a manifest.
    ParseStreamingManifest,
    /// Lists the storage regions.
    DescribeStorageRegions,
    /// Starts tasks on a medium.
    ProcessMedia,
    /// Lists the storage regions, for the web SDK.
    PrepareUploadUGC,
    /// Like [`Action::ApplyUpload`], for the web SDK. It also renews the temporary key of an upload.
    ApplyUploadUGC,
    /// Like [`Action::CommitUpload`], for the web SDK.
    CommitUploadUGC,
    /// Stores an object.
    PutObject,
    /// Reports size and digests of an object.
    HeadObject,
    /// Fetches an object.
    GetObject,
    /// Begins a multipart upload.
    InitiateMultipartUpload,
    /// Stores a part.
    UploadPart,
    /// Lists the parts of an upload.
    ListParts,
    /// Lists the multipart uploads in progress.
    ListMultipartUploads,
    /// Makes an object of the parts.
    CompleteMultipartUpload,
    /// Deletes the parts.
    AbortMultipartUpload,
}

const API: [Action; 10] = [
    Action::PullEvents,
    Action::ConfirmEvents,
    Action::DescribeEventsState,
    Action::DescribeEventConfig,
    Action::ModifyEventConfig,
    Action::ApplyUpload,
    Action::CommitUpload,
    Action::ParseStreamingManifest,
    Action::DescribeStorageRegions,
    Action::ProcessMedia,
];

impl Action {
    /// All of them.
    pub const ALL: [Action; 22] = [
        Self::PullEvents,
        Self::ConfirmEvents,
        Self::DescribeEventsState,
        Self::DescribeEventConfig,
        Self::ModifyEventConfig,
        Self::ApplyUpload,
        Self::CommitUpload,
        Self::ParseStreamingManifest,
        Self::DescribeStorageRegions,
        Self::ProcessMedia,
        Self::PrepareUploadUGC,
        Self::ApplyUploadUGC,
        Self::CommitUploadUGC,
        Self::PutObject,
        Self::HeadObject,
        Self::GetObject,
        Self::InitiateMultipartUpload,
        Self::UploadPart,
        Self::ListParts,
        Self::ListMultipartUploads,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
    ];

    /// The name in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::PullEvents => "PullEvents",
            Self::ConfirmEvents => "ConfirmEvents",
            Self::DescribeEventsState => "DescribeEventsState",
            Self::DescribeEventConfig => "DescribeEventConfig",
            Self::ModifyEventConfig => "ModifyEventConfig",
            Self::ApplyUpload => "ApplyUpload",
            Self::CommitUpload => "CommitUpload",
            Self::ParseStreamingManifest => "ParseStreamingManifest",
            Self::DescribeStorageRegions => "DescribeStorageRegions",
            Self::ProcessMedia => "ProcessMedia",
            Self::PrepareUploadUGC => "PrepareUploadUGC",
            Self::ApplyUploadUGC => "ApplyUploadUGC",
            Self::CommitUploadUGC => "CommitUploadUGC",
            Self::PutObject => "PutObject",
            Self::HeadObject => "HeadObject",
            Self::GetObject => "GetObject",
            Self::InitiateMultipartUpload => "InitiateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::ListParts => "ListParts",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
        }
    }

    /// Its service.
    pub fn service(self) -> Service {
        match self {
            _ if API.contains(&self) => Service::Api,
            Self::PrepareUploadUGC | Self::ApplyUploadUGC | Self::CommitUploadUGC => Service::Ugc,
            _ => Service::Cos,
        }
    }

    /// The action of a service by its name.
    pub(super) fn from_name(service: Service, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.service() == service && action.name() == name)
    }

    /// Whether it is an action of the API about media.
    pub(super) fn is_about_media(self) -> bool {
        API[5..].contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_variants_and_each_service_knows_its_own() {
        for action in Action::ALL {
            assert_eq!(format!("{action:?}"), action.name());
            assert_eq!(Action::from_name(action.service(), action.name()), Some(action));
        }
        assert_eq!(Action::from_name(Service::Api, "UploadPart"), None);
        assert_eq!(Action::from_name(Service::Cos, "PullEvents"), None);
        let of = |service| Action::ALL.into_iter().filter(|action| action.service() == service).count();
        assert_eq!((of(Service::Api), of(Service::Ugc), of(Service::Cos)), (10, 3, 9));
        assert!(Action::ApplyUpload.is_about_media() && !Action::ModifyEventConfig.is_about_media());
    }
}
