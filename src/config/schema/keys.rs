//! The keys of the configuration, the form of each, and what it is for.

/// A key, its form, and what it is for.
pub(super) type SchemaKey = (&'static str, ValueKind, &'static str);

/// The form of a value.
pub(super) enum ValueKind {
    Text,
    Path,
    Duration,
    /// A duration or `"none"`.
    DurationOrNone,
    Size,
    /// A whole number within bounds.
    Whole(u64, u64),
    /// One of these words, or a whole number within bounds.
    WholeOr(&'static [&'static str], u64, u64),
    Flag,
    Words(&'static [&'static str]),
    Strings,
    /// A list of whole numbers within bounds.
    Numbers(u64, u64),
    /// A list of some of these words.
    WordList(&'static [&'static str]),
    Endpoints,
    /// A table of strings under names of the user's own.
    StringTable,
    /// Files of pages under statuses.
    Pages,
    Table(&'static [SchemaKey]),
    Tables(&'static [SchemaKey]),
    /// Tables under names of the user's own.
    Named(&'static [SchemaKey]),
}

use ValueKind::{
    Duration, DurationOrNone, Endpoints, Flag, Named, Numbers, Pages, Path, Size, StringTable,
    Strings, Table, Tables, Text, Whole, WholeOr, WordList, Words,
};

const COLORS: ValueKind = Words(&["blue", "green"]);
const NUMBER_MAX: u64 = 1_000_000;
const LIMIT: ValueKind = WholeOr(&["none"], 1, NUMBER_MAX);

pub(super) const ROOT: &[SchemaKey] = &[
    ("include", Strings, "Other files of this configuration, as patterns"),
    ("state_dir", Path, "The folder of the state that survives a restart"),
    ("audit", Table(AUDIT), "The audit log"),
    ("workers", Whole(0, 1024), "Worker threads; 0 means one for each core"),
    ("log", Table(LOG), "The log"),
    ("admin", Table(ADMIN), "The admin API"),
    ("clients", Table(CLIENTS), "Which clients are internal, and which proxies are trusted"),
    ("forwarding", Table(FORWARDING), "How messages are forwarded"),
    ("timeouts", Table(TIMEOUTS), "Timeouts of all services"),
    ("limits", Table(LIMITS), "Limits of the process"),
    ("dns", Table(DNS), "How endpoints that are names are resolved"),
    ("shutdown", Table(SHUTDOWN), "The end of the process"),
    ("listener", Tables(LISTENER), "An address that clients connect to"),
    ("service", Named(SERVICE), "A service with its two pools"),
    ("rollouts", Table(ROLLOUTS), "What deployments may do"),
    ("rollout", Named(ROLLOUT), "A plan of a deployment"),
];
const ROLLOUTS: &[SchemaKey] = &[("exec", Flag, "Whether stages may run commands")];
const ROLLOUT: &[SchemaKey] = &[
    (
        "after_promotion",
        Words(&["rollback", "keep"]),
        "What a failure after the promotion leads to",
    ),
    ("if_interrupted", Words(&["undo", "wait"]), "What is done about a stage that may have run"),
    ("secrets", Named(SECRET), "Secrets of the stages"),
    ("stage", Tables(STAGE), "A stage"),
];
const SECRET: &[SchemaKey] = &[
    ("file", Path, "The file with the secret in its first line"),
    ("env", Text, "The environment variable with the secret"),
];
const STAGE: &[SchemaKey] = &[
    ("name", Text, "Its name"),
    (
        "kind",
        Words(&[
            "call", "until", "exec", "pool", "gate", "approve", "promote", "drain", "watch",
            "hold", "release",
        ]),
        "What it does",
    ),
    ("services", Strings, "Its services; by default all of the rollout"),
    ("only_if", Text, "A CEL expression: the stage is skipped unless it is true"),
    ("deadline", DurationOrNone, "The time for it, with all attempts"),
    ("retry", Table(STAGE_RETRY), "How often it is tried"),
    ("idempotent", Flag, "Whether it may be repeated if it may have run"),
    ("undo", Table(UNDO), "How it is undone"),
    URL,
    AT,
    PATH,
    METHOD,
    HEADERS,
    BODY,
    STATUS,
    CONDITION,
    SAVE,
    TIMEOUT,
    INTERVAL,
    COMMAND,
    ENV,
    DIR,
    ("healthy_within", DurationOrNone, "How long the stage waits until the endpoints are up"),
    (
        "confirm_within",
        Duration,
        "The promotion is taken back unless it is confirmed within this time",
    ),
    ("steps", Numbers(1, 100), "The steps of a gradual promotion, in percent"),
    ("step_for", Duration, "How long each step lasts"),
    ("until", Words(&["safe_to_stop", "drained"]), "What the stage waits for"),
    ("patience", DurationOrNone, "How long it waits"),
    (
        "then",
        Words(&["fail", "go_on", "end_streams", "wait"]),
        "What follows when the patience is over",
    ),
    ("inconclusive", Words(&["pass", "fail"]), "What too few requests for a verdict mean"),
    ("for", Duration, "How long the hold lasts at most"),
];
const UNDO: &[SchemaKey] = &[
    ("kind", Words(&["call", "until", "exec", "pool"]), "What it does"),
    ("deadline", DurationOrNone, "The time for it, with all attempts"),
    ("retry", Table(STAGE_RETRY), "How often it is tried"),
    ("idempotent", Flag, "Whether it may be repeated if it may have run"),
    ("if_failed", Words(&["stop", "continue"]), "What its failure leads to"),
    URL,
    AT,
    PATH,
    METHOD,
    HEADERS,
    BODY,
    STATUS,
    CONDITION,
    SAVE,
    TIMEOUT,
    INTERVAL,
    COMMAND,
    ENV,
    DIR,
];
const STAGE_RETRY: &[SchemaKey] =
    &[("attempts", Whole(1, 100), "Attempts"), ("delay", Duration, "Between two attempts")];
const URL: SchemaKey = ("url", Text, "Where the request goes");
const AT: SchemaKey =
    ("at", Words(&["candidate", "active"]), "The pool of which each endpoint gets the request");
const PATH: SchemaKey = ("path", Text, "The path of that request");
const METHOD: SchemaKey = ("method", Text, "The method");
const HEADERS: SchemaKey = ("headers", StringTable, "Headers");
const BODY: SchemaKey = ("body", Text, "The body");
const STATUS: SchemaKey = ("status", Strings, "The statuses that are expected");
const CONDITION: SchemaKey =
    ("condition", Text, "A CEL expression about the response that must be true");
const SAVE: SchemaKey = ("save", StringTable, "Values for later stages, as CEL expressions");
const TIMEOUT: SchemaKey = ("timeout", Duration, "The time for one request");
const INTERVAL: SchemaKey = ("interval", Duration, "Between two requests");
const COMMAND: SchemaKey = ("command", Strings, "The program and its arguments");
const ENV: SchemaKey = ("env", StringTable, "Environment variables");
const DIR: SchemaKey = ("dir", Path, "The working directory");
const LOG: &[SchemaKey] = &[
    ("level", Text, "error, warn, info, debug, trace, off, or directives for modules"),
    ("format", Words(&["auto", "json", "text"]), "The form of a line"),
];
const AUDIT: &[SchemaKey] = &[
    ("max_file", Size, "The size from which on a new audit file is begun"),
    ("files", Whole(1, 1000), "Full audit files that are kept"),
];
const ADMIN: &[SchemaKey] = &[
    ("listen", Text, "An address with a port, or unix:/path"),
    ("hosts", Strings, "Names that are accepted in Host, besides addresses and localhost"),
    ("require_if_match", Flag, "Whether a change must name the generation it was decided on"),
    ("require_token", Flag, "Whether callers on this machine need a token, too"),
    ("token", Tables(TOKEN), "A token and its scope"),
];
const TOKEN: &[SchemaKey] = &[
    ("name", Text, "The token's name in the log"),
    ("scope", Words(&["read", "approve", "promote", "admin"]), "The calls that the token allows"),
    ("file", Path, "The file with the token"),
];
const CLIENTS: &[SchemaKey] = &[
    ("internal", Strings, "Networks of the clients that may preview a color"),
    ("trusted_proxies", Strings, "Networks of the proxies that forwarding headers are read from"),
    ("public_marks", Flag, "Whether all clients get Flipgate-Color and Flipgate-Generation"),
    ("trace_context", Words(&["new", "keep"]), "What happens to Traceparent and Tracestate"),
];
const FORWARDING: &[SchemaKey] = &[
    ("via", Words(&["both", "requests", "none"]), "The messages that get a Via header"),
    ("trailers", Strings, "Trailer fields that are forwarded besides the standard ones"),
];
const TIMEOUTS: &[SchemaKey] = &[
    ("handshake", Duration, "PROXY protocol and TLS handshake of a new connection"),
    ("head", Duration, "A request head"),
    ("keep_alive", Duration, "An idle client connection"),
    ("stall", Duration, "A client that makes no progress"),
    ("request", DurationOrNone, "A whole exchange"),
    ("tunnel", Duration, "A WebSocket without a byte in either direction"),
    ("upstream_connect", Duration, "The opening of a connection to an endpoint"),
    ("upstream_response", Duration, "From the last byte of a request to the response head"),
    ("upstream_stall", Duration, "A response body that makes no progress"),
    ("upstream_idle", Duration, "An idle connection to an endpoint"),
];
const LIMITS: &[SchemaKey] = &[
    ("connections", Whole(1, NUMBER_MAX), "Client connections"),
    (
        "connections_per_client",
        WholeOr(&["auto", "none"], 1, NUMBER_MAX),
        "Connections of one client address",
    ),
    ("requests_per_connection", Whole(1, 1_000_000_000), "Requests of one connection"),
    ("h2_streams", Whole(1, 10_000), "Requests in flight on one HTTP/2 connection"),
    ("h2_resets", Whole(1, NUMBER_MAX), "Requests that an HTTP/2 client may cancel"),
    ("max_line", Size, "A header field, and the request target"),
    ("max_head", Size, "A request head"),
    ("min_rate", Size, "Bytes per second of a body"),
    ("upstream_idle", Whole(0, 100_000), "Idle connections of one worker to one endpoint"),
    ("in_flight", Whole(1, 10_000_000), "Requests in flight of all services"),
    ("health_checks", Whole(1, 100_000), "Health checks per second"),
];
const DNS: &[SchemaKey] = &[
    ("servers", Strings, "Name servers"),
    ("families", Words(&["both", "ipv4", "ipv6"]), "The addresses that are used"),
    ("min_ttl", Duration, "The shortest time between two look-ups of a name"),
    ("max_ttl", Duration, "The longest time between two look-ups of a name"),
    ("timeout", Duration, "One query"),
];
const SHUTDOWN: &[SchemaKey] = &[
    ("delay", Duration, "From SIGTERM to the close of the listeners"),
    ("patience", Duration, "For requests in flight, after the listeners are closed"),
];
const LISTENER: &[SchemaKey] = &[
    ("listen", Text, "An address with a port"),
    ("preview", COLORS, "The color that every request of this listener gets"),
    ("protocols", WordList(&["http1", "h2"]), "The versions of HTTP"),
    ("proxy_protocol", Table(FROM), "Proxies that send a PROXY protocol header"),
    ("health_checks", Flag, "Whether Flipgate answers the plain health check of HAProxy"),
    ("redirect_to_https", Whole(1, 65_535), "The port that every request is redirected to"),
    ("tls", Table(LISTENER_TLS), "TLS of this listener"),
];
const FROM: &[SchemaKey] = &[("from", Strings, "The networks of the proxies")];
const LISTENER_TLS: &[SchemaKey] = &[
    ("certificates", Tables(CERTIFICATE), "A certificate with its key"),
    ("min_version", Words(&["1.2", "1.3"]), "The lowest version of TLS"),
    ("hsts", Text, "The value of Strict-Transport-Security"),
    ("client", Table(CLIENT_AUTH), "Client certificates"),
];
const CERTIFICATE: &[SchemaKey] = &[
    ("cert", Path, "The certificate and its chain, in PEM"),
    ("key", Path, "The private key, in PEM"),
];
const CLIENT_AUTH: &[SchemaKey] = &[
    ("ca", Path, "The certificate authorities that sign client certificates"),
    ("required", Flag, "Whether clients without a certificate are refused"),
    ("internal", Flag, "Whether clients with a certificate are internal"),
];
const SERVICE: &[SchemaKey] = &[
    ("hosts", Strings, "The hosts of the service: example.com, *.example.com or *"),
    ("path", Text, "The path prefix of the service"),
    ("active", COLORS, "The active color at the first start"),
    ("max_body", Size, "The largest request body"),
    ("tunnel_idle", Duration, "In place of timeouts.tunnel"),
    ("blue", Table(POOL), "The blue pool"),
    ("green", Table(POOL), "The green pool"),
    ("timeouts", Table(SERVICE_TIMEOUTS), "In place of the timeouts of all services"),
    ("drain", Table(DRAIN), "What a drain waits for, and which streams it ends"),
    ("balance", Table(BALANCE), "Load balancing"),
    ("health", Table(HEALTH), "Health checks"),
    ("ejection", Table(EJECTION), "Ejection of endpoints for failed requests"),
    ("retry", Table(RETRY), "Retries"),
    ("limits", Table(SERVICE_LIMITS), "Limits of the service"),
    ("gate", Table(GATE), "Conditions for a promotion"),
    ("watch", Table(WATCH), "How a color is judged after its promotion"),
    ("pin", Table(PIN), "How transactions stay on the version that they began on"),
    ("share", Table(SHARE), "What tells clients apart during a gradual promotion"),
    ("hold", Table(HOLD), "Requests that wait while a call holds the service"),
    ("errors", Pages, "Pages for errors of Flipgate, by status"),
    ("assets", Table(ASSETS), "Which missing assets are asked of the other color"),
    ("version_signal", Table(VERSION_SIGNAL), "How pages learn that another version is active"),
];
const HOLD: &[SchemaKey] = &[
    ("for", Duration, "How long a hold lasts if the call does not say so"),
    ("requests", Whole(1, 10_000), "How many requests may wait if the call does not say so"),
    (
        "pass",
        Strings,
        "Paths of which requests are never held: /healthz, or /health/ for all below",
    ),
];
const ASSETS: &[SchemaKey] = &[
    ("prefixes", Strings, "The path prefixes of the assets"),
    ("status", Strings, "Statuses that say that an asset is missing"),
    ("hashed_only", Flag, "Only names with a hash of the content"),
    ("html_is_missing", Flag, "HTML is no script, style, font or image"),
];
const VERSION_SIGNAL: &[SchemaKey] = &[
    ("path", Text, "The path of the resources, below the path of the service"),
    ("header", Flag, "Whether every response has Flipgate-Version"),
    ("spread", Duration, "The time over which pages spread their reloads"),
];
const PIN: &[SchemaKey] = &[
    ("start", Strings, "What begins a transaction: document, path:/batch or header:NAME"),
    ("carry", Text, "What carries the pin: cookie, header:NAME or query:NAME"),
    ("max_age", Duration, "How long a pin is valid after the flip"),
    ("idle", DurationOrNone, "How long a pin may be unused after the flip"),
    ("max_share", Whole(0, 100), "The most pinned requests, in percent of those of the service"),
    ("group", Text, "The name that services with the same pins share"),
    ("domain", Text, "The domain of the cookie, or none"),
    ("cacheable", Words(&["skip", "private"]), "What happens to responses that a cache may keep"),
];
const SHARE: &[SchemaKey] = &[
    ("by", Text, "What tells clients apart during a gradual promotion: cookie or header:NAME"),
    ("domain", Text, "The domain of the cookie, or none"),
];
pub(super) const PAGE: &[SchemaKey] = &[
    ("html", Path, "The page for clients that prefer HTML"),
    ("json", Path, "The page for clients that prefer JSON"),
];
const WATCH: &[SchemaKey] = &[
    ("for", Duration, "For how long"),
    ("errors", Whole(0, 100), "The limit of failures, in percent of the answers"),
    ("latency", Text, "The limit of slow responses, like p99 500ms, or none"),
    ("latency_after", Duration, "When slow responses begin to count"),
    ("requests", Whole(0, NUMBER_MAX), "The fewest requests before a verdict"),
    ("clients", Whole(1, 1000), "Client addresses that failures must come from"),
    ("action", Words(&["rollback", "alert"]), "What happens if the color is bad"),
    ("rescue", Flag, "Whether the color before serves what cannot be connected to the new one"),
];
const GATE: &[SchemaKey] = &[
    ("deadline", Duration, "For all gates of one promotion"),
    ("healthy", Table(HEALTHY_GATE), "Endpoints of the candidate are healthy"),
    ("approval", Table(APPROVAL_GATE), "A person has approved the version"),
    ("compatible", Table(COMPATIBLE_GATE), "Rules for the manifests of both versions"),
    ("smoke", Tables(SMOKE_STEP), "A request to every endpoint of the candidate"),
    ("warm_up", Table(WARM_UP_GATE), "Requests that warm up every endpoint of the candidate"),
    ("shadow", Table(SHADOW_GATE), "Copies of live requests, to compare both versions"),
    ("hook", Table(HOOK_GATE), "A program that allows the promotion"),
    ("preconnect", Table(PRECONNECT), "Connections that are opened before a promotion"),
];
const PRECONNECT: &[SchemaKey] =
    &[("per_worker", Whole(0, 16), "Idle connections of each worker to each endpoint")];
const HEALTHY_GATE: &[SchemaKey] = &[
    ("endpoints", Whole(1, 1000), "How many endpoints must be healthy"),
    ("share", Whole(1, 100), "Percent of the endpoints that must be healthy"),
    ("for", Duration, "For how long each of them has been healthy"),
];
const APPROVAL_GATE: &[SchemaKey] = &[
    ("expires", Duration, "For how long an approval is valid"),
    ("four_eyes", Flag, "Whether two callers with tokens must agree"),
];
const COMPATIBLE_GATE: &[SchemaKey] = &[
    ("manifest", Text, "The path of the manifest"),
    ("ignore", Strings, "JSON pointers of values that may differ between endpoints"),
    ("rules", Tables(RULE), "A rule for both manifests"),
    ("samples", Tables(SAMPLE), "Manifests that flipgate check runs the rules with"),
];
const SAMPLE: &[SchemaKey] = &[
    ("old", Text, "The file with the manifest of the old version"),
    ("new", Text, "The file with the manifest of the new version"),
    ("promote", Flag, "Whether the rules allow the promotion"),
    ("rollback", Flag, "Whether the rules allow the rollback"),
];
const RULE: &[SchemaKey] = &[
    ("name", Text, "The name of the rule in messages"),
    ("require", Text, "A CEL expression over old, new, active and candidate"),
    ("help", Text, "What to do if it is not met"),
    ("on", WordList(&["promote", "rollback"]), "When the rule applies"),
];
const SMOKE_STEP: &[SchemaKey] = &[
    ("name", Text, "The name of the step in messages"),
    ("method", Text, "The method"),
    ("path", Text, "The path with its query"),
    ("headers", StringTable, "Headers"),
    ("body", Text, "The body"),
    ("expect", Table(EXPECTATION), "The expected response"),
    ("save", StringTable, "Values for later steps, as CEL expressions"),
];
const EXPECTATION: &[SchemaKey] = &[
    ("status", Strings, "The statuses"),
    ("headers", StringTable, "Regular expressions for headers"),
    ("body", Text, "A regular expression for the body"),
    ("text", Text, "A text in the body"),
    ("json", Text, "A CEL expression over body, status and headers"),
    ("within", Duration, "The time for the whole response"),
];
const WARM_UP_GATE: &[SchemaKey] = &[
    ("paths", Strings, "The paths, in turn"),
    ("requests", Whole(1, NUMBER_MAX), "Responses of each endpoint"),
    ("p95", Duration, "The 95th percentile of the last 20 responses"),
    ("within", Duration, "The time for all requests"),
];
const SHADOW_GATE: &[SchemaKey] = &[
    ("share", Whole(1, 100), "Percent of the GET and HEAD requests that are copied"),
    ("for", Duration, "For how long requests are copied"),
    ("requests", Whole(1, NUMBER_MAX), "The fewest requests that must be compared"),
    ("different", Whole(0, 100), "Percent of the compared requests that may differ"),
    ("timeout", Duration, "The time for each response"),
    ("credentials", Flag, "Whether requests with credentials are copied"),
    ("exclude", Strings, "Paths that are not copied"),
    ("ignore", Strings, "JSON pointers of values that are not compared"),
    ("ignore_text", Strings, "Regular expressions of texts that are not compared"),
    ("headers", Strings, "Response headers that are compared"),
    ("latency", DurationOrNone, "How much later the candidate may respond"),
];
const HOOK_GATE: &[SchemaKey] = &[
    ("url", Text, "The URL that gets a POST"),
    ("secret_file", Path, "The file with the keys that sign the call, one per line"),
    ("timeout", Duration, "The time for the response"),
];
const SERVICE_TIMEOUTS: &[SchemaKey] = &[
    ("upstream_connect", Duration, "The opening of a connection to an endpoint"),
    ("upstream_response", Duration, "From the last byte of a request to the response head"),
    ("upstream_stall", Duration, "A response body that makes no progress"),
    ("request", DurationOrNone, "A whole exchange"),
];
const DRAIN: &[SchemaKey] = &[
    (
        "abandoned",
        Words(&["cut", "wait"]),
        "What happens to requests that the client has abandoned",
    ),
    ("websocket", Table(WEBSOCKET_END), "How WebSockets are ended after a flip"),
    ("sse", Table(SSE_END), "How server-sent events are ended after a flip"),
    ("grpc", Table(STREAM_END), "How gRPC streams are ended after a flip"),
    ("download", Table(STREAM_END), "How other responses are ended after a flip"),
    ("upload", Table(STREAM_END), "How request bodies are ended after a flip"),
];
const PATIENCE: SchemaKey = ("patience", Duration, "From the flip to the first ending");
const SPREAD: SchemaKey = ("spread", Duration, "From the first ending to the last");
const STREAM_END: &[SchemaKey] = &[PATIENCE, SPREAD];
const WEBSOCKET_END: &[SchemaKey] =
    &[PATIENCE, SPREAD, ("close", Whole(1000, 4999), "The status code of the Close frame")];
const SSE_END: &[SchemaKey] =
    &[PATIENCE, SPREAD, ("retry", DurationOrNone, "When clients reconnect")];
const BALANCE: &[SchemaKey] = &[
    ("policy", Words(&["least_request", "round_robin", "hash"]), "How an endpoint is chosen"),
    ("hash_on", Text, "address, header:NAME or cookie:NAME"),
    ("slow_start", DurationOrNone, "In which an endpoint that comes up gets its whole share"),
    ("panic", Whole(0, 100), "Percent of usable endpoints below which unhealthy ones are used"),
];
const HEALTH: &[SchemaKey] = &[
    ("path", Text, "The path of the check; without it, a connection is opened"),
    ("host", Text, "The Host of the check"),
    ("interval", Duration, "Between two checks"),
    ("timeout", Duration, "One check"),
    ("rise", Whole(1, 100), "Consecutive successes that make an endpoint healthy"),
    ("fall", Whole(1, 100), "Consecutive failures that make an endpoint unhealthy"),
    ("status", Strings, "Statuses that pass"),
    ("body", Text, "A text that the body must contain"),
];
const EJECTION: &[SchemaKey] = &[
    ("failures", WholeOr(&["none"], 1, NUMBER_MAX), "Consecutive failures that eject an endpoint"),
    ("on", Strings, "Statuses that count as a failure"),
    ("base", Duration, "The first ejection"),
    ("longest", Duration, "The longest ejection"),
    ("share", Whole(0, 100), "Percent of the pool that may be ejected"),
];
const RETRY: &[SchemaKey] = &[
    ("on", Strings, "Statuses that are retried, and closed"),
    ("try_timeout", DurationOrNone, "For one endpoint to begin its response"),
    ("tries", Whole(1, 10), "Endpoints that one request is sent to"),
    ("budget", Whole(0, 100), "Retries in percent of the requests"),
    ("budget_min", Whole(0, 100), "Retries per second in any case"),
];
const SERVICE_LIMITS: &[SchemaKey] = &[
    ("in_flight", LIMIT, "Requests in flight"),
    ("client_rate", Text, "Requests of one client address, like 50/s, or none"),
    ("client_burst", Whole(1, NUMBER_MAX), "Requests of one client that may come at once"),
    ("endpoint_requests", LIMIT, "Requests in flight at one endpoint"),
    ("endpoint_connections", LIMIT, "Connections to one endpoint"),
    ("queue", Whole(0, NUMBER_MAX), "Requests that wait for an endpoint"),
    ("queue_timeout", Duration, "The wait of one request for an endpoint"),
];
const POOL: &[SchemaKey] = &[
    ("version", Text, "The version of the application"),
    ("endpoints", Endpoints, "host:port, https://host:port or unix:/path"),
    ("protocol", Words(&["http1", "h2"]), "The version of HTTP"),
    ("proxy_protocol", Words(&["v1", "v2"]), "Send a PROXY protocol header on each connection"),
    ("tls", Table(UPSTREAM_TLS), "TLS of the connections to endpoints"),
];
const UPSTREAM_TLS: &[SchemaKey] = &[
    ("ca", Path, "The certificate authorities, or the certificates of the endpoints"),
    ("cert", Path, "The certificate that Flipgate presents"),
    ("key", Path, "The key of that certificate"),
    ("server_name", Text, "The name in the certificates of the endpoints"),
];
pub(super) const ENDPOINT: &[SchemaKey] =
    &[("address", Text, "The address"), ("weight", Whole(1, 100), "Its share of the requests")];
