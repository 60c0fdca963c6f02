//! The methods of the protocol, as `rmcp` dispatches them.
//!
//! The handler has no state of its own: each call is carried out with the head of its own HTTP request.

use std::borrow::Cow;

use axum::Router;
use axum::http::request::Parts;
use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CustomRequest, CustomResult, ErrorCode, GetTaskParams,
    GetTaskResult, Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities,
    ServerConfig, Tool, UpdateTaskParams,
};
use rmcp::service::RequestContext;

use super::inner::Inner;
use super::progress::Listener;
use super::tools::Way;
use super::{legacy, resources, tools};
use crate::edge::state::Edge;
use crate::guard::tokens::Identity;

/// Versions that are served. A client that shakes hands with an unknown version gets the newest that has a handshake.
pub(super) static VERSIONS: [ProtocolVersion; 4] = [
    ProtocolVersion::V_2025_03_26,
    ProtocolVersion::V_2025_06_18,
    ProtocolVersion::V_2025_11_25,
    ProtocolVersion::V_2026_07_28,
];
/// Methods that `rmcp` has types for. With other parameters they arrive as unknown methods.
const TYPED: [&str; 9] = [
    "initialize",
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
];
const INSTRUCTIONS: &str = "Each tool that is not named taskgate_… submits one task to the fleet. A call that takes long answers with \
    the id of the task: ask taskgate_get_task for it, or call as a task of the protocol.";

/// What is known of a request before its message is read.
#[derive(Clone)]
pub(super) struct Came {
    pub identity: Identity,
    /// Whether the client takes an answer in more than one message.
    pub takes_stream: bool,
}

/// A caller, and the means to call operations with its credentials.
pub(super) struct Call<'a> {
    pub edge: &'a Edge,
    pub identity: Identity,
    pub inner: Inner,
    pub takes_stream: bool,
}

#[derive(Clone)]
pub(super) struct Agent {
    edge: Edge,
    gateway: Router,
}

impl Agent {
    pub(super) fn new(edge: Edge, gateway: Router) -> Self {
        Self { edge, gateway }
    }

    fn call(&self, context: &RequestContext<RoleServer>) -> Result<Call<'_>, ErrorData> {
        let head = context.extensions.get::<Parts>();
        let came = head.and_then(|head| head.extensions.get::<Came>());
        let (Some(head), Some(came)) = (head, came) else {
            return Err(ErrorData::internal_error("the request came without its head", None));
        };
        let most = self.edge.limits.wait.min(self.edge.http.request_timeout);
        let inner = Inner::of(self.gateway.clone(), head, most);
        Ok(Call { edge: &self.edge, identity: came.identity.clone(), inner, takes_stream: came.takes_stream })
    }
}

impl ServerHandler for Agent {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().enable_tasks().build();
        ServerConfig::new(capabilities)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
            .with_server_info(Implementation::new("taskgate", env!("CARGO_PKG_VERSION")).with_title("taskgate"))
            .with_instructions(INSTRUCTIONS)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&VERSIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::of_catalog(self.edge.catalog.entries(), name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.call(&context)?.tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = self.call(&context)?;
        let takes_tasks = context.client_capabilities().is_some_and(|client| client.supports_tasks());
        let token = context.meta.get_progress_token().filter(|_| call.takes_stream);
        let listener = token.map(|token| Listener { peer: context.peer, token, gone: context.ct });
        let way = Way { takes_tasks, listener };
        call.call_tool(&request.name, request.arguments.unwrap_or_default(), way).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(resources::list())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Ok(self.call(&context)?.read_resource(&request.uri).await?.into())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let asks = context.client_capabilities().is_some_and(|client| client.elicitation.is_some());
        Ok(GetTaskResult::new(self.call(&context)?.task(&request.task_id, asks).await?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.call(&context)?.update_task(&request.task_id, request.input_responses).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.call(&context)?.revoke(&request.task_id).await.map(|_| ())
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let params = request.params.unwrap_or_default();
        if let Some(method) = legacy::method(&request.method) {
            return legacy::answer(&self.call(&context)?, method, &params).await.map(CustomResult::new);
        }
        if TYPED.contains(&request.method.as_str()) {
            return Err(super::wrong(format!("the parameters are not those of {}", request.method)));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("there is no method {}", request.method), None))
    }
}
