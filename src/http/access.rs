//! Who may ask for what.
//!
//! **Promise.** Where tokens are needed, a route answers only a request with a token whose role includes what the route needs. Programs
//! send the token as `Authorization: Bearer`; a browser signs in once, and then sends it as a cookie that no script can read and
//! that no page of another site can have sent.
//! **Kept by.** Each group of routes is made by [`Access::guarded`], which says what they need. What needs nothing stands beside them.
//! **Not promised.** That tokens are needed on loopback before there is a file of them: until then everybody on this machine may ask
//! for everything.

use super::Problem;
use super::hosts::Arrival;
use super::pages::SIGN_IN;
use super::tokens::{LiveTokens, Role, SignedIn, TokenHolder};
use crate::audit::{Audit, AuditKind};
use crate::codes::{self, Code};
use crate::messaging::SiteName;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::Arc;

/// What a daemon is asked for, and by whom. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Access(Arc<AccessState>);

#[derive(Debug)]
struct AccessState {
    tokens: LiveTokens,
    rules: AccessRules,
    audit: Audit,
}

/// The settings of [`Access`].
#[derive(Debug, Clone, Default)]
pub struct AccessRules {
    /// Tokens are needed even before there is a file of them: others than this machine can reach the address.
    pub always: bool,
    /// Nobody needs a token for the board and the occupancy.
    pub public_board: bool,
    /// Browsers reach this daemon by TLS.
    pub has_tls: bool,
    /// The garage whose events are posted here.
    pub garage: Option<SiteName>,
}

/// Why a request is refused.
#[derive(Debug)]
enum AccessRefused {
    /// It shows no token.
    Missing,
    /// It shows one that is not in force.
    Unknown,
    /// The role of its token does not include what is needed.
    Role(TokenHolder),
    /// Its token is for another garage.
    Garage(TokenHolder),
}

impl Access {
    pub fn new(tokens: LiveTokens, rules: AccessRules) -> Access {
        Access(Arc::new(AccessState { tokens, rules, audit: Audit::default() }))
    }

    /// The same, which notes sign-ins and refused attempts in this list.
    pub fn noting_in(&self, audit: Audit) -> Access {
        let AccessState { tokens, rules, .. } = &*self.0;
        Access(Arc::new(AccessState { tokens: tokens.clone(), rules: rules.clone(), audit }))
    }

    /// Notes what a client did, or tried to do.
    pub(super) fn note(
        &self,
        kind: AuditKind,
        what: &str,
        who: Option<&TokenHolder>,
        arrival: Arrival,
        outcome: &str,
    ) {
        let who = who.map(|its| (its.name.to_string(), its.role.to_string()));
        self.0.audit.note(kind, route(what), who, arrival.client.to_string(), outcome);
    }

    pub fn tokens(&self) -> &LiveTokens {
        &self.0.tokens
    }

    pub(super) fn has_tls(&self) -> bool {
        self.0.rules.has_tls
    }

    /// Whether requests need tokens.
    pub fn needs_tokens(&self) -> bool {
        self.0.rules.always || self.0.tokens.exist()
    }

    /// These routes, for those alone whose role includes `need`.
    pub fn guarded<S: Clone + Send + Sync + 'static>(&self, need: Role, routes: Router<S>) -> Router<S> {
        routes.route_layer(middleware::from_fn_with_state((self.clone(), need), check))
    }

    /// Who shows a token in these headers; `None` without one.
    pub(super) fn shown(&self, headers: &HeaderMap, arrival: Arrival) -> Option<Option<TokenHolder>> {
        let secret = bearer(headers).or_else(|| cookie(headers, &self.cookie_name(arrival)))?;
        Some(self.0.tokens.whose(secret))
    }

    /// Cookies know no ports, and several daemons may run on one host.
    pub(super) fn cookie_name(&self, arrival: Arrival) -> String {
        let prefix = if self.0.rules.has_tls { "__Host-" } else { "" };
        format!("{prefix}fogpost-{}", arrival.local.port())
    }

    /// Whether these are the events of its garage that it may post here.
    pub(super) fn may_post(&self, identity: &TokenHolder) -> bool {
        identity.role == Role::Ingest && identity.garage == self.0.rules.garage
    }

    fn judge(&self, headers: &HeaderMap, arrival: Arrival, need: Role) -> Result<SignedIn, AccessRefused> {
        if !self.needs_tokens() {
            return Ok(SignedIn(None));
        }
        let shown = self.shown(headers, arrival);
        if need == Role::Board && self.0.rules.public_board {
            return Ok(SignedIn(shown.flatten()));
        }
        let identity = shown.ok_or(AccessRefused::Missing)?.ok_or(AccessRefused::Unknown)?;
        if !identity.role.includes(need) {
            return Err(AccessRefused::Role(identity));
        }
        if need == Role::Ingest && !self.may_post(&identity) {
            return Err(AccessRefused::Garage(identity));
        }
        Ok(SignedIn(Some(identity)))
    }
}

async fn check(State((access, need)): State<(Access, Role)>, mut request: Request, next: Next) -> Response {
    let Some(arrival) = request.extensions().get::<Arrival>().copied() else {
        return Problem::internal(&"a request came in on an unknown way").into_response();
    };
    match access.judge(request.headers(), arrival, need) {
        Ok(signed_in) => {
            request.extensions_mut().insert(signed_in);
            next.run(request).await
        }
        Err(refused) => {
            let is_page = *request.method() == Method::GET && accepts_html(request.headers());
            match refused {
                AccessRefused::Missing | AccessRefused::Unknown if is_page => {
                    Redirect::to(SIGN_IN).into_response()
                }
                refused => {
                    let (code, who) = refused.told();
                    access.note(AuditKind::Refused, request.uri().path(), who, arrival, code.as_str());
                    refused.answer(need)
                }
            }
        }
    }
}

/// A browser that shows an answer as a page asks for HTML.
fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

/// The route of a path, without the plates and names that are in it.
fn route(path: &str) -> String {
    let mut parts = path.splitn(4, '/').skip(1);
    let route: String = parts
        .by_ref()
        .take(2)
        .map(|part| format!("/{}", part.chars().take(40).collect::<String>()))
        .collect();
    if parts.next().is_some() { route + "/…" } else { route }
}

impl AccessRefused {
    /// The code, and who was refused as far as that is known.
    fn told(&self) -> (Code, Option<&TokenHolder>) {
        match self {
            AccessRefused::Missing => (codes::TOKEN_MISSING, None),
            AccessRefused::Unknown => (codes::TOKEN_UNKNOWN, None),
            AccessRefused::Role(identity) | AccessRefused::Garage(identity) => {
                (codes::ROLE_INSUFFICIENT, Some(identity))
            }
        }
    }

    fn answer(self, need: Role) -> Response {
        let (code, _) = self.told();
        let (status, detail) = match &self {
            AccessRefused::Missing => (
                StatusCode::UNAUTHORIZED,
                format!(
                    "this needs a token with the role {need}: send \"Authorization: Bearer TOKEN\" (\"tokens add\" makes one)"
                ),
            ),
            AccessRefused::Unknown => (
                StatusCode::UNAUTHORIZED,
                "this token is not valid: it was revoked, or is another daemon's".to_owned(),
            ),
            AccessRefused::Role(identity) => (
                StatusCode::FORBIDDEN,
                format!(
                    "this needs a token with the role {need}, and {:?} has the role {}",
                    identity.name.as_str(),
                    identity.role
                ),
            ),
            AccessRefused::Garage(identity) => (
                StatusCode::FORBIDDEN,
                format!("the token {:?} is for the events of another garage", identity.name.as_str()),
            ),
        };
        let mut answer =
            Problem::new(status, format!("{detail}. Nothing was stored")).code(code).into_response();
        if status == StatusCode::UNAUTHORIZED {
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fogpost\""));
        }
        answer
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (its_name, value) = cookie.trim().split_once('=')?;
        (its_name == name).then_some(value)
    })
}
