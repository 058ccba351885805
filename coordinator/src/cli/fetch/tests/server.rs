//! A tiny HTTP server for the tests: real sockets, answers by script, cuts where told to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The headers of one request, names in lower case.
pub(super) type Request = HashMap<String, String>;

/// What to answer.
pub(super) struct Reply {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is closed, though more was promised.
    cut: Option<usize>,
}

impl Reply {
    pub(super) fn new(status: &'static str, body: &[u8]) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            cut: None,
        }
    }

    /// A server that honours Range and If-Range for a file with this ETag.
    pub(super) fn file(request: &Request, content: &[u8], etag: &str) -> Self {
        let unchanged = request.get("if-range").is_none_or(|known| known == etag);
        let range = request.get("range").filter(|_| unchanged);
        let start = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let reply = match start {
            None => Self::new("200 OK", content),
            Some(start) if start < content.len() => {
                let span = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                Self::new("206 Partial Content", &content[start..]).header("content-range", &span)
            }
            Some(_) => Self::new("416 Range Not Satisfiable", b"")
                .header("content-range", &format!("bytes */{}", content.len())),
        };
        reply.header("etag", etag)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    fn send(&self, mut stream: &TcpStream) {
        let length = self.body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 {}\r\ncontent-length: {length}\r\n",
            self.status
        );
        let _ = write!(stream, "connection: close\r\n{}\r\n", self.headers.concat());
        let _ = stream.write_all(&self.body[..self.cut.unwrap_or(length)]);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Serves until dropped; keeps every request for the test to read.
pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers request number `n` (from 0) with `script(request, n)`.
    pub(super) fn start(script: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let request = read(&stream);
                let mut seen = seen.lock().unwrap();
                script(&request, seen.len()).send(&stream);
                seen.push(request);
            }
        });
        Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: &TcpStream) -> Request {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head = lines.skip(1).take_while(|line| !line.is_empty());
    head.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    })
    .collect()
}
