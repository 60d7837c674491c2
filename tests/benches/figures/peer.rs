//! The other end of a bare socket, in a process of its own: it answers at once, and does nothing else.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::failure::{Attempt, Failure};
use crate::scene::Scene;

/// The size of a request and of its echo.
pub(crate) const ECHO_BYTES: usize = 64;

/// What the peer sends for each request.
#[derive(Clone, Debug)]
pub(crate) enum Answers {
    /// The same 64 bytes.
    Echo,
    /// The content of this file, for each line.
    File(PathBuf),
}

/// A peer that serves one connection. It is killed with this.
#[derive(Debug)]
pub(crate) struct Peer {
    process: Child,
    socket: PathBuf,
}

impl Peer {
    /// Starts it: this program, with the hidden flags that lead to [`serve`].
    pub(crate) fn start(scene: &Scene, answers: &Answers) -> Result<Self, Failure> {
        let attempt = "start the other end of a bare socket";
        let socket = scene.subfolder()?.join("peer.sock");
        let mut command = Command::new(env::current_exe().attempting(attempt)?);
        command.arg("--peer").arg(&socket);
        if let Answers::File(path) = answers {
            command.arg("--peer-answer").arg(path);
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().attempting(attempt)?;
        let mut peer = Self { process, socket };
        // It writes one byte when it listens.
        if let Some(output) = &mut peer.process.stdout {
            output.read_exact(&mut [0]).attempting(attempt)?;
        }
        Ok(peer)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn connect(&self) -> Result<UnixStream, Failure> {
        UnixStream::connect(&self.socket).attempting("connect to a bare socket")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One round trip.
pub(crate) fn echo(stream: &mut UnixStream) -> Result<Duration, Failure> {
    let mut bytes = [7; ECHO_BYTES];
    let begin = Instant::now();
    stream.write_all(&bytes).attempting("write to a bare socket")?;
    stream.read_exact(&mut bytes).attempting("read from a bare socket")?;
    Ok(begin.elapsed())
}

/// The peer's own side: serves one connection until that is closed.
pub(crate) fn serve(socket: &Path, answers: &Answers) -> Result<(), Failure> {
    let listener = UnixListener::bind(socket).attempting("listen on a bare socket")?;
    std::io::stdout().write_all(b"!").attempting("say that the bare socket is there")?;
    std::io::stdout().flush().attempting("say that the bare socket is there")?;
    let (mut stream, _) = listener.accept().attempting("accept on a bare socket")?;
    match answers {
        Answers::Echo => serve_echo(&mut stream),
        Answers::File(path) => {
            let answer = fs::read(path).attempting("read the answer of a bare socket")?;
            serve_answer(&mut stream, &answer)
        }
    }
}

fn serve_echo(stream: &mut UnixStream) -> Result<(), Failure> {
    let mut bytes = [0; ECHO_BYTES];
    loop {
        match stream.read_exact(&mut bytes) {
            Ok(()) => stream.write_all(&bytes).attempting("echo")?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).attempting("read what is to be echoed"),
        }
    }
}

fn serve_answer(stream: &mut UnixStream, answer: &[u8]) -> Result<(), Failure> {
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes).attempting("read a line")?;
        match bytes.get(..length).and_then(<[u8]>::last) {
            None => return Ok(()),
            Some(b'\n') => stream.write_all(answer).attempting("answer a line")?,
            Some(_) => {}
        }
    }
}
