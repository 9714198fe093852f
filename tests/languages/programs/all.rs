// Rust: threads, channels, processes, local sockets, files.
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::{fs, thread, time::Duration};

fn main() {
    let total = Arc::new(Mutex::new(0));
    let all: Vec<_> = (1..=8).map(|n| { let total = total.clone(); thread::spawn(move || *total.lock().unwrap() += n) }).collect();
    for one in all { one.join().unwrap(); }
    let (send, receive) = mpsc::channel();
    thread::scope(|s| { s.spawn(move || send.send(42).unwrap()); });
    println!("{} {}", total.lock().unwrap(), receive.recv().unwrap());
    let timed_out = Condvar::new().wait_timeout(Mutex::new(()).lock().unwrap(), Duration::from_millis(5)).unwrap().1.timed_out();
    println!("{} {}", timed_out, thread::spawn(|| { if true { std::panic::resume_unwind(Box::new(1)) } }).join().is_err());

    let mut child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"spawned").unwrap();
    println!("{} {:?}", String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), Command::new("false").status().unwrap().code());
    let listener = UnixListener::bind("/tmp/rust").unwrap();
    let client = thread::spawn(|| UnixStream::connect("/tmp/rust").unwrap().write_all(b"local\n").unwrap());
    let mut line = String::new();
    BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
    client.join().unwrap();
    fs::create_dir_all("a/b").unwrap();
    fs::write("a/b/f", vec![7; 99999]).unwrap();
    fs::copy("a/b/f", "a/copy").unwrap();
    let mut copy = Vec::new();
    let mut file = fs::File::open("a/copy").unwrap();
    file.read_to_end(&mut copy).unwrap();
    file.sync_all().unwrap();
    println!("{} {} {}", line.trim(), copy.len(), fs::read_dir("a").unwrap().count());
}
