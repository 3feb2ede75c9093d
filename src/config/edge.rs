//! The settings of `edge`.

use super::file::{self, ConfigFile};
use super::http::{self, HttpConfig, HttpSettings};
use super::ranges::{self, AtLeastOne, BoardIntervalMs};
use super::{AddressRange, CarsPerHour, ConfigError, GARAGE, GLOBAL, HostName, NETWORK, STORAGE, TLS, tls};
use crate::messaging::SiteName;
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use crate::transport::tls::TlsFiles;
use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The settings of an edge as one source gives them: the command line with the environment, or the table `[edge]` of a file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeSettings {
    /// Name of the garage: 1 to 64 bytes of printable UTF-8 [required for an edge that runs]
    #[arg(long, global = true, value_name = "NAME", env = "FOGPOST_GARAGE_NAME", help_heading = GLOBAL)]
    #[arg(allow_hyphen_values = true)]
    pub garage_name: Option<SiteName>,
    /// Directory in which events are kept [default: data/edge-NAME]
    #[arg(long, global = true, value_name = "DIR", env = "FOGPOST_DATA_DIR", help_heading = GLOBAL)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub data_dir: Option<PathBuf>,
    /// Format of the log on stderr [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT", env = "FOGPOST_LOG_FORMAT", help_heading = GLOBAL)]
    pub log_format: Option<LogFormat>,
    /// Server address, tls://HOST:PORT, or tcp://HOST:PORT on this machine; repeat it in order of preference [default:
    /// tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS", env = "FOGPOST_SERVER", help_heading = NETWORK)]
    #[arg(value_delimiter = ',')]
    pub server: Option<Vec<ServerAddress>>,
    /// HTTP address for producers and browsers [default: the first free port from 127.0.0.1:5581]
    #[arg(long, value_name = "ADDR:PORT", env = "FOGPOST_HTTP", help_heading = NETWORK)]
    pub http: Option<SocketAddr>,
    /// Names and addresses by which browsers reach this program, besides loopback and its own address; requests for others are
    /// refused (421) [default: none]
    #[arg(long, value_name = "HOST", env = "FOGPOST_HTTP_HOSTS", help_heading = NETWORK, value_delimiter = ',')]
    pub http_hosts: Option<Vec<HostName>>,
    /// File of the tokens that requests need, made by "tokens add" [default: beside the data directory, with "-tokens.toml"]
    #[arg(long, global = true, value_name = "FILE", env = "FOGPOST_HTTP_TOKENS", help_heading = NETWORK)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub http_tokens: Option<PathBuf>,
    /// Directory with certificate.pem and key.pem for HTTP [default: beside the data directory, with "-http-certs"]
    #[arg(long, value_name = "DIR", env = "FOGPOST_HTTP_TLS_DIR", help_heading = TLS)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub http_tls_dir: Option<PathBuf>,
    /// Serve HTTP without TLS outside this machine: everybody on the way can read tokens and plates, and use the tokens
    #[arg(long, value_name = "BOOL", env = "FOGPOST_INSECURE_HTTP", help_heading = TLS)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_http: Option<bool>,
    /// Show the board and the occupancy without a token
    #[arg(long, value_name = "BOOL", env = "FOGPOST_PUBLIC_BOARD", help_heading = NETWORK)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub public_board: Option<bool>,
    /// HTTP address for cameras and gates that know neither TLS nor tokens: it takes events, and shows nothing [default: none]
    #[arg(long, value_name = "ADDR:PORT", env = "FOGPOST_CAMERA_HTTP", help_heading = NETWORK)]
    pub camera_http: Option<SocketAddr>,
    /// Addresses that may post there, such as 10.1.0.0/16; repeat it [default: this machine]
    #[arg(long, value_name = "ADDRESSES", env = "FOGPOST_CAMERA_ALLOW", help_heading = NETWORK, value_delimiter = ',')]
    pub camera_allow: Option<Vec<AddressRange>>,
    /// Cameras and gates authenticate by HTTP Basic, with the name and the text of a token with the role ingest
    #[arg(long, value_name = "BOOL", env = "FOGPOST_CAMERA_PASSWORDS", help_heading = NETWORK)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub camera_passwords: Option<bool>,
    /// Interval between two requests for the city's board, in milliseconds: 100 to 3600000 [default: 1000]
    #[arg(long, value_name = "MS", env = "FOGPOST_BOARD_INTERVAL_MS", help_heading = NETWORK)]
    pub board_interval_ms: Option<BoardIntervalMs>,
    /// Directory with ca.pem, certificate.pem and key.pem, for tls:// addresses [default: beside the
    /// data directory, with "-certs"]
    #[arg(long, value_name = "DIR", env = "FOGPOST_TLS_DIR", help_heading = TLS)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub tls_dir: Option<PathBuf>,
    /// Certificates of the authorities that the server's certificate may have [default: ca.pem in the TLS directory]
    #[arg(long, value_name = "FILE", env = "FOGPOST_TLS_CA", help_heading = TLS)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate that this program shows [default: certificate.pem in the TLS directory]
    #[arg(long, value_name = "FILE", env = "FOGPOST_TLS_CERTIFICATE", help_heading = TLS)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub tls_certificate: Option<PathBuf>,
    /// Key of that certificate [default: key.pem in the TLS directory]
    #[arg(long, value_name = "FILE", env = "FOGPOST_TLS_KEY", help_heading = TLS)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub tls_key: Option<PathBuf>,
    /// Allow tcp:// addresses outside this machine: everybody on the way can read plates and send events
    #[arg(long, value_name = "BOOL", env = "FOGPOST_INSECURE_PLAINTEXT", help_heading = TLS)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_plaintext: Option<bool>,
    /// Number of parking spaces of the garage [default: 500]
    #[arg(long, value_name = "SPACES", env = "FOGPOST_CAPACITY", help_heading = GARAGE)]
    pub capacity: Option<u32>,
    /// Simulate this many cars per hour, to try an edge out without a camera [default: none]
    #[arg(long, value_name = "CARS_PER_HOUR", env = "FOGPOST_SIMULATE", help_heading = GARAGE)]
    pub simulate: Option<CarsPerHour>,
    /// Maximum number of waiting events; producers are refused (507) above it [default: 10000000]
    #[arg(long, value_name = "EVENTS", env = "FOGPOST_MAX_EVENTS", help_heading = STORAGE)]
    pub max_events: Option<AtLeastOne>,
    /// Maximum size of the waiting events on disk; producers are refused (507) above it [default: 4294967296]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_MAX_BYTES", help_heading = STORAGE)]
    pub max_bytes: Option<AtLeastOne>,
    /// Disk space to keep free; producers are refused (507) below it [default: 5 % of the disk, between 4 and 64 MB]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_RESERVE_BYTES", help_heading = STORAGE)]
    pub reserve_bytes: Option<u64>,
    /// Identity of this machine: any text. On a data directory from another machine, the edge begins a new epoch [default: the
    /// content of /etc/machine-id]
    #[arg(long, value_name = "ID", env = "FOGPOST_MACHINE_ID", help_heading = STORAGE)]
    #[arg(allow_hyphen_values = true, value_parser = ranges::not_empty)]
    #[serde(default, deserialize_with = "ranges::text")]
    pub machine_id: Option<String>,
}

impl EdgeSettings {
    /// These settings, completed by the table `[edge]` of `file` where they say nothing.
    pub fn completed_by(self, file: Option<&Path>) -> Result<EdgeSettings, ConfigError> {
        match file {
            Some(path) => self.completed_from(path, &file::read(path)?),
            None => Ok(self),
        }
    }

    /// The same, for a file at `path` with this text.
    pub fn completed_from(self, path: &Path, text: &str) -> Result<EdgeSettings, ConfigError> {
        let file: ConfigFile<EdgeSettings, IgnoredAny, IgnoredAny> = file::parse(path, text)?;
        Ok(first_given!(self, file.edge; EdgeSettings {
            garage_name, data_dir, log_format, server, http, http_hosts, http_tokens, http_tls_dir, insecure_http, public_board,
            camera_http, camera_allow, camera_passwords, board_interval_ms,
            tls_dir, tls_ca, tls_certificate, tls_key, insecure_plaintext,
            capacity, simulate, max_events, max_bytes, reserve_bytes, machine_id,
        }))
    }

    /// The file of tokens, for a command that needs no other setting.
    pub fn tokens(&self) -> Result<PathBuf, ConfigError> {
        match &self.http_tokens {
            Some(file) => Ok(file.clone()),
            None => self.data_dir().map(|data_dir| http::tokens_of(&data_dir)),
        }
    }

    /// The data directory, for a command that needs no other setting.
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let default = || self.garage_name.as_ref().map(default_data_dir);
        self.data_dir.clone().or_else(default).ok_or_else(|| {
            let reason = "it is missing. Give the directory of the edge, or its --garage-name";
            ConfigError::setting("--data-dir", reason)
        })
    }
}

#[derive(Debug, Clone)]
pub struct EdgeConfig {
    pub garage_name: SiteName,
    pub data_dir: PathBuf,
    /// Those outside this machine have TLS, unless `--insecure-plaintext` was given.
    pub servers: Vec<ServerAddress>,
    /// Read only for addresses with TLS.
    pub tls: TlsFiles,
    /// `None`: the first free port from 127.0.0.1:5581.
    pub http: Option<SocketAddr>,
    pub web: HttpConfig,
    /// Where cameras post, if they have an address of their own.
    pub camera_http: Option<SocketAddr>,
    /// Who may post there; empty: this machine.
    pub camera_allow: Vec<AddressRange>,
    pub camera_passwords: bool,
    pub capacity: u32,
    pub simulate: Option<CarsPerHour>,
    pub board_interval: Duration,
    pub max_events: u64,
    pub max_bytes: u64,
    /// `None`: 5 % of the filesystem, between 4 and 64 MB.
    pub reserve_bytes: Option<u64>,
    /// `None`: that of /etc/machine-id.
    pub machine_id: Option<String>,
    pub log_format: LogFormat,
}

impl TryFrom<EdgeSettings> for EdgeConfig {
    type Error = ConfigError;

    fn try_from(settings: EdgeSettings) -> Result<EdgeConfig, ConfigError> {
        let garage_name = settings.garage_name.ok_or_else(|| {
            let reason = "it is missing. Give the name of this garage, such as --garage-name 1";
            ConfigError::setting("--garage-name", reason)
        })?;
        let servers = match settings.server {
            Some(servers) if servers.is_empty() => {
                return Err(ConfigError::setting("--server", "the list is empty"));
            }
            Some(servers) => servers,
            None => vec!["tcp://127.0.0.1:5555".parse().expect("it is an address")],
        };
        if let Some(nowhere) = servers.iter().find(|server| server.host_and_port().ends_with(":0")) {
            let reason = format!("{nowhere} has port 0, to which nothing can connect");
            return Err(ConfigError::setting("--server", &reason));
        }
        tls::check_plaintext("--server", &servers, settings.insecure_plaintext == Some(true))?;
        let data_dir = settings.data_dir.unwrap_or_else(|| default_data_dir(&garage_name));
        let tls_dir = settings.tls_dir.unwrap_or_else(|| tls::beside(&data_dir, "-certs"));
        let web = HttpSettings {
            hosts: settings.http_hosts,
            tokens: settings.http_tokens,
            tls_dir: settings.http_tls_dir,
            public_board: settings.public_board,
            insecure: settings.insecure_http,
        };
        let camera_allow = settings.camera_allow.unwrap_or_default();
        if settings.camera_http.is_some_and(|address| !address.ip().to_canonical().is_loopback())
            && camera_allow.is_empty()
        {
            let reason = "others than this machine can reach it, so everybody there could post events. Name the addresses of cameras and gates: --camera-allow 10.1.0.0/16";
            return Err(ConfigError::setting("--camera-http", reason));
        }
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let default_tls = TlsFiles::in_dir(&tls::beside(&data_dir, "-http-certs"));
        let web = web.typed(settings.http.unwrap_or(local), &data_dir, default_tls);
        Ok(EdgeConfig {
            data_dir,
            garage_name,
            servers,
            tls: tls::files(&tls_dir, settings.tls_ca, settings.tls_certificate, settings.tls_key),
            http: settings.http,
            web,
            camera_http: settings.camera_http,
            camera_allow,
            camera_passwords: settings.camera_passwords == Some(true),
            capacity: settings.capacity.unwrap_or(500),
            simulate: settings.simulate,
            board_interval: Duration::from_millis(
                settings.board_interval_ms.map_or(1000, BoardIntervalMs::get),
            ),
            max_events: settings.max_events.map_or(10_000_000, AtLeastOne::get),
            max_bytes: settings.max_bytes.map_or(4 << 30, AtLeastOne::get),
            reserve_bytes: settings.reserve_bytes,
            machine_id: settings.machine_id,
            log_format: settings.log_format.unwrap_or_else(LogFormat::default_here),
        })
    }
}

/// The default data directory of a garage. A name may hold characters that have a meaning in a path; these are
/// written as `%` and their bytes, so that two names never share a directory.
fn default_data_dir(garage: &SiteName) -> PathBuf {
    let encoded = |name: String, c: char| name.replace(c, &format!("%{:02X}", u32::from(c)));
    // "%" first: what the others become holds one.
    let name = ['%', '/', '\\'].into_iter().fold(garage.to_string(), encoded);
    Path::new("data").join(format!("edge-{name}"))
}
