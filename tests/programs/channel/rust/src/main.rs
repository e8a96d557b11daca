// SPDX-License-Identifier: Apache-2.0
//! The Rust client as the tests drive it; peer.py says what each command does.

use aetherless::{Consumer, Direction, Error, Failure, Producer, Request};
use std::io::BufRead;

const LIMIT_MS: i32 = 60_000;

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (seed * 31 + place * 7 + (place >> 8)) as u8)
        .collect()
}

fn content(number: usize) -> Vec<u8> {
    let longest = if number % 10 == 0 { 16384 } else { 600 };
    pattern(1 + number * 7919 % longest, number)
}

fn handle(request: &Request) -> Result<Vec<u8>, Failure> {
    match request.method {
        "" | "echo" => Ok(request.data.to_vec()),
        "fail" => Err(Failure::Failed("told to fail".to_owned())),
        "describe" => Ok([request.attempt.to_string().as_bytes(), b" ", request.trace].concat()),
        "parts" => Ok(parts(request)),
        "grow" => Ok(vec![0; std::str::from_utf8(request.data)?.parse()?]),
        "hang" => {
            std::thread::sleep(std::time::Duration::from_millis(LIMIT_MS as u64));
            Ok(Vec::new())
        }
        "relay" => Ok(relay(request)),
        _ => Err(Failure::NoMethod),
    }
}

/// Return what came from each input, and the attempt.
fn parts(request: &Request) -> Vec<u8> {
    let joined = match request.parts {
        [] => request.data.to_vec(),
        parts => parts.join(&b'|'),
    };
    [request.attempt.to_string().as_bytes(), b" ", &joined].concat()
}

/// Call the function that the first word names with the rest; return what that brings.
fn relay(request: &Request) -> Vec<u8> {
    let at = request.data.iter().position(|&byte| byte == b' ');
    let (function, rest) = request.data.split_at(at.expect("two words"));
    let function = std::str::from_utf8(function).expect("a name");
    match request.call(function, &rest[1..]) {
        Ok(result) => result,
        Err(error) => format!("{} {}", error.reason.as_str(), error.message).into_bytes(),
    }
}

fn refusal(error: Error) -> String {
    match error {
        Error::Full => "full".to_owned(),
        Error::Empty => "empty".to_owned(),
        Error::TooLarge => "too_large".to_owned(),
        Error::Corrupt(damage) => {
            format!(
                "corrupt {} {} {}",
                damage.fault, damage.expected, damage.actual
            )
        }
        other => other.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{:02x}", byte)).collect()
}

fn script(mut producer: Producer, mut consumer: Consumer) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |place: usize| words[place].parse::<usize>().expect("a number");
        let answer = if words[0] == "put" {
            let payload = pattern(number(2), number(3));
            producer
                .publish(&payload, number(1) as u32)
                .map(|()| "ok".to_owned())
        } else {
            consumer
                .receive()
                .map(|(kind, payload)| format!("record {} {}", kind, hex(&payload)))
        };
        println!("{}", answer.unwrap_or_else(refusal));
    }
}

fn sleep(wake: i32) {
    let mut ear = libc::pollfd {
        fd: wake,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut number = [0u8; 8];
    // SAFETY: both buffers live while the calls run.
    unsafe {
        libc::poll(&mut ear, 1, LIMIT_MS);
        libc::read(wake, number.as_mut_ptr().cast(), number.len());
    }
}

fn produce(mut producer: Producer, wake: i32, count: usize) -> Result<(), Error> {
    for number in 0..count {
        let payload = content(number);
        loop {
            match producer.publish(&payload, number as u32) {
                Err(Error::Full) => {}
                result => break result?,
            }
            match producer.doze(payload.len()) {
                Err(Error::Full) => sleep(wake),
                result => result?,
            }
        }
    }
    Ok(())
}

fn consume(mut consumer: Consumer, wake: i32, count: usize) -> Result<(), Error> {
    for number in 0..count {
        let record = loop {
            match consumer.receive() {
                Err(Error::Empty) => {}
                result => break result?,
            }
            match consumer.doze() {
                Err(Error::Empty) => sleep(wake),
                result => result?,
            }
        };
        assert!(
            record == (number as u32, content(number)),
            "record {} differs",
            number
        );
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words[0] == "serve" {
        return Err(aetherless::serve_requests(None, 1, handle));
    }
    let given: Vec<i32> = words[1..]
        .iter()
        .map(|word| word.parse().expect("a number"))
        .collect();
    let ring = given[given.len() - 1] as usize;
    let (bytes, bell) = (
        3 * 4096 + 2 * ring,
        if given.len() > 2 { given[2] } else { -1 },
    );
    // SAFETY: the region is never unmapped, and each process has at most one of each end.
    let (producer, consumer) = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            access,
            libc::MAP_SHARED,
            given[0],
            0,
        )
        .cast();
        (
            Producer::new(memory, bytes, Direction::ToPeer, ring, bell)?,
            Consumer::new(memory, bytes, Direction::ToPeer, ring, bell)?,
        )
    };
    match words[0].as_str() {
        "script" => script(producer, consumer),
        "produce" => produce(producer, given[1], given[3] as usize)?,
        _ => consume(consumer, given[1], given[3] as usize)?,
    }
    Ok(())
}
