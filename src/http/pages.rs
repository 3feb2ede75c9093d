//! Pages for browsers, and what browsers may do with answers.
//!
//! **Promise.** A page runs the scripts and shows the styles that it was written with, and no others, whatever the names are that it
//! shows. It loads nothing from other hosts. No other site can put an answer into a page of its own, and none is kept in a cache.
//! **Kept by.** Two lines of defence: scripts write texts with `textContent` alone, and a content security policy that allows what
//! has the page's nonce, a random number of this answer.

use super::tokens::SignedIn;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

/// What stands in a page where its nonce belongs.
const NONCE: &str = "%NONCE%";
/// What stands in a page where it says who is signed in.
const SIGNED_IN: &str = "%SIGNED_IN%";
/// Where a browser signs in and out.
pub(super) const SIGN_IN: &str = "/sign-in";

/// A page that says who is signed in, and leads to where they sign out.
pub fn page_for(html: &str, signed_in: &SignedIn) -> Response {
    let who = signed_in.0.as_ref().map(|its| format!("<a href=\"/sign-in\">{} ({})</a>", its.name, its.role));
    page(&html.replace(SIGNED_IN, &who.unwrap_or_default()))
}

/// For HTML that is no page of ours: documents as they were issued. They have styles of their own, and no scripts.
const DOCUMENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A page. Where `html` has `%NONCE%`, as attribute of each of its scripts and styles, it gets the nonce.
pub fn page(html: &str) -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html.replace(NONCE, &nonce))).into_response()
}

/// Tells browsers what they may not do with an answer.
pub(super) fn protect(headers: &mut HeaderMap) {
    const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let is_html =
        headers.get(header::CONTENT_TYPE).is_some_and(|its| its.as_bytes().starts_with(b"text/html"));
    if is_html && !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, DOCUMENT_POLICY);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    // Not "no-referrer": a browser would then hide the origin of our own forms, too.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
