//! The fingerprint: one for every spelling of what an event says, another for everything else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tencent_vod_event::{Event, SubAppId};

use crate::harness::{cases, figures, iterations, rng};
use crate::json::{Json, event};

/// The half of the fingerprint that a message id is made of: if those differ, so do the whole ones.
fn fingerprint(text: impl Into<Bytes>) -> u128 {
    let event = Event::parse(SubAppId(7), text.into()).unwrap();
    u128::from_be_bytes(event.fingerprint.0[..16].try_into().unwrap())
}

/// A short name for what a value says.
fn meaning(value: &Json) -> u128 {
    let meaning = value.meaning(Some("EventHandle"));
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &meaning).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn one_meaning_has_one_fingerprint_however_it_is_spelled(value in event(), seed in any::<u64>()) {
        let mut rng = rng(seed);
        let plain = fingerprint(value.plain());
        for _ in 0..4 {
            let spelled = value.spelled(&mut rng);
            prop_assert_eq!(fingerprint(spelled.clone()), plain, "{}", spelled);
        }
        if let Json::Object(mut members) = value {
            // Whatever the handle, or whether there is one.
            members.retain(|(name, _)| name != "EventHandle");
            prop_assert_eq!(fingerprint(Json::Object(members.clone()).plain()), plain);
            members.push(("EventHandle".to_owned(), Json::Text(format!("h{seed}"))));
            prop_assert_eq!(fingerprint(Json::Object(members).plain()), plain);
        }
    }
}

/// Changes a value a little, somewhere.
fn near_miss(value: &mut Json, rng: &mut fastrand::Rng) {
    match value {
        Json::Array(items) if !items.is_empty() && rng.u8(..3) > 0 => {
            let at = rng.usize(..items.len());
            return near_miss(&mut items[at], rng);
        }
        Json::Object(members) if !members.is_empty() && rng.u8(..3) > 0 => {
            let at = rng.usize(..members.len());
            return near_miss(&mut members[at].1, rng);
        }
        _ => {}
    }
    match (value, rng.u8(..8)) {
        // What it is becomes what it looks like, and the other way round.
        (value, 0) => {
            *value = match &*value {
                Json::Text(text) if text.parse::<i64>().is_ok() => Json::Number(text.clone()),
                Json::Text(_) => Json::Null,
                other => Json::Text(other.plain()),
            }
        }
        (value, 1) => *value = Json::Array(vec![value.clone()]),
        (Json::Null, _) => {}
        (Json::Bool(value), _) => *value = !*value,
        (Json::Number(literal), 2 | 3) if !literal.contains(['.', 'e', 'E']) => literal.push_str(".0"),
        (Json::Number(literal), 4 | 5) if !literal.contains(['e', 'E']) => literal.push_str("e0"),
        // No number begins with a zero and goes on with digits.
        (Json::Number(literal), _)
            if literal.ends_with(|c: char| c.is_ascii_digit())
                && !["0", "-0"].contains(&literal.as_str()) =>
        {
            literal.push('1');
        }
        (Json::Number(_), _) => {}
        (Json::Text(text), 2 | 3) => text.push([' ', '"', '\\', '\0', 'a', '\u{301}', ','][rng.usize(..7)]),
        (Json::Text(text), _) => drop(text.pop()),
        (Json::Array(items), 2) => drop(items.pop()),
        (Json::Array(items), 3) => items.push(Json::Null),
        (Json::Array(items), 4) => items.reverse(),
        (Json::Array(items), _) if items.len() > 1 => {
            let at = rng.usize(1..items.len());
            items.swap(at - 1, at);
        }
        (Json::Array(items), _) => items.push(Json::Array(Vec::new())),
        (Json::Object(members), 2) if members.len() > 1 => {
            // Two neighbours exchange their values.
            let at = rng.usize(1..members.len());
            let (left, right) = members.split_at_mut(at);
            std::mem::swap(&mut left[at - 1].1, &mut right[0].1);
        }
        (Json::Object(members), 3) if !members.is_empty() => {
            let at = rng.usize(..members.len());
            members[at].1 = Json::Null;
        }
        (Json::Object(members), 4) if !members.is_empty() => {
            // The same name twice, and twice the other way round.
            let (name, value) = members[rng.usize(..members.len())].clone();
            members.insert(rng.usize(..=members.len()), (name, Json::Array(vec![value])));
        }
        (Json::Object(members), 5) => {
            // What was below is beside.
            let at = members.iter().position(|(_, value)| matches!(value, Json::Object(_)));
            if let Some(at) = at
                && let Json::Object(inner) = std::mem::replace(&mut members[at].1, Json::Object(Vec::new()))
            {
                members.extend(inner);
            }
        }
        (Json::Object(members), 6) if !members.is_empty() => {
            // A letter of the name goes over to the value.
            let at = rng.usize(..members.len());
            let (name, value) = &mut members[at];
            if let (Some(letter), Json::Text(text)) = (name.pop(), value) {
                text.insert(0, letter);
            }
        }
        (Json::Object(members), _) => members.push(("a".to_owned(), Json::Number("1".to_owned()))),
    }
}

#[test]
fn near_misses_have_one_fingerprint_only_if_they_say_the_same() {
    const MISSES: u64 = 200;
    let wanted = iterations(40_000);
    let (began, strategy) = (Instant::now(), event());
    let mut runner = TestRunner::new(cases(1));
    let mut seen: Vec<(u128, u128)> = Vec::new();
    for base in 0..wanted.div_ceil(MISSES) {
        let mut rng = rng(base);
        let base = strategy.new_tree(&mut runner).unwrap().current();
        for _ in 0..MISSES {
            let mut value = base.clone();
            for _ in 0..rng.usize(..3) {
                near_miss(&mut value, &mut rng);
            }
            let text = if rng.bool() { value.plain() } else { value.spelled(&mut rng) };
            seen.push((meaning(&value), fingerprint(text)));
        }
    }
    let different = one_to_one(seen);
    assert!(different as u64 > wanted / 4, "only {different} values were different");
    figures(&format!("near misses ({different} different)"), wanted, began);
}

/// Asserts that each first has one second, and each second one first; how many there are.
fn one_to_one(mut pairs: Vec<(u128, u128)>) -> usize {
    pairs.sort_unstable();
    pairs.dedup();
    let torn = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0);
    assert!(torn.is_none(), "one meaning, two fingerprints: run with its FUZZ_SEED and look for {torn:x?}");
    pairs.sort_unstable_by_key(|(_, fingerprint)| *fingerprint);
    let merged = pairs.windows(2).find(|pair| pair[0].1 == pair[1].1);
    assert!(
        merged.is_none(),
        "two meanings, one fingerprint: run with its FUZZ_SEED and look for {merged:x?}"
    );
    pairs.len()
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn number(literal: &str) -> Json {
    Json::Number(literal.to_owned())
}

fn array(items: impl Into<Vec<Json>>) -> Json {
    Json::Array(items.into())
}

fn members<const N: usize>(members: [(&str, Json); N]) -> Vec<(String, Json)> {
    members.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Ten times four things that an event can say, each of which is easily taken for one of the other three.
fn choices() -> [[Vec<(String, Json)>; 4]; 10] {
    let empty = || Json::Object(Vec::new());
    let one_and_two = |a: &str, b: &str| array([number(a), number(b)]);
    [
        [
            members([("a", number("1"))]),
            members([("a", number("1.0"))]),
            members([("a", text("1"))]),
            members([("a", array([number("1")]))]),
        ],
        [
            members([("b", one_and_two("1", "2"))]),
            members([("b", one_and_two("2", "1"))]),
            members([("b", one_and_two("12", "-0"))]),
            members([("b", array([number("1"), number("2"), Json::Null]))]),
        ],
        [
            members([("c", Json::Object(members([("d", number("1"))])))]),
            members([("c", empty()), ("d", number("1"))]),
            members([("c", Json::Object(members([("d", empty())])))]),
            members([("c", array([Json::Object(members([("d", number("1"))]))]))]),
        ],
        [
            members([("e", text("x")), ("f", text("y"))]),
            members([("e", text("y")), ("f", text("x"))]),
            members([("e", text("xy")), ("f", text(""))]),
            members([("e", text("")), ("f", text("xy"))]),
        ],
        [
            members([("g", text("1")), ("h", text("2"))]),
            members([("g", text("1\",\"h\":\"2"))]),
            members([("g", text("1\\")), ("h", text("2"))]),
            members([("g\":\"1\",\"h", text("2"))]),
        ],
        [
            members([("i", number("1")), ("i", number("2"))]),
            members([("i", number("2")), ("i", number("1"))]),
            members([("i", number("2"))]),
            members([("i", number("1")), ("i", number("1"))]),
        ],
        [
            members([("j", text("\u{e9}"))]),
            members([("j", text("e\u{301}"))]),
            members([("j", text("\\u00e9"))]),
            members([("j", text("\u{e9} "))]),
        ],
        [
            members([("k", Json::Bool(false))]),
            members([("k", text("false"))]),
            members([("k", number("0"))]),
            members([("k", Json::Null)]),
        ],
        [
            members([("l", array([]))]),
            members([("l", array([array([])]))]),
            members([("l", empty())]),
            members([("l", array([Json::Null]))]),
        ],
        [
            members([("m", text("\0"))]),
            members([("m", text("\\u0000"))]),
            members([("m", text(""))]),
            members([("EventHandlE", text("\0"))]),
        ],
    ]
}

#[test]
fn a_million_events_that_are_easily_confused_have_a_million_fingerprints() {
    let began = Instant::now();
    let choices = choices();
    for four in &choices {
        let object = |choice: &Vec<(String, Json)>| Json::Object(choice.clone()).meaning(None);
        let mut meanings: Vec<Vec<u8>> = four.iter().map(object).collect();
        meanings.sort();
        meanings.dedup();
        // No name occurs in two choices, so that events differ wherever one of their choices does.
        assert_eq!(meanings.len(), 4, "{four:?}");
    }
    let pieces = choices.map(|four| {
        four.map(|members| {
            let object = Json::Object(members).plain();
            format!("{},", &object[1..object.len() - 1])
        })
    });
    let total = 4_u32.pow(10);
    let half = |numbers: std::ops::Range<u32>| -> Vec<u128> {
        let mut event = String::new();
        numbers
            .map(|number| {
                event.clear();
                event.push('{');
                for (at, four) in pieces.iter().enumerate() {
                    event.push_str(&four[(number >> (2 * at) & 3) as usize]);
                }
                event.push_str("\"z\":0}");
                fingerprint(Bytes::copy_from_slice(event.as_bytes()))
            })
            .collect()
    };
    let mut fingerprints = std::thread::scope(|scope| {
        let first = scope.spawn(|| half(0..total / 2));
        let second = half(total / 2..total);
        [first.join().unwrap(), second].concat()
    });
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 1_048_576);
    figures("a million events", total.into(), began);
}
