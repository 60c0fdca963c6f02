//! Responses that know the type of their body.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{Schema, Type};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response as Documented, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::kinds::Kind;

/// A response of the kind `K` whose JSON body is a `T`.
pub struct Typed<K, T> {
    response: Response,
    shape: PhantomData<fn() -> (K, T)>,
}

/// A view that borrows its data. `T` is its type in a handler's signature, `With` the borrowed view that is serialised.
pub trait Lends {
    type With<'a>: Serialize;
}

impl<K: Kind, T> Typed<K, T> {
    /// An answer with this body.
    pub fn of(view: &T) -> Self
    where
        T: Serialize,
    {
        Self::written(text(view))
    }

    /// As [`Typed::of`], for a view that borrows.
    pub fn lent(view: &T::With<'_>) -> Self
    where
        T: Lends,
    {
        Self::written(text(view))
    }

    /// An answer whose body is the JSON text of a `T` already.
    pub fn written(body: String) -> Self {
        Self::streamed(body.into())
    }

    /// An answer whose body is not in memory as a whole.
    pub fn streamed(body: body::Body) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = K::STATUS;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { response, shape: PhantomData }
    }

    /// Adds a header. An invalid value is left out.
    pub fn with(mut self, name: impl Into<HeaderName>, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name.into(), value);
        }
        self
    }

    /// Adds an extension for a middleware; the client does not see it.
    pub fn noting(mut self, note: impl Clone + Send + Sync + 'static) -> Self {
        self.response.extensions_mut().insert(note);
        self
    }

    /// Forbids caching.
    pub fn no_store(self) -> Self {
        self.with(header::CACHE_CONTROL, "no-store")
    }
}

impl<K, T> IntoResponse for Typed<K, T> {
    fn into_response(self) -> Response {
        self.response
    }
}

impl<K: Kind, T: ToSchema> IntoResponses for Typed<K, T> {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let mut response = ResponseBuilder::new()
            .description(described::<T>().unwrap_or_else(|| K::DESCRIPTION.to_owned()))
            .content("application/json", ContentBuilder::new().schema(Some(reference::<T>())).build())
            .extensions(Some(ExtensionsBuilder::new().add(COMPONENTS, serde_json::json!(schemas_of::<T>())).build()));
        for (name, type_, description) in K::HEADERS {
            let schema = ObjectBuilder::new().schema_type(type_.clone());
            response = response
                .header(*name, HeaderBuilder::new().schema(Some(schema)).description(Some(*description)).build());
        }
        BTreeMap::from([(K::STATUS.as_str().to_owned(), response.build().into())])
    }
}

/// The schemas that a response needs are passed along in this member; [`components`] collects them.
const COMPONENTS: &str = "x-components";

/// Moves the schemas in an operation's responses to the document's components.
pub fn components(operation: &mut Value, schemas: &mut serde_json::Map<String, Value>) {
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for response in responses.into_iter().flat_map(|responses| responses.values_mut()).filter_map(Value::as_object_mut)
    {
        if let Some(Value::Object(found)) = response.remove(COMPONENTS) {
            for (name, schema) in found {
                schemas.entry(name).or_insert(schema);
            }
        }
    }
}

fn reference<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

fn schemas_of<T: ToSchema>() -> BTreeMap<String, RefOr<Schema>> {
    let mut found = Vec::new();
    T::schemas(&mut found);
    found.push((T::name().into_owned(), T::schema()));
    found.into_iter().collect()
}

/// The first line of the body type's description.
fn described<T: ToSchema>() -> Option<String> {
    let schema = serde_json::to_value(T::schema()).ok()?;
    let text = schema.get("description")?.as_str()?.lines().next()?;
    Some(text.trim_end_matches('.').to_owned())
}

/// 204.
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl IntoResponses for NoContent {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let response = ResponseBuilder::new().description("Done; there is no body");
        BTreeMap::from([("204".to_owned(), response.build().into())])
    }
}

/// 304: the client has the current version.
pub struct Unchanged(Response);

impl Unchanged {
    pub fn of(etag: &str) -> Self {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        if let Ok(etag) = HeaderValue::from_str(etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Self(response)
    }
}

impl IntoResponse for Unchanged {
    fn into_response(self) -> Response {
        self.0
    }
}

impl IntoResponses for Unchanged {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        BTreeMap::from([("304".to_owned(), ResponseBuilder::new().description("As you have it").build().into())])
    }
}

/// One of two successful answers.
pub enum Either<A, B> {
    One(A),
    Other(B),
}

impl<A: IntoResponse, B: IntoResponse> IntoResponse for Either<A, B> {
    fn into_response(self) -> Response {
        match self {
            Self::One(answer) => answer.into_response(),
            Self::Other(answer) => answer.into_response(),
        }
    }
}

impl<A: IntoResponses, B: IntoResponses> IntoResponses for Either<A, B> {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let mut responses = A::responses();
        responses.extend(B::responses());
        responses
    }
}

/// A response that is described by its operation's attribute: a stream, a page, a text.
pub struct Described(pub Response);

impl IntoResponse for Described {
    fn into_response(self) -> Response {
        self.0
    }
}

impl IntoResponses for Described {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        BTreeMap::new()
    }
}

/// A view as JSON text.
pub fn text(view: &impl Serialize) -> String {
    serde_json::to_string(view).expect("a view is JSON")
}

/// For the headers of [`Kind`].
pub const TEXT: Type = Type::String;
pub const WHOLE: Type = Type::Integer;
