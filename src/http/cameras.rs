//! A listener for cameras and gates on a local network, which know neither TLS nor tokens.
//!
//! **Promise.** It takes events, and shows nothing. Only addresses of the list may post; where devices have to authenticate, each does
//! it by HTTP Basic, with the name and the text of a token with the role `ingest`.
//! **Not promised.** Secrecy: everybody on that network can read what is posted, passwords too.

use super::Problem;
use super::access::Access;
use super::hosts::Arrival;
use super::tokens::{Role, TokenHolder};
use crate::audit::AuditKind;
use crate::codes;
use crate::config::AddressRange;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::sync::Arc;

/// Who may post there. Cloning shares it.
#[derive(Clone)]
pub struct CameraGate(Arc<CameraRules>);

struct CameraRules {
    /// Empty: loopback alone.
    allowed: Vec<AddressRange>,
    /// Devices have to authenticate.
    needs_password: bool,
    access: Access,
}

impl CameraGate {
    pub fn new(allowed: Vec<AddressRange>, needs_password: bool, access: Access) -> CameraGate {
        CameraGate(Arc::new(CameraRules { allowed, needs_password, access }))
    }

    /// These routes, for devices alone.
    pub fn guarded<S: Clone + Send + Sync + 'static>(&self, routes: Router<S>) -> Router<S> {
        routes.route_layer(middleware::from_fn_with_state(self.clone(), check))
    }

    fn judge(&self, client: IpAddr, headers: &HeaderMap) -> Result<(), CameraRefused> {
        let CameraRules { allowed, needs_password, access } = &*self.0;
        let is_allowed = match allowed.is_empty() {
            true => client.is_loopback(),
            false => allowed.iter().any(|range| range.contains(client)),
        };
        match () {
            () if !is_allowed => Err(CameraRefused::Address(client)),
            () if *needs_password && !device(headers, access).is_some_and(|its| access.may_post(&its)) => {
                Err(CameraRefused::Password)
            }
            () => Ok(()),
        }
    }
}

enum CameraRefused {
    Address(IpAddr),
    Password,
}

/// Which device authenticates itself by HTTP Basic (RFC 7617).
fn device(headers: &HeaderMap, access: &Access) -> Option<TokenHolder> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (name, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    access.tokens().whose(secret).filter(|its| its.name.as_str() == name && its.role == Role::Ingest)
}

async fn check(State(gate): State<CameraGate>, request: Request, next: Next) -> Response {
    let Some(arrival) = request.extensions().get::<Arrival>().copied() else {
        return Problem::internal(&"a request came in on an unknown way").into_response();
    };
    let judged = gate.judge(arrival.client, request.headers());
    if let Err(refused) = &judged {
        let code = match refused {
            CameraRefused::Address(_) => codes::ADDRESS_NOT_ALLOWED,
            CameraRefused::Password => codes::TOKEN_MISSING,
        };
        gate.0.access.note(AuditKind::Refused, request.uri().path(), None, arrival, code.as_str());
    }
    match judged {
        Ok(()) => next.run(request).await,
        Err(CameraRefused::Address(client)) => {
            let detail = format!(
                "the address {client} is not in the list of cameras (--camera-allow). Nothing was stored"
            );
            Problem::new(StatusCode::FORBIDDEN, detail).code(codes::ADDRESS_NOT_ALLOWED).into_response()
        }
        Err(CameraRefused::Password) => {
            let detail = "devices authenticate by HTTP Basic, with the name and the text of a token with the role ingest. Nothing was stored";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, detail).code(codes::TOKEN_MISSING);
            let mut answer = problem.into_response();
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"fogpost\""));
            answer
        }
    }
}
