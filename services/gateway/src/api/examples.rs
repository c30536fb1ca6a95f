//! Examples in the API's description: of every body and parameter one, composed of those of its parts.
//!
//! A part's example is what its own declaration says (`#[schema(example = …)]`), else what `examples.json` says of its
//! name: `Schema.field` before `field`, `?name` of a query, the route up to it of a path. So the same thing looks the
//! same everywhere. Of what clients may leave out only what is said of that very field is shown; `examples.json` may say
//! null of it, where it is left out after all.

use serde_json::{Map, Value};
use utoipa::openapi::{
    Components, Content, OpenApi, RefOr, Required, Schema,
    path::{Parameter, ParameterIn},
};

use super::description::operations;

const PARTS: &str = include_str!("../../examples.json");
/// Deeper than any body goes; ends what refers to itself.
const DEPTH_MAX: usize = 16;

/// Gives every body, parameter and schema of the description its example; returns those parts of which none is known.
pub(super) fn fill(openapi: &mut OpenApi) -> Vec<String> {
    let mut book = Book::new(openapi.components.as_ref());
    for (path, item) in &mut openapi.paths.paths {
        for (_, operation) in operations(item) {
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    book.fill_parameter(path, parameter);
                }
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.content
                    .values_mut()
                    .for_each(|it| book.fill_content(it));
            }
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    let contents = response.content.values_mut();
                    contents.for_each(|it| book.fill_content(it));
                }
            }
        }
    }
    for (name, schema) in openapi.components.iter_mut().flat_map(|it| &mut it.schemas) {
        if let RefOr::T(Schema::Object(object)) = schema {
            object.examples = vec![book.of_schema(name)];
        }
    }
    book.lacking.sort();
    book.lacking.dedup();
    book.lacking
}

/// What is known of parts, and of which nothing is.
struct Book {
    schemas: Value,
    parts: Map<String, Value>,
    lacking: Vec<String>,
}

/// Where in the description an example is wanted.
#[derive(Clone, Copy)]
struct Place<'a> {
    schema: &'a str,
    field: &'a str,
    depth: usize,
}

impl Book {
    fn new(components: Option<&Components>) -> Self {
        let components = serde_json::to_value(components).expect("a description is JSON");
        Self {
            schemas: components["schemas"].clone(),
            parts: serde_json::from_str(PARTS).expect("examples.json is an object"),
            lacking: Vec::new(),
        }
    }

    fn fill_parameter(&mut self, path: &str, parameter: &mut Parameter) {
        let name = &parameter.name;
        let key = match parameter.parameter_in {
            ParameterIn::Path => {
                let until = format!("{{{name}}}");
                let end = path.find(&until).map_or(path.len(), |at| at + until.len());
                path[..end].to_owned()
            }
            ParameterIn::Query | ParameterIn::QueryString => format!("?{name}"),
            ParameterIn::Header | ParameterIn::Cookie => name.clone(),
        };
        let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else {
            return;
        };
        match self.parts.get(&key) {
            Some(example) => schema.examples = vec![example.clone()],
            None if parameter.required == Required::True => self.lacking.push(key),
            None => {}
        }
    }

    fn fill_content(&mut self, content: &mut RefOr<Content>) {
        let RefOr::T(content) = content else { return };
        let Some(schema) = &content.schema else {
            return;
        };
        let schema = serde_json::to_value(schema).expect("a schema is JSON");
        let place = Place {
            schema: "",
            field: "",
            depth: 0,
        };
        content.example = Some(self.compose(&schema, place));
    }

    fn of_schema(&mut self, name: &str) -> Value {
        let reference = serde_json::json!({"$ref": format!("#/components/schemas/{name}")});
        let place = Place {
            schema: "",
            field: "",
            depth: 0,
        };
        self.compose(&reference, place)
    }

    fn compose(&mut self, schema: &Value, place: Place<'_>) -> Value {
        if place.depth > DEPTH_MAX {
            return Value::Null;
        }
        if let Some(known) = self.known(schema, place) {
            return known;
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let referred = self.schemas[name].clone();
            return self.compose(&referred, place.within(name));
        }
        for choice in ["oneOf", "anyOf"] {
            let mut kinds = schema[choice].as_array().into_iter().flatten();
            if let Some(kind) = kinds.find(|kind| kind["type"] != "null") {
                return self.compose(kind, place.deeper());
            }
        }
        if let Some(kinds) = schema["allOf"].as_array() {
            let mut members = Map::new();
            for kind in kinds {
                if let Value::Object(more) = self.compose(kind, place.deeper()) {
                    members.extend(more);
                }
            }
            return Value::Object(members);
        }
        if let Some(word) = schema["enum"].get(0) {
            return word.clone();
        }
        match type_of(schema) {
            "array" => vec![self.compose(&schema["items"], place.deeper())].into(),
            "object" => self.compose_object(schema, place),
            "integer" => schema.get("minimum").cloned().unwrap_or(1.into()),
            "boolean" => true.into(),
            "" => Value::Object(Map::new()),
            _ => {
                self.lacking.push(place.name());
                Value::Null
            }
        }
    }

    fn compose_object(&mut self, schema: &Value, place: Place<'_>) -> Value {
        // What we answer is shown whole; of what we take, that which is needed.
        let is_taken = schema["additionalProperties"] == false;
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut members = Map::new();
        for (field, part) in schema["properties"].as_object().into_iter().flatten() {
            let place = Place {
                field,
                ..place.deeper()
            };
            let is_wanted = !is_taken
                || required.iter().any(|name| name == field)
                || own(part).is_some()
                || self.parts.contains_key(&place.name());
            if !is_wanted {
                continue;
            }
            let example = self.compose(part, place);
            if !(is_taken && example.is_null()) {
                members.insert(field.clone(), example);
            }
        }
        Value::Object(members)
    }

    /// What was said of this very part, or else of its name.
    fn known(&self, schema: &Value, place: Place<'_>) -> Option<Value> {
        if place.field.is_empty() {
            return None;
        }
        let named = || self.parts.get(&place.name());
        let said = named().or_else(|| own(schema));
        // A name that others use for something else may say nothing here: a word is a word only where words are wanted.
        let alike = || {
            self.parts
                .get(place.field)
                .filter(|example| fits(schema, example))
        };
        said.or_else(alike).cloned()
    }
}

impl<'a> Place<'a> {
    fn deeper(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }

    /// At the beginning of a schema; a list of orders, `Page_Order`, goes by the name of what it lists.
    fn within(self, schema: &'a str) -> Self {
        Self {
            schema: schema.strip_prefix("Page_").unwrap_or(schema),
            field: "",
            depth: self.depth + 1,
        }
    }

    fn name(self) -> String {
        format!("{}.{}", self.schema, self.field)
    }
}

/// The example that a schema itself gives.
fn own(schema: &Value) -> Option<&Value> {
    schema.get("example").or_else(|| schema["examples"].get(0))
}

/// The type of what is not null.
fn type_of(schema: &Value) -> &str {
    let kinds = &schema["type"];
    let of_list = || {
        let mut kinds = kinds.as_array()?.iter().filter_map(Value::as_str);
        kinds.find(|kind| *kind != "null")
    };
    kinds.as_str().or_else(of_list).unwrap_or_default()
}

fn fits(schema: &Value, example: &Value) -> bool {
    if let Some(words) = schema["enum"].as_array() {
        return words.contains(example);
    }
    match type_of(schema) {
        "string" => example.is_string(),
        "integer" => example.is_i64(),
        "number" => example.is_number(),
        "boolean" => example.is_boolean(),
        "array" => example.is_array(),
        _ => example.is_object(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_body_and_parameter_has_an_example() {
        let (_, documented) = super::super::routes().split_for_parts();
        let (_, lacking) = super::super::description::document(documented);
        assert_eq!(
            lacking,
            Vec::<String>::new(),
            "say `#[schema(example = …)]` at the field, or what its name means in services/gateway/examples.json"
        );
    }
}
