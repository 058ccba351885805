//! Requests to the HTTP server of a coordinator.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The body of `path` at `address` (`HOST:PORT`).
///
/// # Errors
/// There is no answer, or none within two seconds.
pub fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok(body.unwrap_or_default())
}

/// The value of a series: its name, with its labels if it has any.
pub fn value(scraped: &str, series: &str) -> Option<f64> {
    scraped.lines().find_map(|line| {
        let value = line.strip_prefix(series)?.strip_prefix(' ')?;
        value.parse().ok()
    })
}
