//! The routes: a file a resource, a handler a route, each decoding, calling and encoding.

mod examples;
mod health;
mod inventory;
mod issuer;
mod orders;
mod payments;
mod products;
mod shape;
mod site;
mod users;

use axum::{Router, extract::Request, middleware, response::Response};
use http::{HeaderMap, header};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, ResponseBuilder,
    extensions::ExtensionsBuilder,
    path::Operation,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    Gateway, Peers,
    access::{self, ACCESS, Audience},
    error::GatewayError,
    hygiene, limits,
    problems::{Problem, ProblemShape},
};

/// Every route behind its table, and what holds for all of them.
pub(crate) fn router(gateway: Gateway) -> Router {
    let (routes, documented) = routes().split_for_parts();
    let (openapi, _) = document(documented);
    routes
        .merge(site::routes(&openapi))
        .route_layer(middleware::from_fn_with_state(
            gateway.clone(),
            limits::bound,
        ))
        .route_layer(middleware::from_fn_with_state(
            gateway.clone(),
            access::admit,
        ))
        .route_layer(middleware::from_fn(hygiene::measure))
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(
            gateway.clone(),
            hygiene::keep,
        ))
        .with_state(gateway)
}

fn routes() -> OpenApiRouter<Gateway> {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(ProblemShape)))]
    struct Shared;
    let shared = <Shared as utoipa::OpenApi>::openapi();
    OpenApiRouter::with_openapi(shared)
        .merge(health::routes())
        .merge(issuer::routes())
        .merge(users::routes())
        .merge(products::routes())
        .merge(inventory::routes())
        .merge(orders::routes())
        .merge(payments::routes())
}

/// Adds to what the handlers document what the table and the problems say of all of them, and examples; returns those parts
/// of which no example is known as well.
fn document(mut openapi: OpenApi) -> (OpenApi, Vec<String>) {
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

fn describe(operation: &mut Operation, audience: Audience) {
    let needed = SecurityRequirement::new::<_, _, String>("bearer", []);
    operation.security = match audience {
        Audience::Open => None,
        Audience::Anyone => Some(vec![SecurityRequirement::default(), needed]),
        Audience::User | Audience::Staff | Audience::Admin => Some(vec![needed]),
    };
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

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
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

async fn nowhere(request: Request) -> Problem {
    let path = request
        .uri()
        .path()
        .chars()
        .take(PATH_SHOWN_CHARS)
        .collect();
    GatewayError::NoRoute { path }.into()
}

const PATH_SHOWN_CHARS: usize = 200;

/// What every handler answers.
type Answer = Result<Response, Problem>;

/// A part of a peer's answer that its contract promises.
fn promised<T>(part: Option<T>, peer: &'static str, what: &'static str) -> Result<T, Problem> {
    Ok(part.ok_or(GatewayError::EmptyAnswer { peer, what })?)
}

/// The version that `If-Match` names, where the client sent one.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, GatewayError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    text.trim()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .and_then(|digits| digits.parse().ok())
        .filter(|version| *version > 0)
        .map(Some)
        .ok_or_else(|| GatewayError::IfMatchInvalid {
            got: text.chars().take(PATH_SHOWN_CHARS).collect(),
        })
}
