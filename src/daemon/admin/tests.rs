use super::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A daemon that adds up the numbers it receives.
struct AddingDaemon {
    dir: PathBuf,
    sum: Arc<AtomicU64>,
    /// Notified when a command is begun.
    begun: Arc<Notify>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _held: DataDir,
}

impl AddingDaemon {
    fn start(dir: &Path) -> AddingDaemon {
        AddingDaemon::start_with(dir, CLIENT_PATIENCE)
    }

    fn start_with(dir: &Path, client_patience: Duration) -> AddingDaemon {
        let held = DataDir::hold(dir).unwrap();
        let socket = AdminSocket { client_patience, ..AdminSocket::listen(&held).unwrap() };
        let (sum, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let begun = Arc::new(Notify::new());
        let (adds, begins, stopping) = (Arc::clone(&sum), Arc::clone(&begun), stop.clone());
        let add = move |call: Call<u64>| {
            let (adds, stopping) = (Arc::clone(&adds), stopping.clone());
            begins.notify_one();
            async move {
                match call.request {
                    13 => return Err("13 brings bad luck. Nothing was changed".to_owned().into()),
                    99 => stopping.cancelled().await,
                    _ => {}
                }
                let sum = adds.fetch_add(call.request, Ordering::SeqCst) + call.request;
                Ok(json!({"sum": sum, "by": call.caller.as_str()}))
            }
        };
        let serving = tokio::spawn(socket.serve(stop.clone(), add));
        AddingDaemon { dir: dir.to_owned(), sum, begun, stop, serving, _held: held }
    }

    fn sum(&self) -> u64 {
        self.sum.load(Ordering::SeqCst)
    }

    async fn ask(&self, request: impl Serialize + Send + 'static) -> Result<Option<Value>, NotDone> {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || ask(&dir, &request)).await.unwrap()
    }

    /// Sends these bytes and gives back all that comes until the daemon closes.
    async fn say(&self, bytes: &[u8], then_close: bool) -> String {
        let mut stream = UnixStream::connect(short_path(&self.dir).unwrap().1).await.unwrap();
        let _ = stream.write_all(bytes).await;
        if then_close {
            let _ = stream.shutdown().await; // the daemon may have closed it already
        }
        let mut said = Vec::new();
        // What it did not read of a long request makes an error of the end.
        while let Ok(1..) = stream.read_buf(&mut said).await {}
        String::from_utf8(said).unwrap()
    }
}

#[tokio::test]
async fn only_the_own_user_may_give_commands() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = AddingDaemon::start(dir.path());
    let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let by = daemon.ask(1).await.unwrap().unwrap()["by"].as_str().unwrap().to_owned();
    assert_eq!(by, Caller::this_process().as_str());
    assert!(by.contains(&format!("uid {}", rustix::process::getuid().as_raw())), "{by:?}");
}

#[tokio::test]
async fn a_command_is_accepted_and_then_answered() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = AddingDaemon::start(dir.path());
    let said = daemon.say(b"3\n", false).await;
    let (progress, answer) = said.split_once('\n').unwrap();
    assert_eq!(progress, r#"{"progress":"accepted"}"#);
    assert!(answer.starts_with(r#"{"ok":{"#) && answer.ends_with("\"sum\":3}}\n"), "{answer}");
    assert_eq!(daemon.ask(1).await.unwrap().unwrap()["sum"], 4);
    let answer = daemon.ask(13).await;
    assert!(matches!(answer, Err(NotDone::Refused(reason)) if reason.contains("bad luck")));
    assert_eq!(daemon.sum(), 4);
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_takes_commands_too() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(120)).join("y".repeat(200));
    let daemon = AddingDaemon::start(&long);
    assert!(long.join(NAME).exists());
    assert_eq!(daemon.ask(4).await.unwrap().unwrap()["sum"], 4);
    daemon.stop.cancel();
    daemon.serving.await.unwrap();
    assert!(!long.join(NAME).exists());
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_nobody_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(ask(dir.path(), &1).unwrap().is_none());
    let daemon = AddingDaemon::start(dir.path());
    assert_eq!(daemon.ask(4).await.unwrap().unwrap()["sum"], 4);
}

#[tokio::test]
async fn without_a_daemon_the_directory_is_opened_and_with_one_in_between_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = reach(dir.path(), &1).unwrap_err();
    assert_eq!(error.code(), codes::NO_DATA_DIRECTORY, "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "asking left something behind");
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let DaemonOrDirectory::Directory(held) = reach(dir.path(), &1).unwrap() else { panic!("nobody listens") };
    let path = dir.path().to_owned();
    // Somebody holds it and does not listen: a daemon that starts.
    let starting = tokio::task::spawn_blocking(move || reach(&path, &1));
    let error = starting.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("Try again") && error.contains(&std::process::id().to_string()), "{error}");
    drop(held);
    let daemon = AddingDaemon::start(dir.path());
    let path = dir.path().to_owned();
    let reached = tokio::task::spawn_blocking(move || reach(&path, &5)).await.unwrap().unwrap();
    assert!(matches!(reached, DaemonOrDirectory::Daemon(_)));
    assert_eq!(daemon.sum(), 5);
}

#[tokio::test]
async fn a_daemon_that_stops_is_no_daemon_and_what_it_had_begun_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = AddingDaemon::start(dir.path());
    let idle = UnixStream::connect(dir.path().join(NAME)).await.unwrap();
    let path = dir.path().to_owned();
    let long = tokio::task::spawn_blocking(move || ask(&path, &99));
    daemon.begun.notified().await;
    daemon.stop.cancel();
    daemon.serving.await.unwrap();
    drop(idle);
    assert_eq!(long.await.unwrap().unwrap().unwrap()["sum"], 99);
    assert!(!dir.path().join(NAME).exists());
    assert!(ask(dir.path(), &1).unwrap().is_none());
}

#[tokio::test]
async fn nonsense_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = AddingDaemon::start(dir.path());
    let too_long = vec![b' '; REQUEST_MAX as usize + 2];
    let cases: [(&[u8], &str); 8] = [
        (b"\n", "not understood"),
        (b"{\n", "not understood"),
        (b"\"one\"\n", "not understood"),
        (b"-1\n", "not understood"),
        (b"1 2\n", "not understood"),
        (b"\xff\xfe\n", "not understood"),
        (b"1", "did not end"),
        (&too_long, "longer than"),
    ];
    for (bytes, reason) in cases {
        let said = daemon.say(bytes, true).await;
        assert!(said.contains(reason) && said.contains("Nothing was changed"), "{said:?} lacks {reason:?}");
        assert_eq!(said.lines().count(), 1, "{said:?}");
    }
    assert_eq!(daemon.sum(), 0);
    assert_eq!(daemon.ask(4).await.unwrap().unwrap()["sum"], 4);
}

#[tokio::test]
async fn slow_clients_lose_their_place_and_hold_up_nobody_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = AddingDaemon::start_with(dir.path(), Duration::from_millis(100));
    let mut idle = Vec::new();
    for _ in 0..CLIENTS_MAX * 2 {
        let mut stream = UnixStream::connect(dir.path().join(NAME)).await.unwrap();
        stream.write_all(b"1").await.unwrap();
        idle.push(stream);
    }
    assert_eq!(daemon.ask(4).await.unwrap().unwrap()["sum"], 4);
    for mut stream in idle {
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.contains("no complete line"), "{said:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_dies_leaves_no_doubt_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join(NAME)).unwrap();
    let dies = |says: &'static [u8]| {
        let listener = listener.try_clone().unwrap();
        let path = dir.path().to_owned();
        let daemon = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream);
            lines.read_until(b'\n', &mut Vec::new()).unwrap();
            lines.get_mut().write_all(says).unwrap();
        });
        let answer = ask(&path, &1);
        daemon.join().unwrap();
        answer.unwrap_err()
    };
    assert_eq!(dies(b"").code(), codes::COMMAND_NOT_TAKEN);
    let stops = dies(b"{\"progress\":\"accepted\"}\n{\"stopping\":true}\n");
    assert_eq!(stops.code(), codes::COMMAND_NOT_TAKEN, "{stops}");
    let begun = dies(b"{\"progress\":\"accepted\"}\n");
    assert_eq!(begun.code(), codes::COMMAND_FATE_UNKNOWN, "{begun}");
    let torn = dies(b"{\"progress\":\"accepted\"}\n{\"ok\":");
    assert_eq!(torn.code(), codes::COMMAND_FATE_UNKNOWN, "{torn}");
}
