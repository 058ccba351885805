//! A small HTTP server: real sockets, scripted answers, cut where the script says.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex};

/// What to answer.
pub(super) struct Reply {
    pub(super) status: &'static str,
    pub(super) body: Vec<u8>,
    /// Bytes of the body after which the connection closes, though more was promised.
    pub(super) cut: usize,
}

impl Reply {
    pub(super) fn new(status: &'static str, body: &[u8]) -> Self {
        Self {
            status,
            body: body.to_vec(),
            cut: usize::MAX,
        }
    }

    /// The answer of a server that knows ranges to a request for `content` from `start` on.
    pub(super) fn file(start: Option<usize>, content: &[u8]) -> Self {
        match start {
            None => Self::new("200 OK", content),
            Some(start) if start < content.len() => {
                Self::new("206 Partial Content", &content[start..])
            }
            Some(_) => Self::new("416 Range Not Satisfiable", b""),
        }
    }

    pub(super) fn cut_after(self, cut: usize) -> Self {
        Self { cut, ..self }
    }
}

/// Serves until the process ends, and keeps the start of each range that was asked for.
pub(super) struct Server {
    pub(super) url: String,
    starts: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Server {
    /// Answers request number `n` (from 0) for the bytes from `start` on by `script(start, n)`.
    pub(super) fn start(script: impl Fn(Option<usize>, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let starts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&starts);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                // A TLS handshake (record type 22) has no lines to wait for. What it sends is read
                // to its end, since closing earlier would reset the connection.
                let mut first = [0];
                if stream.peek(&mut first).is_ok() && first == [22] {
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                    continue;
                }
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let mut head = lines.take_while(|line| !line.is_empty());
                let range = head.by_ref().find_map(|line| {
                    let range = line.to_lowercase();
                    range
                        .strip_prefix("range: bytes=")?
                        .strip_suffix('-')?
                        .parse()
                        .ok()
                });
                head.for_each(drop);
                let reply = script(range, seen.lock().unwrap().len());
                seen.lock().unwrap().push(range);
                let (status, length) = (reply.status, reply.body.len());
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
                let _ = write!(stream, "{head}content-length: {length}\r\n\r\n");
                let _ = stream.write_all(&reply.body[..reply.cut.min(length)]);
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Self { url, starts }
    }

    pub(super) fn starts(&self) -> Vec<Option<usize>> {
        self.starts.lock().unwrap().clone()
    }
}
