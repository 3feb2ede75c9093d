//! The page on which a browser signs in with a token, and out.

use super::Problem;
use super::access::Access;
use super::bodies::Bodies;
use super::hosts::Arrival;
use super::pages::{SIGN_IN, page};
use super::tokens::TokenHolder;
use crate::audit::AuditKind;
use crate::codes;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use std::sync::Arc;

/// A browser stays signed in until the token is revoked, or for this long: a display in a garage has no keyboard.
const COOKIE_SECONDS: u32 = 400 * 24 * 3600;
const FORM_MAX: usize = 4 * 1024;
const FORMS_BYTES_MAX: usize = 64 * 1024;

struct SignIn {
    access: Access,
    forms: Bodies,
}

type SharedSignIn = State<Arc<SignIn>>;

/// The routes of `router`, and the page on which a browser signs in and out.
pub fn with_sign_in(access: &Access, router: Router) -> Router {
    let forms = Bodies::new("a form", FORM_MAX, FORMS_BYTES_MAX);
    let signing = Router::new().route(SIGN_IN, get(show).post(sign_in)).route("/sign-out", post(sign_out));
    router.merge(signing.with_state(Arc::new(SignIn { access: access.clone(), forms })))
}

/// The form; above it, who is signed in, or what was wrong.
fn form(state: &str) -> Response {
    page(&include_str!("sign_in.html").replace("%STATE%", state))
}

async fn show(
    State(its): SharedSignIn,
    Extension(arrival): Extension<Arrival>,
    request: Request,
) -> Response {
    if !its.access.needs_tokens() {
        return Redirect::to("/").into_response();
    }
    let signed_in = its.access.shown(request.headers(), arrival).flatten();
    form(&signed_in.map(signed_in_as).unwrap_or_default())
}

fn signed_in_as(identity: TokenHolder) -> String {
    // The characters of a name need no escapes.
    let TokenHolder { name, role, .. } = identity;
    format!(
        "<p>Signed in as {name} (role {role}).</p>\n<form method=\"post\" action=\"/sign-out\"><button>Sign out</button></form>\n<p>To sign in as somebody else:</p>"
    )
}

async fn sign_in(
    State(its): SharedSignIn,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Response, Problem> {
    let form_body = its.forms.read(body).await?;
    let text = std::str::from_utf8(&form_body).unwrap_or_default();
    // The characters of a token need no escapes, except a space that was copied with it.
    let secret = text.split('&').find_map(|field| field.strip_prefix("token=")).unwrap_or_default();
    let secret = secret.trim_matches(|c| matches!(c, '+' | ' ' | '\r' | '\n'));
    let Some(identity) = its.access.tokens().whose(secret) else {
        its.access.note(AuditKind::Refused, SIGN_IN, None, arrival, codes::TOKEN_UNKNOWN.as_str());
        let refused = form("<p class=\"bad\">This token is not valid.</p>");
        return Ok((StatusCode::UNAUTHORIZED, refused).into_response());
    };
    its.access.note(AuditKind::SignIn, SIGN_IN, Some(&identity), arrival, "done");
    Ok(with_cookie(&its.access, arrival, secret, COOKIE_SECONDS, "/"))
}

async fn sign_out(
    State(its): SharedSignIn,
    Extension(arrival): Extension<Arrival>,
    request: Request,
) -> Response {
    if let Some(identity) = its.access.shown(request.headers(), arrival).flatten() {
        its.access.note(AuditKind::SignOut, "/sign-out", Some(&identity), arrival, "done");
    }
    with_cookie(&its.access, arrival, "", 0, SIGN_IN)
}

/// Leads to `path`, with this cookie.
fn with_cookie(access: &Access, arrival: Arrival, value: &str, seconds: u32, path: &str) -> Response {
    let name = access.cookie_name(arrival);
    let secure = if access.has_tls() { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let mut answer = Redirect::to(path).into_response();
    match HeaderValue::try_from(cookie) {
        Ok(cookie) => _ = answer.headers_mut().insert(header::SET_COOKIE, cookie),
        Err(error) => return Problem::internal(&error).into_response(),
    }
    answer
}
