//! The API's description: whole, and true to itself.

use holdfast_gateway::ACCESS;
use serde_json::{Value, json};

use crate::world::World;

async fn description() -> Value {
    let world = World::new().await;
    world.get("/openapi.json").send_nothing().await.json()
}

/// Every operation with its method and path.
fn operations(description: &Value) -> impl Iterator<Item = (String, &str, &Value)> {
    let paths = description["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().expect("operations").iter();
        operations.map(|(method, operation)| (method.to_uppercase(), path.as_str(), operation))
    })
}

/// What is wrong with a value by a schema of the description.
fn errors(description: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut whole = schema.clone();
    whole["components"] = description["components"].clone();
    let validator = jsonschema::draft202012::new(&whole).expect("a schema");
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[tokio::test]
async fn every_example_fits_its_schema() {
    let description = description().await;
    let mut seen = 0;
    let mut check = |at: String, schema: &Value, example: &Value| {
        seen += 1;
        assert!(!example.is_null(), "{at} has no example");
        assert_eq!(
            errors(&description, schema, example),
            Vec::<String>::new(),
            "{at}: {example}"
        );
    };
    for (method, path, operation) in operations(&description) {
        let answers = operation["responses"].as_object().expect("answers");
        let answers = answers
            .iter()
            .map(|(status, answer)| (status.as_str(), answer));
        for (part, told) in answers.chain([("body", &operation["requestBody"])]) {
            for (kind, content) in told["content"].as_object().into_iter().flatten() {
                let at = format!("{method} {path} {part} {kind}");
                check(at, &content["schema"], &content["example"]);
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, schema) = (&parameter["name"], &parameter["schema"]);
            let example = &schema["examples"][0];
            if parameter["required"] == true || !example.is_null() {
                check(format!("{method} {path} {name}"), schema, example);
            }
        }
    }
    let schemas = description["components"]["schemas"].as_object();
    for (name, schema) in schemas.expect("schemas") {
        for example in schema["examples"].as_array().into_iter().flatten() {
            check(name.clone(), schema, example);
        }
    }
    assert!(seen > 100, "{seen} examples");
}

#[tokio::test]
async fn every_operation_names_its_audience() {
    let description = description().await;
    for (method, path, operation) in operations(&description) {
        let row = ACCESS
            .iter()
            .find(|(known, route, _)| *known == method && *route == path)
            .unwrap_or_else(|| panic!("{method} {path} has no row in ACCESS"));
        assert_eq!(operation["x-audience"], row.2.as_str(), "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_taken_is_described_as_taken_strictly() {
    let description = description().await;
    for (method, path, operation) in operations(&description) {
        let body = &operation["requestBody"]["content"]["application/json"];
        if body.is_null() {
            continue;
        }
        let mut loose = body["example"].clone();
        loose["no_such_field"] = json!(1);
        let said = errors(&description, &body["schema"], &loose);
        // The example fits without it, so whatever is said is about it.
        assert!(
            !said.is_empty(),
            "{method} {path}: derive `#[serde(deny_unknown_fields)]`"
        );
    }
}
