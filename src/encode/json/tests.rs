use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Variant {
    Unit,
    Newtype(u8),
    Tuple(i8, i64),
    Struct { a: bool },
}

#[derive(Debug, Serialize)]
struct Everything {
    variants: [Variant; 4],
    tuple: (char, f32, f64, u64, i128),
    unit: (),
    none: Option<u8>,
    some: Option<&'static str>,
    newtype: Newtype,
    pair: Pair,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u8>,
    numbers: BTreeMap<i32, Value>,
    truths: BTreeMap<bool, ()>,
    names: BTreeMap<Variant, [u8; 0]>,
    #[serde(flatten)]
    flat: BTreeMap<char, Value>,
}

#[derive(Debug, Serialize)]
struct Newtype(f64);

#[derive(Debug, Serialize)]
struct Pair(u128, Vec<Value>);

fn assert_same<T: Serialize + std::fmt::Debug>(value: &T) {
    let mut out = b"before".to_vec();
    write(&mut out, value).expect("JSON");
    let expected = serde_json::to_string(value).expect("JSON");
    assert_eq!(String::from_utf8(out).expect("UTF-8"), format!("before{expected}"), "{value:?}");
}

#[test]
fn every_kind_of_value_is_written_as_serde_json_writes_it() {
    assert_same(&Everything {
        variants: [
            Variant::Unit,
            Variant::Newtype(1),
            Variant::Tuple(-1, i64::MIN),
            Variant::Struct { a: true },
        ],
        tuple: ('"', f32::MIN_POSITIVE, f64::NAN, u64::MAX, i128::MIN),
        unit: (),
        none: None,
        some: Some(""),
        newtype: Newtype(1e300),
        pair: Pair(u128::MAX, vec![json!({}), json!([]), json!({"a": [1, {"b": -0.5}]})]),
        skipped: None,
        numbers: [(-1, json!(1)), (2, json!(null))].into(),
        truths: [(true, ()), (false, ())].into(),
        names: [(Variant::Unit, [])].into(),
        flat: [('\u{1f}', json!("x")), ('é', json!(1))].into(),
    });
}

#[test]
fn what_cannot_be_the_name_of_a_member_is_refused() {
    let by_list = BTreeMap::from([([1], 1)]);
    assert!(write(&mut Vec::new(), &by_list).is_err());
    let by_tuple = BTreeMap::from([(Variant::Newtype(1), 1)]);
    assert!(write(&mut Vec::new(), &by_tuple).is_err());
}

#[test]
fn every_byte_is_escaped_wherever_it_stands() {
    for special in (0..=0x7f).map(char::from).chain(['\u{80}', '\u{2028}', '\u{10ffff}']) {
        for before in 0..2 * CHUNK + 2 {
            let text = format!("{}{special}{}", "x".repeat(before), "y".repeat(before % 20));
            assert_same(&text);
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,60}".prop_map(Value::from),
        r#"[a-z"\\\n\x00-\x20]{0,80}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".{0,20}", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_written_as_serde_json_writes_it(value in values()) {
        assert_same(&value);
    }
}
