//! Those who are notified of alarms: a receiver of webhooks, and a mail server.

use super::daemon::own_loopback_address;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// The secret of all webhooks, as its file holds it.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What is behind a port: writes down what it verified, and answers as the test says.
pub struct Webhook {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    got: Arc<Mutex<Vec<(u16, Value)>>>,
    secret_file: PathBuf,
}

impl Webhook {
    /// `dir` takes the file with its secret.
    pub fn start(dir: &Path) -> Webhook {
        let secret_file = dir.join("webhook-secret");
        std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
        let listener = TcpListener::bind(own_loopback_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let (status, got) = (Arc::new(AtomicU16::new(200)), Arc::<Mutex<Vec<_>>>::default());
        let (its_status, its_got) = (Arc::clone(&status), Arc::clone(&got));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (status, got) = (Arc::clone(&its_status), Arc::clone(&its_got));
                std::thread::spawn(move || take(stream.unwrap(), &status, &got));
            }
        });
        Webhook { address, status, got, secret_file }
    }

    /// A table `[[notify]]` that leads here.
    pub fn table(&self, name: &str) -> String {
        format!(
            "[[notify]]\nname = {name:?}\nkind = \"webhook\"\nurl = \"http://{}/hook?k=v\"\nsecret_file = {:?}\n",
            self.address, self.secret_file
        )
    }

    /// From now on it answers with this status.
    pub fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What it answered with 200, in order.
    pub fn accepted(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body.clone()).collect()
    }

    /// How many it refused.
    pub fn refused(&self) -> usize {
        self.got.lock().unwrap().iter().filter(|(status, _)| *status != 200).count()
    }

    /// The events of an alarm that it accepted, in order.
    pub fn events_of(&self, code: &str, garage: Option<&str>) -> Vec<String> {
        let of = |body: &&Value| body["alarm"]["code"] == code && body["alarm"]["garage"].as_str() == garage;
        self.accepted().iter().filter(of).map(|body| body["event"].as_str().unwrap().to_owned()).collect()
    }
}

/// Reads one request, and verifies its signature as the standard says.
fn take(stream: TcpStream, status: &AtomicU16, got: &Mutex<Vec<(u16, Value)>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    assert_eq!(line, "POST /hook?k=v HTTP/1.1\r\n");
    let mut headers = std::collections::BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let (id, seconds) = (&headers["webhook-id"], &headers["webhook-timestamp"]);
    let signed = [format!("{id}.{seconds}.").as_bytes(), &body].concat();
    let signature = headers["webhook-signature"].strip_prefix("v1,").unwrap();
    hmac::verify(&key, &signed, &STANDARD.decode(signature).unwrap()).expect("the signature is right");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["id"], *id.as_str());
    let status = status.load(Ordering::SeqCst);
    got.lock().unwrap().push((status, body));
    let mut stream = stream;
    let _ =
        write!(stream, "HTTP/1.1 {status} X\r\nLocation: http://{id}.example/\r\nContent-Length: 0\r\n\r\n");
}

/// Takes mail for everybody.
pub struct MailSink {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<String>>>,
    tls: bool,
}

impl MailSink {
    /// In plain text.
    pub fn start() -> MailSink {
        MailSink::start_with(None)
    }

    /// Only with STARTTLS, with the certificate and key of a directory, and the password `p`.
    pub fn start_tls(certs: &Path) -> MailSink {
        let chain: Vec<_> = CertificateDer::pem_file_iter(certs.join("certificate.pem"))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(certs.join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        MailSink::start_with(Some(Arc::new(
            config.with_no_client_auth().with_single_cert(chain, key).unwrap(),
        )))
    }

    fn start_with(tls: Option<Arc<rustls::ServerConfig>>) -> MailSink {
        let listener =
            TcpListener::bind(if tls.is_some() { "127.0.0.1:0".into() } else { own_loopback_address() })
                .unwrap();
        let (address, mails) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let has_tls = tls.is_some();
        let its_mails = Arc::clone(&mails);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mails, tls, stream) = (Arc::clone(&its_mails), tls.clone(), stream.unwrap());
                // A client that leaves in the middle is no failure of the sink.
                std::thread::spawn(move || talk_smtp(stream, tls, &mails));
            }
        });
        MailSink { address, mails, tls: has_tls }
    }

    /// A table `[[notify]]` that leads here.
    pub fn table(&self, name: &str, more: &str) -> String {
        let tls = if self.tls { "starttls" } else { "none" };
        format!(
            "[[notify]]\nname = {name:?}\nkind = \"email\"\nsmtp = \"{}\"\ntls = {tls:?}\nfrom = \"Fogpost <fogpost@city.example>\"\nto = [\"ada@city.example\", \"bob@city.example\"]\n{more}\n",
            self.address
        )
    }

    /// The mails that it took, headers and all, in order.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    /// How many mails have this in their subject.
    pub fn with_subject(&self, part: &str) -> usize {
        let has =
            |mail: &&String| mail.lines().any(|line| line.starts_with("Subject: ") && line.contains(part));
        self.mails().iter().filter(has).count()
    }
}

fn talk_smtp(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    mails: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut plain = stream;
    plain.write_all(b"220 sink\r\n").ok()?;
    let Some(tls) = tls else { return dialogue(plain, false, mails) };
    let hello = line_of(&mut plain)?;
    assert!(hello.starts_with("EHLO"), "{hello}");
    plain.write_all(b"250-sink\r\n250 STARTTLS\r\n").ok()?;
    assert_eq!(line_of(&mut plain)?, "STARTTLS", "nothing is said before TLS");
    plain.write_all(b"220 go\r\n").ok()?;
    let connection = rustls::ServerConnection::new(tls).unwrap();
    dialogue(rustls::StreamOwned::new(connection, plain), true, mails)
}

fn line_of(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    Some(String::from_utf8(line).unwrap().trim_end().to_owned())
}

fn dialogue(mut stream: impl Read + Write, must_log_in: bool, mails: &Mutex<Vec<String>>) -> Option<()> {
    let (mut recipients, mut logged_in) = (0, !must_log_in);
    loop {
        let line = line_of(&mut stream)?;
        let answer = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => "250-sink\r\n250 AUTH PLAIN",
            "AUTH" => {
                let said = line.rsplit(' ').next().unwrap();
                logged_in = STANDARD.decode(said).unwrap() == b"\0u\0p";
                if logged_in { "235 welcome" } else { "535 no" }
            }
            "MAIL" if logged_in => "250 ok",
            "RCPT" => {
                recipients += 1;
                "250 ok"
            }
            "DATA" => {
                assert_eq!(recipients, 2);
                stream.write_all(b"354 go\r\n").ok()?;
                let mut mail = String::new();
                loop {
                    let line = line_of(&mut stream)?;
                    if line == "." {
                        break;
                    }
                    mail += &(line + "\n");
                }
                mails.lock().unwrap().push(mail);
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "503 what",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
}
