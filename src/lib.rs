//! Flipgate: a Layer-7 reverse proxy that flips services between blue and green.
//!
//! Each service has two pools of endpoints, named blue and green. One of them is *active* and serves public requests.
//! The next version is deployed to the other one, previewed from the internal network, and then promoted: one atomic
//! step, for one service or for many. A request in flight keeps its color to the last byte. When the last request on
//! the replaced color has ended, that color is *drained*: Flipgate counts requests, it does not estimate.
//!
//! # Rooms and floors
//!
//! A *room* is a folder or a file directly under `src`. A room uses only rooms on floors below its own:
//!
//! ```text
//! cli                     the command line
//! demo                    the guided tour: sample application, proxy, load, flips
//! app                     builds everything from the configuration, runs it, and ends it
//! config                  the configuration file, made into each room's own checked settings
//! admin                   the HTTP API for operators and programs
//! release                 gates: the conditions for a promotion
//! care control proxy      health checks and name look-ups | changes of the state | one exchange
//! downstream upstream     towards clients | towards applications
//! log net store           log lines | sockets, streams and buffers | the state: snapshot and journal
//! audit http1 http2 metrics switch tls websocket
//!                         lines of the audit log and their chain | heads and framing | time series | which pool
//!                         serves a request, and which requests are in flight | certificates | frames of WebSockets
//! model                   color, generation, endpoint, network, route: values without I/O
//! ```
//!
//! Rooms on one line do not use each other. `tests/it/floors.rs` fails on a `crate::room::` that does not go down, and
//! on files of a room that use each other in a cycle. Errors and settings belong to the room that makes them.
//!
//! Two crates beside the rooms use none of them. `flipgate-api` (`crates/api`) has the wire types of the admin API and
//! its client. `flipgate-drill` (`crates/drill`) is the load harness that checks the promises of a proxy, with its
//! sample application. The drill knows Flipgate by `flipgate-api` alone.
//!
//! # The path of one request
//!
//! 1. `downstream` waits for bytes on a worker's thread, takes a buffer (`net`), and reads a head (`http1`). A stream of
//!    HTTP/2 is a client of its own: `http2` turns its head into the same bytes, so that there is one reader.
//! 2. `proxy` makes a small view of the head and asks the `switch` for a *claim*: one load of one pointer, under which
//!    the view is matched to a service and a side. From then on the request has its pool, whatever is flipped.
//! 3. `upstream` picks an endpoint by its health and load, and a connection. If every endpoint is at its limit, the
//!    request waits in a queue.
//! 4. `proxy` writes the upstream's head from the client's, sends it with the first bytes of the body, and relays the
//!    response. If the request cannot have been acted on, it may be retried at another endpoint.
//! 5. The claim ends when the last byte of the response is in the client's socket (for a stream: with the connection
//!    that writes it) and the last byte of the request in the upstream's, or with the tunnel.
//!
//! All of it is one task (`proxy::exchange`).
//!
//! # The path of one flip
//!
//! `admin` reads a call, and `release` runs the gates of its services. `control` plans the next state (a pure function) and commits it to the `store`, which makes it
//! durable. The new state comes back through the store's watch, as changes of other processes do. `control` makes the
//! pools and the table that follow from it, and replaces the table in the `switch`: this is the flip. The reply is sent
//! after that, so no later request reaches the replaced side. Requests in flight hold that side; the end of the last one
//! is the `drained` event. A rollback is the same call with the other color. `ARCHITECTURE.md` has the details.
//!
//! # Invariants
//!
//! 1. One pointer, one load for each request. A guard never crosses an await; a claim may.
//! 2. After the reply to a promotion, no request that begins later reaches the replaced side, except what is declared to:
//!    pinned transactions, and rescue.
//! 3. Only clients of the internal networks reach a side that is not active, except by a valid pin to it.
//! 4. A flip interrupts nothing. Streams are ended only by a policy that an operator has written, or by hand.
//! 5. A change is done, refused, or of unknown outcome, and the caller learns which. A refused change has changed
//!    nothing, for good. A change is durable before it is applied; a killed process comes back to it.
//! 6. Nothing that a client or an upstream sends can panic the process.
//! 7. Every spawned task has an owner that can stop it and notices its death. Everything has a limit with a unit.
//! 8. `model` and `switch` do no I/O and read no clock.
//! 9. Only `app` makes registries and runtimes for the proxy, and only `cli` reads the environment. No globals.
//!
//! # Threads
//!
//! The data plane has one worker thread for each core. Each worker has its own runtime, listening sockets and upstream
//! connections. Workers share the table, the claims, and counters: metrics, limits, endpoint health.
//!
//! The control plane (admin API, changes, health checks, name look-ups) has its own thread and runtime, and nothing
//! blocks it. The thread `state` writes the journal, and the thread `audit` the audit files. The thread `log` writes the log lines of all others, which never
//! wait for it.

pub mod admin;
pub mod app;
pub mod audit;
pub mod care;
pub mod cli;
pub mod config;
pub mod continuity;
pub mod control;
pub mod demo;
pub mod downstream;
pub mod http1;
pub mod http2;
pub mod log;
pub mod metrics;
pub mod model;
pub mod net;
pub mod proxy;
pub mod release;
pub mod rollout;
pub mod store;
pub mod switch;
pub mod tls;
pub mod upstream;
pub mod websocket;
