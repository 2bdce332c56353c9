//! The object storage as a model: objects and multipart uploads, without HTTP and without a clock.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde::Serialize;

use super::content::{Digests, Kept, Memory, Received, Reserved, combine};
use crate::cos::CosError;

/// The number of objects that are kept.
const MAX_OBJECTS: usize = 100_000;

/// The largest number of multipart uploads in progress.
const MAX_UPLOADS: usize = 10_000;

/// The number of completed uploads that are kept, for repeated requests.
const MAX_COMPLETED: usize = 10_000;

/// The highest part number.
pub(crate) const MAX_PART: u16 = 10_000;

/// Bucket and key of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct ObjectKey {
    /// The bucket, with the number of the account: `name-1500004321`.
    pub(crate) bucket: String,
    /// The key, without a leading slash.
    pub(crate) key: String,
}

/// An object.
#[derive(Clone, Debug)]
pub(crate) struct StoredObject {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The MD5 of the whole content. `None` if the parts arrived in an order that needed too much memory.
    pub(crate) md5: Option<[u8; 16]>,
    /// CRC-64/XZ of the whole content.
    pub(crate) crc64: u64,
    /// The entity tag, without quotes.
    pub(crate) etag: String,
    /// The number of its parts; 0 after a single PUT.
    pub(crate) parts: u16,
    /// How often a part was stored. It is more than `parts` if parts were sent again.
    pub(crate) parts_stored: u64,
    pub(super) content: Option<Vec<Kept>>,
}

impl StoredObject {
    /// The content, if it is kept.
    pub(crate) fn content(&self) -> Option<Vec<u8>> {
        let content = self.content.as_ref()?;
        Some(content.iter().flat_map(|kept| kept.bytes.iter().copied()).collect())
    }

    /// The content in pieces, if it is kept.
    pub(crate) fn pieces(&self) -> Option<Vec<Bytes>> {
        Some(self.content.as_ref()?.iter().map(|kept| kept.bytes.clone()).collect())
    }
}

/// A part of a multipart upload in progress.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) digests: Digests,
    pub(crate) modified_ms: i64,
    kept: Option<Kept>,
}

impl Part {
    /// The entity tag, without quotes: the part's MD5.
    pub(crate) fn etag(&self) -> String {
        hex::encode(self.digests.md5)
    }
}

/// A multipart upload in progress.
#[derive(Debug)]
pub(crate) struct MultipartUpload {
    pub(crate) place: ObjectKey,
    pub(crate) initiated_ms: i64,
    pub(crate) parts: BTreeMap<u16, Part>,
    parts_stored: u64,
    /// The MD5 of the parts from 1 to `through`.
    whole: Md5,
    through: u16,
    /// Whether a request computes it now.
    hashing: bool,
}

impl MultipartUpload {
    fn size(&self) -> u64 {
        self.parts.values().map(|part| part.digests.size).sum()
    }

    /// The MD5 of these parts together, if it is known.
    fn md5(&self, numbers: &[u16]) -> Option<[u8; 16]> {
        let hashed = usize::from(self.through);
        let goes_on = numbers.len() >= hashed && numbers.iter().zip(1..=self.through).all(|(n, i)| *n == i);
        let (mut whole, left) =
            if goes_on { (self.whole.clone(), &numbers[hashed..]) } else { (Md5::new(), numbers) };
        for number in left {
            whole.update(&self.parts.get(number)?.kept.as_ref()?.bytes);
        }
        Some(whole.finalize().into())
    }
}

/// The next part for the MD5 of the file.
pub(crate) struct HashJob {
    number: u16,
    whole: Md5,
    kept: Kept,
}

impl HashJob {
    /// Computes the MD5. It needs no lock.
    pub(crate) fn run(mut self) -> (u16, Md5) {
        self.whole.update(&self.kept.bytes);
        (self.number, self.whole)
    }
}

/// A completed upload.
#[derive(Debug, Clone)]
pub(crate) struct Completed {
    pub(crate) place: ObjectKey,
    pub(crate) etag: String,
    pub(crate) crc64: u64,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct ObjectStore {
    objects: BTreeMap<ObjectKey, StoredObject>,
    /// The oldest first.
    order: VecDeque<ObjectKey>,
    uploads: BTreeMap<String, MultipartUpload>,
    completed: BTreeMap<String, Completed>,
    completed_order: VecDeque<String>,
    memory: Memory,
    made: u64,
}

impl ObjectStore {
    /// Reserves memory for content. The content of the oldest objects is dropped for it.
    pub(crate) fn reserve(&mut self, bytes: u64, limit: u64) -> Option<Reserved> {
        if bytes > limit {
            return None;
        }
        loop {
            if let Some(reserved) = self.memory.reserve(bytes, limit) {
                return Some(reserved);
            }
            let holds =
                |place: &&ObjectKey| self.objects.get(place).is_some_and(|object| object.content.is_some());
            let oldest = self.order.iter().find(holds).cloned()?;
            self.objects.get_mut(&oldest)?.content = None;
        }
    }

    /// The bytes of content in memory.
    pub(crate) fn memory_taken(&self) -> u64 {
        self.memory.taken()
    }

    pub(crate) fn object(&self, place: &ObjectKey) -> Option<&StoredObject> {
        self.objects.get(place)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &StoredObject)> {
        self.objects.iter()
    }

    fn insert(&mut self, place: ObjectKey, object: StoredObject) {
        self.order.retain(|other| *other != place);
        self.order.push_back(place.clone());
        self.objects.insert(place, object);
        while self.objects.len() > MAX_OBJECTS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.objects.remove(&oldest);
        }
    }

    /// Stores the object of a single PUT.
    pub(crate) fn put(&mut self, place: ObjectKey, received: Received, keep_bytes: u64) {
        let Digests { size, md5, crc64 } = received.digests;
        let content = received.kept.filter(|_| size <= keep_bytes).map(|kept| vec![kept]);
        let etag = hex::encode(md5);
        self.insert(
            place,
            StoredObject { size, md5: Some(md5), crc64, etag, parts: 0, parts_stored: 0, content },
        );
    }

    /// Begins a multipart upload.
    pub(crate) fn initiate(
        &mut self,
        place: ObjectKey,
        now_ms: i64,
        random: u64,
    ) -> Result<String, CosError> {
        if self.uploads.len() >= MAX_UPLOADS {
            return Err(CosError::with_message(
                "SlowDown",
                "more uploads are under way than this emulator holds",
            ));
        }
        self.made += 1;
        let id = format!("{:013}{random:016x}{:08x}", now_ms, self.made);
        let upload = MultipartUpload {
            place,
            initiated_ms: now_ms,
            parts: BTreeMap::new(),
            parts_stored: 0,
            whole: Md5::new(),
            through: 0,
            hashing: false,
        };
        self.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    /// Deletes uploads that began before this moment.
    pub(crate) fn expire(&mut self, begun_before_ms: i64) {
        self.uploads.retain(|_, upload| upload.initiated_ms >= begun_before_ms);
    }

    /// The upload with this id and place.
    pub(crate) fn upload(&self, place: &ObjectKey, id: &str) -> Result<&MultipartUpload, CosError> {
        let upload = self.uploads.get(id).filter(|upload| upload.place == *place);
        upload.ok_or_else(|| CosError::new("NoSuchUpload"))
    }

    fn upload_mut(&mut self, place: &ObjectKey, id: &str) -> Result<&mut MultipartUpload, CosError> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.place == *place);
        upload.ok_or_else(|| CosError::new("NoSuchUpload"))
    }

    /// The multipart uploads of a bucket, by key and id.
    pub(crate) fn uploads(&self, bucket: &str) -> Vec<(&str, &str, &MultipartUpload)> {
        let of_bucket = self.uploads.iter().filter(|(_, upload)| upload.place.bucket == bucket);
        let mut uploads: Vec<_> =
            of_bucket.map(|(id, upload)| (upload.place.key.as_str(), id.as_str(), upload)).collect();
        uploads.sort_unstable_by_key(|(key, id, _)| (*key, *id));
        uploads
    }

    /// All multipart uploads, with their ids.
    pub(crate) fn all_uploads(&self) -> impl Iterator<Item = (&str, &MultipartUpload)> {
        self.uploads.iter().map(|(id, upload)| (id.as_str(), upload))
    }

    /// The MD5 of the parts before this one, for a reader that cannot keep the content.
    pub(crate) fn whole_before(&self, place: &ObjectKey, id: &str, number: u16) -> Option<Md5> {
        let upload = self.upload(place, id).ok()?;
        (upload.through + 1 == number).then(|| upload.whole.clone())
    }

    /// Stores a part. It replaces a part of the same number.
    pub(crate) fn put_part(
        &mut self,
        place: &ObjectKey,
        id: &str,
        number: u16,
        received: Received,
        now_ms: i64,
    ) -> Result<(), CosError> {
        let upload = self.upload_mut(place, id)?;
        let Received { digests, kept, whole } = received;
        let replaced = upload.parts.insert(number, Part { digests, modified_ms: now_ms, kept });
        upload.parts_stored += 1;
        match (replaced, whole) {
            // The MD5 includes the replaced content.
            (Some(before), _) if number <= upload.through && before.digests != digests => {
                upload.whole = Md5::new();
                upload.through = 0;
            }
            (_, Some(whole)) if upload.through + 1 == number => {
                upload.whole = whole;
                upload.through = number;
            }
            _ => {}
        }
        Ok(())
    }

    /// The next part for the MD5 of the file, if it is there and no other request computes it.
    pub(crate) fn hash_job(&mut self, place: &ObjectKey, id: &str) -> Option<HashJob> {
        let upload = self.upload_mut(place, id).ok()?;
        let number = upload.through.checked_add(1)?;
        let kept = upload.parts.get(&number)?.kept.clone()?;
        if std::mem::replace(&mut upload.hashing, true) {
            return None;
        }
        Some(HashJob { number, whole: upload.whole.clone(), kept })
    }

    /// Records the result of a [`HashJob`]. If the object is too large to be kept, the hashed parts return their
    /// memory.
    pub(crate) fn hashed(
        &mut self,
        place: &ObjectKey,
        id: &str,
        (number, whole): (u16, Md5),
        keep_bytes: u64,
    ) {
        let Ok(upload) = self.upload_mut(place, id) else { return };
        upload.hashing = false;
        if upload.through + 1 == number {
            upload.whole = whole;
            upload.through = number;
        }
        if upload.size() > keep_bytes {
            let through = upload.through;
            for (_, part) in upload.parts.range_mut(..=through) {
                part.kept = None;
            }
        }
    }

    /// Removes an upload from the store to complete it with these parts. An error changes nothing.
    pub(crate) fn take_complete(
        &mut self,
        place: &ObjectKey,
        id: &str,
        parts: &[(u16, String)],
        min_part_bytes: u64,
    ) -> Result<TakenUpload, CosError> {
        let upload = self.upload(place, id)?;
        if !parts.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(CosError::new("InvalidPartOrder"));
        }
        for (at, (number, etag)) in parts.iter().enumerate() {
            let part = upload.parts.get(number).filter(|part| part.etag().eq_ignore_ascii_case(etag));
            let Some(part) = part else { return Err(CosError::new("InvalidPart")) };
            if at + 1 < parts.len() && part.digests.size < min_part_bytes {
                return Err(CosError::new("EntityTooSmall"));
            }
        }
        let upload = self.uploads.remove(id).ok_or_else(|| CosError::new("NoSuchUpload"))?;
        let numbers = parts.iter().map(|(number, _)| *number).collect();
        Ok(TakenUpload { id: id.to_owned(), upload, numbers })
    }

    /// Stores the object of a removed upload.
    pub(crate) fn complete(&mut self, id: String, place: ObjectKey, object: StoredObject) -> Completed {
        let completed = Completed { place: place.clone(), etag: object.etag.clone(), crc64: object.crc64 };
        self.insert(place, object);
        self.completed.insert(id.clone(), completed.clone());
        self.completed_order.push_back(id);
        while self.completed_order.len() > MAX_COMPLETED {
            let oldest = self.completed_order.pop_front().unwrap_or_default();
            self.completed.remove(&oldest);
        }
        completed
    }

    /// The result of a completed upload.
    pub(crate) fn completed(&self, place: &ObjectKey, id: &str) -> Option<&Completed> {
        self.completed.get(id).filter(|completed| completed.place == *place)
    }

    /// Deletes an upload and its parts.
    pub(crate) fn abort(&mut self, place: &ObjectKey, id: &str) -> Result<(), CosError> {
        self.upload(place, id)?;
        self.uploads.remove(id);
        Ok(())
    }
}

/// An upload that is being completed.
pub(crate) struct TakenUpload {
    pub(crate) id: String,
    upload: MultipartUpload,
    numbers: Vec<u16>,
}

impl TakenUpload {
    /// Makes the object. It can be slow and needs no lock.
    pub(crate) fn object(mut self, keep_bytes: u64) -> (String, ObjectKey, StoredObject) {
        let numbers = &self.numbers;
        let md5 = self.upload.md5(numbers);
        let digests: Vec<Digests> = numbers.iter().map(|number| self.upload.parts[number].digests).collect();
        let size: u64 = digests.iter().map(|part| part.size).sum();
        let crc64 = digests.iter().fold(0, combine);
        // Opaque, as in the cloud: neither a digest of the content nor the MD5 of the parts' MD5s.
        let mut tag = Md5::new();
        tag.update(self.id.as_bytes());
        tag.update(crc64.to_be_bytes());
        let etag = format!("{}-{}", hex::encode(tag.finalize()), numbers.len());
        let kept = |number: &u16| self.upload.parts.get_mut(number)?.kept.take();
        let content: Option<Vec<Kept>> =
            if size <= keep_bytes { numbers.iter().map(kept).collect() } else { None };
        let parts = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
        let parts_stored = self.upload.parts_stored;
        let object = StoredObject { size, md5, crc64, etag, parts, parts_stored, content };
        (self.id, self.upload.place, object)
    }
}

#[cfg(test)]
mod tests;
