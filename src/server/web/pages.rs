//! The pages for people. They show what the JSON routes answer, and change nothing: what is to be done is shown as a command.

use super::SharedRouter;
use crate::http;
use crate::http::tokens::SignedIn;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

/// What all pages have at the head of their styles and scripts.
const BASE_CSS: &str = include_str!("../pages/base.css");
const BASE_JS: &str = include_str!("../pages/base.js");

/// The city, a page for each garage, the stays of a plate, and what waits for a person.
pub(super) fn routes() -> SharedRouter {
    Router::new()
        .route("/", page(include_str!("../pages/city.html")))
        .route("/garages/{name}", page(include_str!("../pages/garage.html")))
        .route("/plates", page(include_str!("../pages/plates.html")))
        .route("/review", page(include_str!("../pages/review.html")))
}

fn page<S: Clone + Send + Sync + 'static>(html: &'static str) -> axum::routing::MethodRouter<S> {
    get(async move |signed_in: SignedIn| -> Response {
        let html = html.replace("%BASE_CSS%", BASE_CSS).replace("%BASE_JS%", BASE_JS);
        http::page_for(&html, &signed_in)
    })
}
