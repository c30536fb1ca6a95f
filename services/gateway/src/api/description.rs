//! The API's description (OpenAPI 3.1): what the handlers say of themselves, and what holds for all of them.

use holdfast_kernel::page::PAGE_MAX_ENTRIES;
use utoipa::{
    Number,
    openapi::{
        Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, ResponseBuilder,
        Schema,
        extensions::ExtensionsBuilder,
        path::{Operation, Parameter, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::examples;
use crate::{
    access::{ACCESS, Audience},
    idempotency::KEY_MAX_CHARS,
};

/// Adds to what the handlers document what the table and the problems say of all of them, and examples; returns those parts
/// of which no example is known as well.
pub(super) fn document(mut openapi: OpenApi) -> (OpenApi, Vec<String>) {
    openapi = OpenApiBuilder::from(openapi)
        .info(
            InfoBuilder::new()
                .title("Holdfast")
                .version("1")
                .description(Some(
                    "Sells anything that can run out, and never sells it twice.",
                ))
                .build(),
        )
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .build();
    openapi
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for (path, item) in &mut openapi.paths.paths {
        for (method, operation) in operations(item) {
            let audience = ACCESS
                .iter()
                .find(|(known, route, _)| *known == method && route == path)
                .map_or(Audience::Admin, |(.., audience)| *audience);
            describe(operation, audience);
        }
    }
    let lacking = examples::fill(&mut openapi);
    (openapi, lacking)
}

/// Every operation of a path, with its method.
pub(super) fn operations(
    item: &mut PathItem,
) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", &mut item.get),
        ("POST", &mut item.post),
        ("PUT", &mut item.put),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn describe(operation: &mut Operation, audience: Audience) {
    let needed = SecurityRequirement::new::<_, _, String>("bearer", []);
    operation.security = match audience {
        Audience::Open => None,
        Audience::Anyone => Some(vec![SecurityRequirement::default(), needed]),
        Audience::User | Audience::Staff | Audience::Admin => Some(vec![needed]),
    };
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            bound(parameter);
        }
    }
    let extensions = ExtensionsBuilder::new().add("x-audience", audience.as_str());
    operation.extensions = Some(extensions.build());
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    operation.responses.responses.insert(
        "default".to_owned(),
        ResponseBuilder::new()
            .description("What was refused, and why (RFC 9457).")
            .content("application/problem+json", problem)
            .build()
            .into(),
    );
}

/// States the bounds of what many operations take, where they are kept: not by each handler.
fn bound(parameter: &mut Parameter) {
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else {
        return;
    };
    match (&parameter.parameter_in, parameter.name.as_str()) {
        (ParameterIn::Query, "limit") => {
            schema.minimum = Some(Number::Int(1));
            schema.maximum = Some(Number::Int(PAGE_MAX_ENTRIES as isize));
        }
        (ParameterIn::Header, "idempotency-key") => {
            schema.min_length = Some(1);
            schema.max_length = Some(KEY_MAX_CHARS);
            schema.pattern = Some("^[!-~]+$".to_owned());
        }
        (ParameterIn::Header, "if-match") => schema.pattern = Some("^\"[1-9][0-9]*\"$".to_owned()),
        _ => {}
    }
}
