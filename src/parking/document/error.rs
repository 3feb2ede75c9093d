//! Why a document cannot be read or shown.

use super::LAYOUT;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the document has layout {0}, this program knows layout {LAYOUT}: use a later release")]
    Layout(u16),
    #[error("the document is damaged: {0}. It is not shown; import its copy from the documents directory")]
    Damaged(String),
    #[error("cannot write the document")]
    Output(#[from] io::Error),
}
