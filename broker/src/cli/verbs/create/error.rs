//! Why the arguments of `create` do not make a request.

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use crate::cli::values::ValueError;

/// Why the arguments of `create` do not make a request.
#[derive(Debug, Error)]
pub(super) enum CreateError {
    /// A key came twice.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The folder that the command was started in cannot be told.
    #[error("cannot tell the working directory, which the child would get; give one with --cwd")]
    WorkingDirectory(#[source] std::io::Error),
    /// A command of several words came as one, and no program has that name.
    #[error(
        "invalid value for {flag}: {text:?} is one word with a space in it, and no program; give each word by itself: {form}"
    )]
    OneWord {
        /// The flag that it was given with.
        flag: &'static str,
        /// The word that has a space in it.
        text: String,
        /// How it is given.
        form: String,
    },
    /// The wire takes text only.
    #[error("the working directory {0:?} is not UTF-8; give another with --cwd")]
    NotUtf8(PathBuf),
    /// The wire takes text only.
    #[error(
        "the variable {0:?} of the environment is not UTF-8; unset it, or give it another value with --env"
    )]
    VariableNotUtf8(OsString),
}
