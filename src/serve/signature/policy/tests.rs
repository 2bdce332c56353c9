//! The rules of a policy, a row each.

use super::*;

const STAMP: Stamp<'static> = Stamp { secret_id: "AKIDexample", now: 1_800_000_000, random: 7 };

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn fixed<T>(value: T) -> Choice<T> {
    Choice { fixed: Some(value), allowed: Allowed::These(Vec::new()) }
}

fn these<T>(values: impl IntoIterator<Item = T>) -> Choice<T> {
    Choice { fixed: None, allowed: Allowed::These(values.into_iter().collect()) }
}

fn any<T>() -> Choice<T> {
    Choice { fixed: None, allowed: Allowed::Any }
}

/// A rule, what a request says, and what comes of it.
type ChoiceRow<'a, T> = (Choice<T>, Option<&'a T>, Result<Option<&'a T>, PolicyRefusal>);

/// What one rule makes of what a request says.
fn choices<T: Clone + PartialEq + std::fmt::Debug>(one: T, two: T, three: T) {
    let rows: [ChoiceRow<'_, T>; 10] = [
        // Nothing may be chosen.
        (Choice::default(), None, Ok(None)),
        (Choice::default(), Some(&one), Err(PolicyRefusal::NotChosenHere("p"))),
        // What is fixed wins, whatever is said.
        (fixed(one.clone()), None, Ok(Some(&one))),
        (fixed(one.clone()), Some(&one), Ok(Some(&one))),
        (fixed(one.clone()), Some(&two), Ok(Some(&one))),
        // One of a list, or none.
        (these([one.clone(), two.clone()]), None, Ok(None)),
        (these([one.clone(), two.clone()]), Some(&two), Ok(Some(&two))),
        (these([one.clone(), two.clone()]), Some(&three), Err(PolicyRefusal::NotAllowed("p"))),
        // Any.
        (any(), None, Ok(None)),
        (any(), Some(&three), Ok(Some(&three))),
    ];
    for (choice, wanted, expected) in rows {
        assert_eq!(
            choice.decide("p", wanted.cloned()),
            expected.map(Option::<&T>::cloned),
            "{choice:?} {wanted:?}"
        );
    }
}

#[test]
fn a_choice_is_a_fixed_value_one_of_a_list_any_or_none() {
    choices("a".to_owned(), "b".to_owned(), "A".to_owned());
    choices(1_u64, 2, 3);
    choices(-1_i64, 2, 3);
    choices(TaskNotifyMode::Finish, TaskNotifyMode::Change, TaskNotifyMode::None);
}

#[test]
fn each_parameter_has_a_rule_of_its_own() {
    // Each row lets one parameter be chosen, and every other one be refused.
    type Rule = (&'static str, fn(&mut CallerPolicy), fn(&mut Wanted), fn(&Grant) -> bool);
    let rules: [Rule; 6] = [
        ("subAppId", |p| p.sub_app_id = any(), |w| w.sub_app_id = Some(5), |g| g.sub_app_id == Some(5)),
        ("procedure", |p| p.procedure = any(), |w| w.procedure = text("P"), |g| g.procedure == text("P")),
        ("classId", |p| p.class_id = any(), |w| w.class_id = Some(3), |g| g.class_id == Some(3)),
        (
            "storageRegion",
            |p| p.storage_region = any(),
            |w| w.storage_region = text("r"),
            |g| g.storage_region == text("r"),
        ),
        (
            "taskPriority",
            |p| p.task_priority = any(),
            |w| w.task_priority = Some(-9),
            |g| g.task_priority == Some(-9),
        ),
        (
            "taskNotifyMode",
            |p| p.task_notify_mode = any(),
            |w| w.task_notify_mode = Some(TaskNotifyMode::None),
            |g| g.task_notify_mode == Some(TaskNotifyMode::None),
        ),
    ];
    for (chosen, allow, ..) in rules {
        for (name, _, want, has) in rules {
            let (mut policy, mut wanted) = (CallerPolicy::default(), Wanted::default());
            allow(&mut policy);
            want(&mut wanted);
            let granted = policy.grant("web", wanted, STAMP);
            if name == chosen {
                assert!(has(&granted.unwrap()), "{name}");
            } else {
                assert_eq!(granted, Err(PolicyRefusal::NotChosenHere(name)), "{chosen} {name}");
            }
        }
    }
}

#[test]
fn the_life_is_what_is_asked_for_and_never_more_than_the_most() {
    let policy = |expiry, most| CallerPolicy {
        expiry: Duration::from_secs(expiry),
        expiry_max: Duration::from_secs(most),
        ..CallerPolicy::default()
    };
    for (expiry, most, ttl, expected) in [
        (600, 600, None, Ok(600)),
        (60, 600, None, Ok(60)),
        (60, 600, Some(600), Ok(600)),
        (60, 600, Some(1), Ok(1)),
        (60, 600, Some(601), Err(PolicyRefusal::TooLong { wanted: 601, most: 600 })),
        (60, 600, Some(u64::MAX), Err(PolicyRefusal::TooLong { wanted: u64::MAX, most: 600 })),
        (60, 600, Some(0), Err(PolicyRefusal::Invalid(InvalidGrant::NoLife))),
        (7_776_000, 7_776_000, None, Ok(7_776_000)),
    ] {
        let granted = policy(expiry, most).grant("web", Wanted { ttl, ..Wanted::default() }, STAMP);
        let life = granted.map(|grant| grant.expire_time - grant.current_time_stamp);
        assert_eq!(life, expected, "{expiry} {most} {ttl:?}");
    }
}

#[test]
fn one_time_is_the_policy_s_choice() {
    for (one_time, wanted, expected) in [
        (OneTimeRule::Never, None, Ok(None)),
        (OneTimeRule::Never, Some(false), Ok(None)),
        (OneTimeRule::Never, Some(true), Err(PolicyRefusal::NotOnce)),
        (OneTimeRule::Always, None, Ok(Some(true))),
        (OneTimeRule::Always, Some(false), Ok(Some(true))),
        (OneTimeRule::Always, Some(true), Ok(Some(true))),
        (OneTimeRule::Request, None, Ok(None)),
        (OneTimeRule::Request, Some(false), Ok(Some(false))),
        (OneTimeRule::Request, Some(true), Ok(Some(true))),
    ] {
        let policy = CallerPolicy { one_time, ..CallerPolicy::default() };
        let granted = policy.grant("web", Wanted { one_time_valid: wanted, ..Wanted::default() }, STAMP);
        assert_eq!(granted.map(|grant| grant.one_time_valid), expected, "{one_time:?} {wanted:?}");
    }
}

#[test]
fn the_default_application_has_no_parameter() {
    for (choice, wanted, expected) in [
        (fixed(0), None, None),
        (any(), Some(0), None),
        (fixed(5), Some(0), Some(5)),
        (any(), Some(5), Some(5)),
    ] {
        let policy = CallerPolicy { sub_app_id: choice, ..CallerPolicy::default() };
        let granted = policy.grant("web", Wanted { sub_app_id: wanted, ..Wanted::default() }, STAMP);
        assert_eq!(granted.unwrap().sub_app_id, expected, "{wanted:?}");
    }
}

#[test]
fn contexts_are_counted_after_they_are_made_and_never_cut() {
    let policy =
        CallerPolicy { source_context: "{caller}:{request}".parse().unwrap(), ..CallerPolicy::default() };
    let grant = |characters: usize| {
        let said = "文".repeat(characters);
        policy.grant("web", Wanted { source_context: Some(said), ..Wanted::default() }, STAMP)
    };
    assert_eq!(grant(246).unwrap().source_context.unwrap().chars().count(), 250);
    let refused = grant(247).unwrap_err();
    assert_eq!(refused.to_string(), "sourceContext has 251 characters; 250 are allowed");
    assert!(refused.is_invalid() && refused.parameter() == Some("sourceContext"));
    let session = Wanted { session_context: Some("x".repeat(1_001)), ..Wanted::default() };
    let refused = policy.grant("web", Wanted { source_context: text("u"), ..session }, STAMP).unwrap_err();
    assert_eq!(refused.parameter(), Some("sessionContext"));
}

#[test]
fn no_value_becomes_another_parameter() {
    for said in
        ["a&procedure=Expensive", "a%26procedure=x", "a=b&&c", "\0", "\r\nX: y", "🎬", "+ +", "%", "#?/\\\""]
    {
        let wanted = Wanted { source_context: text(said), ..Wanted::default() };
        let grant = CallerPolicy::default().grant("web", wanted, STAMP).unwrap();
        let signature = grant.sign("key").unwrap();
        let read = tencentcloud_signing::upload::Signature::parse(&signature).unwrap();
        assert_eq!(read.parameter("sourceContext").as_deref(), Some(said));
        assert_eq!(read.parameters().len(), 5, "{said:?}");
        assert_eq!(read.grant().unwrap(), grant);
    }
}
