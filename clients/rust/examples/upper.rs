// SPDX-License-Identifier: Apache-2.0
//! A function without an HTTP server: it makes text large, or has another function do that.

use aetherless::{Failure, Request};

fn handle(request: &Request) -> Result<Vec<u8>, Failure> {
    match request.method {
        "" => Ok(request.data.to_ascii_uppercase()),
        "via" => via(request),
        _ => Err(Failure::NoMethod),
    }
}

/// Answer "NAME text" with what the function NAME, which `may_call` has to name, makes of the text.
fn via(request: &Request) -> Result<Vec<u8>, Failure> {
    let said = std::str::from_utf8(request.data)?;
    match said.split_once(' ') {
        Some((name, text)) => Ok(request.call(name, text.as_bytes())?),
        None => Err(Failure::Failed("say a function's name and a text".into())),
    }
}

fn main() {
    panic!("{}", aetherless::serve_requests(None, 1, handle));
}
