//! The part of JSON Schema that the documents in docs/json use.

use serde_json::Value;
use std::path::Path;

/// A schema in `docs/json`, by its file name.
fn load(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json").join(file);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails unless `docs/json/NAME.schema.json` allows the document.
pub fn conforms(name: &str, document: &Value) {
    let found = violations(&load(&format!("{name}.schema.json")), document);
    assert_eq!(found, Vec::<String>::new(), "{name}: {document:#}");
}

/// Everything in `value` that the schema does not allow, as paths with a reason.
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut out = vec![];
    check(schema, value, "$", &mut out);
    out
}

fn check(schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    for key in schema.as_object().expect("a schema is an object").keys() {
        const KNOWN: &[&str] = &[
            "$schema",
            "title",
            "description",
            "type",
            "additionalProperties",
            "required",
            "properties",
            "enum",
            "pattern",
            "items",
            "oneOf",
            "$ref",
        ];
        assert!(KNOWN.contains(&key.as_str()), "{at}: the checker does not know `{key}`");
    }
    if let Some(file) = schema["$ref"].as_str() {
        check(&load(file), value, at, out);
    }
    if let Some(kinds) = schema.get("type") {
        let kinds: Vec<&str> =
            kinds.as_array().map_or_else(|| kinds.as_str().into_iter().collect(), |k| k.iter().filter_map(Value::as_str).collect());
        if !kinds.iter().any(|k| is_kind(k, value)) {
            out.push(format!("{at}: not {kinds:?}"));
        }
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        out.push(format!("{at}: {value} is not one of {choices:?}"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !regex::Regex::new(pattern).expect("pattern").is_match(text)
    {
        out.push(format!("{at}: {text:?} does not match {pattern}"));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|c| violations(c, value).is_empty()).count();
        if fitting != 1 {
            out.push(format!("{at}: fits {fitting} of the choices"));
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values.iter().enumerate().for_each(|(i, v)| check(items, v, &format!("{at}[{i}]"), out));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                out.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, v) in object {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(property), _) => check(property, v, &at, out),
                (None, Some(Value::Bool(false))) => out.push(format!("{at}: not in the schema")),
                (None, Some(other)) if other.is_object() => check(other, v, &at, out),
                _ => {}
            }
        }
    }
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("type {other}"),
    }
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": ["integer", "null"]}, "b": {"oneOf": [{"enum": [1]}, {"type": "string", "pattern": "^x"}]}}
    });
    for (good, value) in [
        (true, serde_json::json!({"a": null, "b": "xy"})),
        (true, serde_json::json!({"a": 3, "b": 1})),
        (false, serde_json::json!({"a": 1.5})),
        (false, serde_json::json!({"b": 1})),
        (false, serde_json::json!({"a": 1, "b": "y"})),
        (false, serde_json::json!({"a": 1, "c": 1})),
        (false, serde_json::json!([])),
    ] {
        assert_eq!(violations(&schema, &value).is_empty(), good, "{value}");
    }
}
