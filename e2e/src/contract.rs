//! The API's own description (`/openapi.json`), read as operations whose requests can be written.
//!
//! Tests that go through it cover a route from the moment it is described.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::door::{Asking, Door};

/// Deeper than any body goes; ends what refers to itself.
const DEPTH_MAX: usize = 16;

/// The description.
#[derive(Debug, Clone)]
pub struct Contract {
    document: Value,
}

/// One method of one path.
#[derive(Debug, Clone)]
pub struct Operation {
    /// In capitals.
    pub method: String,
    /// As it is described: `/v1/orders/{id}`.
    pub path: String,
    /// `open`, `anyone`, `user`, `staff` or `admin`.
    pub audience: String,
    /// In the order they are described in.
    pub parameters: Vec<Parameter>,
    /// The JSON it takes.
    pub body: Option<Body>,
    /// The JSON it answers by status, where it is described.
    pub answers: BTreeMap<String, Value>,
}

/// What an operation takes beside its body.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// `limit`.
    pub name: String,
    /// `path`, `query` or `header`.
    pub place: String,
    /// Whether it must be there.
    pub required: bool,
    /// Its JSON schema.
    pub schema: Value,
    /// An example, where one is given.
    pub example: Option<Value>,
}

/// The body an operation takes.
#[derive(Debug, Clone)]
pub struct Body {
    /// Its JSON schema.
    pub schema: Value,
    /// Its example.
    pub example: Value,
}

impl Contract {
    /// Reads the description that a door gives of itself.
    pub async fn of(door: &Door) -> anyhow::Result<Self> {
        let document = door.read("/openapi.json").await?;
        ensure!(
            document["paths"].is_object(),
            "openapi.json describes no paths"
        );
        Ok(Self { document })
    }

    /// Every operation.
    pub fn operations(&self) -> anyhow::Result<Vec<Operation>> {
        let paths = members(&self.document["paths"]);
        let operations = paths.flat_map(|(path, item)| {
            members(item).map(move |(method, operation)| (path, method, operation))
        });
        operations
            .map(|(path, method, operation)| {
                read(path, method, operation).with_context(|| format!("{method} {path}"))
            })
            .collect()
    }

    /// Every path with the methods that are described of it.
    pub fn paths(&self) -> BTreeMap<String, Vec<String>> {
        let paths = members(&self.document["paths"]);
        paths
            .map(|(path, item)| {
                let methods = members(item).map(|(method, _)| method.to_uppercase());
                (path.clone(), methods.collect())
            })
            .collect()
    }

    /// A schema without references; what refers to itself ends after [`DEPTH_MAX`] steps.
    pub fn resolved(&self, schema: &Value) -> Value {
        self.resolved_to(schema, DEPTH_MAX)
    }

    fn resolved_to(&self, schema: &Value, depth: usize) -> Value {
        if depth == 0 {
            return json!({});
        }
        match schema {
            Value::Object(parts) => {
                if let Some(name) = parts.get("$ref").and_then(Value::as_str) {
                    let name = name.rsplit('/').next().unwrap_or_default();
                    let referred = &self.document["components"]["schemas"][name];
                    return self.resolved_to(referred, depth - 1);
                }
                let parts = parts
                    .iter()
                    .map(|(name, part)| (name.clone(), self.resolved_to(part, depth)));
                Value::Object(parts.collect())
            }
            Value::Array(entries) => entries
                .iter()
                .map(|entry| self.resolved_to(entry, depth))
                .collect(),
            other => other.clone(),
        }
    }

    /// Every name that a member of anything has which is answered.
    pub fn names_answered(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut names = BTreeMap::new();
        for operation in self.operations()? {
            for schema in operation.answers.values() {
                collect_names(&self.resolved(schema), &operation.name(), &mut names);
            }
        }
        Ok(names)
    }

    /// Members of an answer that its description does not know, by their paths.
    pub fn undescribed(&self, schema: &Value, answer: &Value) -> Vec<String> {
        let mut found = Vec::new();
        undescribed(&self.resolved(schema), answer, "", &mut found);
        found
    }
}

impl Operation {
    /// `POST /v1/orders/{id}/cancel`
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether its path names a thing.
    pub fn names_a_thing(&self) -> bool {
        self.parameters.iter().any(|it| it.place == "path")
    }

    /// A request as the examples have it, with what must be there and nothing else.
    pub fn example(&self) -> anyhow::Result<Asking> {
        let mut path = self.path.clone();
        let mut headers = Vec::new();
        for parameter in self.parameters.iter().filter(|it| it.required) {
            let (name, example) = (&parameter.name, parameter.example.as_ref());
            let example =
                example.with_context(|| format!("{}: no example of {name}", self.name()))?;
            let text = example.as_str().map_or(example.to_string(), str::to_owned);
            match parameter.place.as_str() {
                "path" => path = path.replace(&format!("{{{name}}}"), &text),
                "header" => headers.push((name.clone(), text)),
                place => anyhow::bail!("{}: {name} is required in {place}", self.name()),
            }
        }
        let body = self.body.as_ref().map(|body| body.example.clone());
        Ok(Asking {
            method: self.method.clone(),
            path,
            headers,
            body: None,
        }
        .with_json(body.as_ref()))
    }
}

fn read(path: &str, method: &str, operation: &Value) -> anyhow::Result<Operation> {
    let audience = operation["x-audience"].as_str();
    let parameters = operation["parameters"].as_array();
    let content = &operation["requestBody"]["content"]["application/json"];
    let body = content.is_object().then(|| Body {
        schema: content["schema"].clone(),
        example: content["example"].clone(),
    });
    let answers = members(&operation["responses"]).filter_map(|(status, answer)| {
        let schema = &answer["content"]["application/json"]["schema"];
        (!schema.is_null()).then(|| (status.clone(), schema.clone()))
    });
    Ok(Operation {
        method: method.to_uppercase(),
        path: path.to_owned(),
        audience: audience.context("no x-audience")?.to_owned(),
        parameters: parameters.into_iter().flatten().map(parameter).collect(),
        body,
        answers: answers.collect(),
    })
}

fn parameter(parameter: &Value) -> Parameter {
    let text = |name: &str| parameter[name].as_str().unwrap_or_default().to_owned();
    let schema = parameter["schema"].clone();
    Parameter {
        name: text("name"),
        place: text("in"),
        required: parameter["required"] == true,
        example: schema["examples"].get(0).cloned(),
        schema,
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn collect_names(schema: &Value, whose: &str, names: &mut BTreeMap<String, String>) {
    for (name, part) in members(&schema["properties"]) {
        names.entry(name.clone()).or_insert(whose.to_owned());
        collect_names(part, whose, names);
    }
    for kind in kinds(schema) {
        collect_names(kind, whose, names);
    }
    if schema["items"].is_object() {
        collect_names(&schema["items"], whose, names);
    }
}

/// What a schema lets choose from.
fn kinds(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf", "allOf"]
        .into_iter()
        .flat_map(|name| schema[name].as_array().into_iter().flatten())
}

fn undescribed(schema: &Value, answer: &Value, at: &str, found: &mut Vec<String>) {
    match answer {
        Value::Object(told) => {
            let shapes: Vec<&Value> = std::iter::once(schema).chain(kinds(schema)).collect();
            let is_open = shapes.iter().any(|it| {
                let others = &it["additionalProperties"];
                others.is_object() || others == true
            });
            // A schema that says nothing of its members leaves them open.
            let says_nothing = shapes.iter().all(|it| it["properties"].is_null());
            if is_open || says_nothing {
                return;
            }
            for (name, part) in told {
                let described = shapes.iter().map(|it| &it["properties"][name]);
                match described.into_iter().find(|it| !it.is_null()) {
                    Some(schema) => undescribed(schema, part, &format!("{at}/{name}"), found),
                    None => found.push(format!("{at}/{name}")),
                }
            }
        }
        Value::Array(entries) => {
            for entry in entries {
                undescribed(&schema["items"], entry, at, found);
            }
        }
        _ => {}
    }
}
