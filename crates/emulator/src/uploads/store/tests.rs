use super::super::content::Hasher;
use super::*;

const KEEP: u64 = 1_000;

fn place(key: &str) -> ObjectKey {
    ObjectKey { bucket: "b-1".to_owned(), key: key.to_owned() }
}

fn digests(bytes: &[u8]) -> Digests {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Content that came in, kept as far as there is memory.
fn received(store: &mut ObjectStore, bytes: &[u8], memory: u64) -> Received {
    let reserved = store.reserve(bytes.len() as u64, memory);
    let kept =
        reserved.map(|reserved| Kept { bytes: Bytes::copy_from_slice(bytes), _reserved: reserved.into() });
    Received { digests: digests(bytes), kept, whole: None }
}

fn put_part(store: &mut ObjectStore, key: &str, id: &str, number: u16, bytes: &[u8]) -> Result<(), CosError> {
    let received = received(store, bytes, 10_000);
    store.put_part(&place(key), id, number, received, 5)?;
    while let Some(job) = store.hash_job(&place(key), id) {
        store.hashed(&place(key), id, job.run(), KEEP);
    }
    Ok(())
}

fn listed(parts: &[(u16, &[u8])]) -> Vec<(u16, String)> {
    parts.iter().map(|(number, bytes)| (*number, hex::encode(digests(bytes).md5))).collect()
}

fn complete(
    store: &mut ObjectStore,
    key: &str,
    id: &str,
    parts: &[(u16, &[u8])],
) -> Result<StoredObject, CosError> {
    let taken = store.take_complete(&place(key), id, &listed(parts), 2)?;
    let (id, place, object) = taken.object(KEEP);
    store.complete(id, place, object.clone());
    Ok(object)
}

#[test]
fn parts_in_any_order_become_an_object_with_the_digests_of_the_whole() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3]] {
        let mut store = ObjectStore::default();
        let id = store.initiate(place("k"), 1, 7).unwrap();
        let contents = ["first ", "second ", "last"];
        for number in order {
            put_part(&mut store, "k", &id, number, contents[usize::from(number) - 1].as_bytes()).unwrap();
        }
        let parts = [(1, &b"first "[..]), (2, b"second "), (3, b"last")];
        let object = complete(&mut store, "k", &id, &parts).unwrap();
        let whole = digests(b"first second last");
        assert_eq!(
            (object.size, object.md5, object.crc64),
            (whole.size, Some(whole.md5), whole.crc64),
            "{order:?}"
        );
        assert_eq!(object.content().unwrap(), b"first second last");
        assert_eq!((object.parts, object.parts_stored), (3, 3));
        assert!(object.etag.ends_with("-3") && !object.etag.starts_with(&hex::encode(whole.md5)));
        assert_eq!(complete(&mut store, "k", &id, &parts).unwrap_err().code, "NoSuchUpload");
        assert_eq!(store.completed(&place("k"), &id).unwrap().etag, object.etag);
    }
}

#[test]
fn what_is_left_out_replaced_or_not_numbered_in_a_row_changes_the_whole() {
    let mut store = ObjectStore::default();
    let id = store.initiate(place("k"), 1, 7).unwrap();
    for (number, bytes) in [(1, "aa"), (2, "bb"), (9, "cc"), (2, "BB"), (5, "xx")] {
        put_part(&mut store, "k", &id, number, bytes.as_bytes()).unwrap();
    }
    let object = complete(&mut store, "k", &id, &[(1, b"aa"), (2, b"BB"), (9, b"cc")]).unwrap();
    assert_eq!(object.md5, Some(digests(b"aaBBcc").md5));
    assert_eq!((object.content().unwrap(), object.parts_stored), (b"aaBBcc".to_vec(), 5));
}

#[test]
fn each_wrong_list_of_parts_is_told_by_its_fault_and_changes_nothing() {
    let mut store = ObjectStore::default();
    let id = store.initiate(place("k"), 1, 7).unwrap();
    for (number, bytes) in [(1, "a"), (2, "bb"), (3, "c")] {
        put_part(&mut store, "k", &id, number, bytes.as_bytes()).unwrap();
    }
    type Listed<'a> = &'a [(u16, &'a [u8])];
    let cases: [(Listed<'_>, &str); 6] = [
        (&[(2, b"bb"), (1, b"a")], "InvalidPartOrder"),
        (&[(2, b"bb"), (2, b"bb")], "InvalidPartOrder"),
        (&[(2, b"bb"), (4, b"c")], "InvalidPart"),
        (&[(2, b"other")], "InvalidPart"),
        (&[(1, b"a"), (2, b"bb")], "EntityTooSmall"),
        (&[(2, b"bb"), (3, b"c")], "ok"),
    ];
    for (parts, code) in cases {
        let done = complete(&mut store, "k", &id, parts);
        assert_eq!(done.map_or_else(|error| error.code.into_owned(), |_| "ok".to_owned()), code);
    }
    let id = store.initiate(place("k"), 1, 7).unwrap();
    assert_eq!(put_part(&mut store, "other", &id, 1, b"a").unwrap_err().code, "NoSuchUpload");
    store.abort(&place("k"), &id).unwrap();
    assert_eq!(put_part(&mut store, "k", &id, 1, b"a").unwrap_err().code, "NoSuchUpload");
    assert_eq!(store.abort(&place("k"), &id).unwrap_err().code, "NoSuchUpload");
}

#[test]
fn memory_is_bounded_and_the_md5_of_the_whole_survives_it() {
    let mut store = ObjectStore::default();
    let id = store.initiate(place("big"), 1, 7).unwrap();
    let mut whole = Md5::new();
    for number in 1..=100 {
        let part = vec![number as u8; 500];
        whole.update(&part);
        put_part(&mut store, "big", &id, number, &part).unwrap();
        assert!(store.memory_taken() <= 1_000, "{}", store.memory_taken());
    }
    let parts: Vec<Vec<u8>> = (1..=100_u8).map(|number| vec![number; 500]).collect();
    let parts: Vec<(u16, &[u8])> = (1..).zip(parts.iter().map(Vec::as_slice)).collect();
    let object = complete(&mut store, "big", &id, &parts).unwrap();
    assert_eq!((object.size, object.content()), (50_000, None));
    assert_eq!(object.md5.unwrap()[..], whole.finalize()[..]);
    assert_eq!(store.memory_taken(), 0);
}

#[test]
fn without_memory_a_part_is_hashed_on_the_way_or_the_md5_is_not_known() {
    let mut store = ObjectStore::default();
    let id = store.initiate(place("k"), 1, 7).unwrap();
    let on_the_way = |store: &ObjectStore, number, bytes: &[u8]| {
        let mut whole = store.whole_before(&place("k"), &id, number);
        whole.iter_mut().for_each(|whole| whole.update(bytes));
        Received { digests: digests(bytes), kept: None, whole }
    };
    for (number, bytes) in [(1, b"aa"), (2, b"bb")] {
        let received = on_the_way(&store, number, bytes);
        store.put_part(&place("k"), &id, number, received, 5).unwrap();
    }
    let parts = [(1, &b"aa"[..]), (2, b"bb")];
    assert_eq!(complete(&mut store, "k", &id, &parts).unwrap().md5, Some(digests(b"aabb").md5));

    let id = store.initiate(place("k"), 1, 7).unwrap();
    let unknown = Received { digests: digests(b"bb"), kept: None, whole: None };
    store.put_part(&place("k"), &id, 2, unknown, 5).unwrap();
    put_part(&mut store, "k", &id, 1, b"aa").unwrap();
    let object = complete(&mut store, "k", &id, &parts).unwrap();
    assert_eq!((object.md5, object.crc64), (None, digests(b"aabb").crc64));
}

#[test]
fn the_content_of_the_oldest_objects_makes_room() {
    let mut store = ObjectStore::default();
    for key in ["a", "b", "c"] {
        let received = received(&mut store, b"12345", 12);
        store.put(place(key), received, KEEP);
    }
    let kept = |key| store.object(&place(key)).unwrap().content().is_some();
    assert_eq!((kept("a"), kept("b"), kept("c")), (false, true, true));
    assert_eq!(store.object(&place("a")).unwrap().md5, Some(digests(b"12345").md5));
}

#[test]
fn uploads_that_nobody_completes_are_forgotten() {
    let mut store = ObjectStore::default();
    let old = store.initiate(place("k"), 100, 7).unwrap();
    let new = store.initiate(place("k"), 200, 7).unwrap();
    assert_eq!(store.uploads("b-1").len(), 2);
    store.expire(150);
    assert!(store.upload(&place("k"), &old).is_err() && store.upload(&place("k"), &new).is_ok());
    assert!(store.uploads("b-2").is_empty());
}
