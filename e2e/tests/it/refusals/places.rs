//! Where in a body something stands, as its schema and its example have it.

use serde_json::{Map, Value};

/// One place in a body.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// As a refusal names it: `items[0].sku`; of the whole body nothing.
    pub(crate) name: String,
    /// Where JSON pointers find it.
    pub(crate) pointer: String,
    /// What may stand there, without references.
    pub(crate) schema: Value,
    /// Whether it must be there.
    pub(crate) required: bool,
}

/// Every place of a body, from the whole of it down: members that the example leaves out too, of lists the first entry.
pub(crate) fn places(schema: &Value, example: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    let whole = Place {
        name: String::new(),
        pointer: String::new(),
        schema: schema.clone(),
        required: true,
    };
    walk(&whole, Some(example), &mut found);
    found
}

impl Place {
    /// The members that its schema knows, where it takes an object and takes it strictly.
    pub(crate) fn members(&self) -> Option<&Map<String, Value>> {
        let shape = object(&self.schema)?;
        (shape["additionalProperties"] == false)
            .then(|| shape["properties"].as_object())
            .flatten()
    }

    /// Whether a value of this JSON type may stand here.
    pub(crate) fn takes(&self, kind: &str) -> bool {
        takes(&self.schema, kind)
    }

    /// The last part of its name.
    pub(crate) fn member(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// A bound that its schema states.
    pub(crate) fn bound(&self, name: &str) -> Option<i64> {
        self.schema[name].as_i64()
    }

    /// The body with another value here; missing ones are put in.
    pub(crate) fn put(&self, body: &Value, value: Value) -> Value {
        let mut body = body.clone();
        if let Some(part) = body.pointer_mut(&self.pointer) {
            *part = value;
            return body;
        }
        let (parent, member) = self.pointer.rsplit_once('/').expect("the whole is there");
        if let Some(Value::Object(members)) = body.pointer_mut(parent) {
            members.insert(member.to_owned(), value);
        }
        body
    }

    /// The body without what stands here.
    pub(crate) fn cut(&self, body: &Value) -> Value {
        let mut body = body.clone();
        if let Some((parent, member)) = self.pointer.rsplit_once('/')
            && let Some(Value::Object(members)) = body.pointer_mut(parent)
        {
            members.remove(member);
        }
        body
    }
}

fn walk(place: &Place, example: Option<&Value>, found: &mut Vec<Place>) {
    found.push(place.clone());
    if let Some(shape) = object(&place.schema) {
        let required = shape["required"].as_array();
        for (name, schema) in shape["properties"].as_object().into_iter().flatten() {
            // Inside what the example leaves out there is nothing to change yet.
            if example.is_none_or(|it| !it.is_object()) {
                continue;
            }
            let dot = if place.name.is_empty() { "" } else { "." };
            let member = Place {
                name: format!("{}{dot}{name}", place.name),
                pointer: format!("{}/{name}", place.pointer),
                schema: schema.clone(),
                required: required.is_some_and(|names| names.iter().any(|it| it == name)),
            };
            walk(&member, example.and_then(|it| it.get(name)), found);
        }
    }
    if let Some(first) = example.and_then(|it| it.get(0)) {
        let entry = Place {
            name: format!("{}[0]", place.name),
            pointer: format!("{}/0", place.pointer),
            schema: place.schema["items"].clone(),
            required: false,
        };
        walk(&entry, Some(first), found);
    }
}

/// The object among what a schema lets choose from.
fn object(schema: &Value) -> Option<&Value> {
    if schema["properties"].is_object() {
        return Some(schema);
    }
    kinds(schema).find_map(object)
}

fn takes(schema: &Value, kind: &str) -> bool {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().any(Value::is_string) && kind == "string";
    }
    let mut kinds = kinds(schema).peekable();
    if kinds.peek().is_some() {
        return kinds.any(|it| takes(it, kind));
    }
    match &schema["type"] {
        Value::String(only) => only == kind,
        Value::Array(any) => any.iter().any(|it| it == kind),
        _ => true,
    }
}

fn kinds(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf", "allOf"]
        .into_iter()
        .flat_map(|name| schema[name].as_array().into_iter().flatten())
}
