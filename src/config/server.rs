//! The settings of `server`.

use super::alarms::{AlarmTables, AlarmThresholds, NotifyConfig};
use super::file::{self, ConfigFile};
use super::garages::LiveGarages;
use super::http::{HttpConfig, HttpSettings};
use super::ranges::{self, MaxConnections, Retention};
use super::{ConfigError, GLOBAL, HostName, NETWORK, STORAGE, TLS, tls};
use crate::codes;
use crate::parking::document::OperatorSettings;
use crate::parking::tariff::TariffSet;
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use crate::transport::gateway::PeerLimits;
use crate::transport::tls::TlsFiles;
use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The settings of a server as one source gives them: the command line with the environment, or the table `[server]` of a file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Directory of the ledger [default: data/server]
    #[arg(long, global = true, value_name = "DIR", env = "FOGPOST_DATA_DIR", help_heading = GLOBAL)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub data_dir: Option<PathBuf>,
    /// Format of the log on stderr [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT", env = "FOGPOST_LOG_FORMAT", help_heading = GLOBAL)]
    pub log_format: Option<LogFormat>,
    /// Address to which edges connect, tls://ADDR:PORT, or tcp://ADDR:PORT on this machine [default: tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS", env = "FOGPOST_LISTEN", help_heading = NETWORK)]
    pub listen: Option<ServerAddress>,
    /// Maximum number of connections of edges; at the maximum, one that is of no use gives way to a new one [default: 2048]
    #[arg(long, value_name = "CONNECTIONS", env = "FOGPOST_MAX_CONNECTIONS", help_heading = NETWORK)]
    pub max_connections: Option<MaxConnections>,
    /// Maximum number of connections of edges from one address [default: 256]
    #[arg(long, value_name = "CONNECTIONS", env = "FOGPOST_MAX_CONNECTIONS_PER_ADDRESS", help_heading = NETWORK)]
    pub max_connections_per_address: Option<MaxConnections>,
    /// HTTP address for people and programs [default: 127.0.0.1:5580]
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
    /// Directory with certificate.pem and key.pem for HTTP [default: the certificate for tls:// addresses]
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
    /// Directory with ca.pem, certificate.pem and key.pem, for tls:// addresses, and the authority of "certs" [default: beside the
    /// data directory, with "-certs"]
    #[arg(long, global = true, value_name = "DIR", env = "FOGPOST_TLS_DIR", help_heading = TLS)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub tls_dir: Option<PathBuf>,
    /// Certificates of the authorities that the certificates of edges may have [default: ca.pem in the TLS directory]
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
    /// Disk space to keep free; when less is free, edges keep their events [default: 5 % of the disk, between 4 and 64 MB]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_RESERVE_BYTES", help_heading = STORAGE)]
    pub reserve_bytes: Option<u64>,
    /// Directory for the copies of issued documents, best on another disk [default: beside the data directory, with "-documents"]
    #[arg(long, global = true, value_name = "DIR", env = "FOGPOST_DOCUMENTS_DIR", help_heading = STORAGE)]
    #[serde(default, deserialize_with = "ranges::path")]
    pub documents_dir: Option<PathBuf>,
    /// Days after which the plates of charged stays are forgotten, counted from the end of the month of the exit: 1 to 36500, or
    /// "never" [default: never]
    #[arg(long, value_name = "DAYS", env = "FOGPOST_RETENTION_DAYS", help_heading = STORAGE)]
    pub retention_days: Option<Retention>,
}

#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    /// On this machine alone, or with TLS, unless `--insecure-plaintext` was given.
    pub listen: ServerAddress,
    /// The authority of `server certs`, and what is issued by it for this server.
    pub tls_dir: PathBuf,
    /// Read only for an address with TLS.
    pub tls: TlsFiles,
    /// What a peer may do at `listen`.
    pub peers: PeerLimits,
    pub http: SocketAddr,
    pub web: HttpConfig,
    /// `None`: 5 % of the filesystem, between 4 and 64 MB.
    pub reserve_bytes: Option<u64>,
    /// For the copies of issued documents.
    pub documents_dir: PathBuf,
    /// `None`: plates are kept.
    pub retention_days: Option<u32>,
    pub log_format: LogFormat,
    /// All tariffs of the file; empty without a file.
    pub tariffs: TariffSet,
    /// Who issues documents; without a name when the file gives none.
    pub operator: OperatorSettings,
    /// The garages of the file, as it is now.
    pub garages: LiveGarages,
    pub alarms: AlarmThresholds,
    /// Who is notified of alarms.
    pub notify: Vec<NotifyConfig>,
}

impl ServerConfig {
    /// `settings`, completed by `file` where they say nothing.
    pub fn new(settings: ServerSettings, file: Option<&Path>) -> Result<ServerConfig, ConfigError> {
        match file {
            Some(path) => ServerConfig::with_file(settings, Some((path, &file::read(path)?))),
            None => ServerConfig::with_file(settings, None),
        }
    }

    /// The same, for a file at this path with this text.
    pub fn with_file(
        mut settings: ServerSettings,
        file: Option<(&Path, &str)>,
    ) -> Result<ServerConfig, ConfigError> {
        let (mut operator, mut tariffs) = (OperatorSettings::default(), TariffSet::default());
        let mut garages = LiveGarages::default();
        let (mut alarms, mut notify) = (AlarmThresholds::default(), Vec::new());
        if let Some((path, text)) = file {
            let file: ConfigFile<IgnoredAny, ServerSettings, OperatorSettings> = file::parse(path, text)?;
            settings = first_given!(settings, file.server; ServerSettings {
                data_dir, log_format, listen, max_connections, max_connections_per_address, http, http_hosts, http_tokens, http_tls_dir, insecure_http, public_board, reserve_bytes, documents_dir,
                retention_days, tls_dir, tls_ca, tls_certificate, tls_key, insecure_plaintext,
            });
            operator = file.operator;
            garages = LiveGarages::of(path, text)?;
            let tables: AlarmTables = file::parse(path, text)?;
            alarms = tables.alarms.clone();
            notify = tables.receivers(path)?;
            tariffs = TariffSet::parse_config(text).map_err(|errors| {
                let errors: String = errors.iter().map(|error| format!("\n{error}")).collect();
                let reason =
                    format!("the configuration file {path:?} has tariffs that are not valid:{errors}");
                ConfigError::Refused(codes::TARIFFS_INVALID, reason)
            })?;
        }
        let limits = PeerLimits::default();
        let connections =
            |set: Option<MaxConnections>, default| set.map_or(default, |max| max.get() as usize);
        let default_listen = || "tcp://127.0.0.1:5555".parse().expect("it is an address");
        let data_dir = settings.data_dir.unwrap_or_else(|| "data/server".into());
        let listen = settings.listen.unwrap_or_else(default_listen);
        tls::check_plaintext(
            "--listen",
            std::slice::from_ref(&listen),
            settings.insecure_plaintext == Some(true),
        )?;
        let tls_dir = settings.tls_dir.unwrap_or_else(|| tls::beside(&data_dir, "-certs"));
        let web = HttpSettings {
            hosts: settings.http_hosts,
            tokens: settings.http_tokens,
            tls_dir: settings.http_tls_dir,
            public_board: settings.public_board,
            insecure: settings.insecure_http,
        };
        let http = settings.http.unwrap_or_else(|| ([127, 0, 0, 1], 5580).into());
        let tls = tls::files(&tls_dir, settings.tls_ca, settings.tls_certificate, settings.tls_key);
        let web = web.typed(http, &data_dir, tls.clone());
        Ok(ServerConfig {
            documents_dir: settings.documents_dir.unwrap_or_else(|| tls::beside(&data_dir, "-documents")),
            data_dir,
            listen,
            tls,
            tls_dir,
            peers: PeerLimits {
                all: connections(settings.max_connections, limits.all),
                per_address: connections(settings.max_connections_per_address, limits.per_address),
                ..limits
            },
            http,
            web,
            reserve_bytes: settings.reserve_bytes,
            retention_days: settings.retention_days.and_then(|Retention(days)| days),
            log_format: settings.log_format.unwrap_or_else(LogFormat::default_here),
            tariffs,
            operator,
            garages,
            alarms,
            notify,
        })
    }
}
