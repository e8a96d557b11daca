// SPDX-License-Identifier: Apache-2.0
//! An HTTP server of the standard library alone: a thread per connection, shared memory counted.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::{env, process, thread};

struct Memory {
    token: u64,
    count: AtomicU64,
    edition: String,
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn serve(mut client: TcpStream, memory: &Memory) -> Result<()> {
    let head = BufReader::new(client.try_clone()?).lines();
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    let body = format!(
        r#"{{"token":"{:016x}","count":{},"pid":{},"edition":"{}"}}"#,
        memory.token,
        memory.count.fetch_add(1, Ordering::SeqCst) + 1,
        process::id(),
        memory.edition,
    );
    write!(
        client,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{}",
        body.len(),
        body
    )
}

fn main() -> Result<()> {
    let port = env::var("PORT").expect("PORT is set");
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    let memory = Arc::new(Memory {
        token: random()?,
        count: AtomicU64::new(0),
        edition: env::var("EDITION").unwrap_or_else(|_| "1".into()),
    });
    for client in listener.incoming() {
        let (client, memory) = (client?, Arc::clone(&memory));
        thread::spawn(move || serve(client, &memory));
    }
    Ok(())
}
