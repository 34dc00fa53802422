//! Flipgate: a Layer-7 reverse proxy that flips services between blue and green.
//!
//! Every service has two pools of endpoints, named blue and green. One of them is *active* and
//! answers the public; the other is where the next version is put, looked at by the internal
//! network alone, and then made active, for one service or for many, in one step that no request
//! sees half of. Whoever was being answered stays where he was to the last byte, and when the last
//! of them has gone, the replaced color is *drained*: an event, not a guess.
//!
//! # Floors: a room uses only rooms below it
//!
//! ```text
//! cli          what people and pipelines type
//! demo         the guided tour: proxy, load, flips
//! app          configuration → build → run → drain; the only one that knows every room
//! config       the file as written → each room's own checked settings
//! admin        the HTTP API, and who may call
//! care control proxy   health checks and names | changes of the state | the path of one exchange
//! downstream upstream  towards the client   | towards the application
//! log net store  lines on their way to standard error | sockets and streams, and the memory for what is
//!              read | the state: a snapshot and a journal, changed by compare-and-swap
//! http1 http2 metrics switch tls  heads and framing of both versions | series | which pool answers, and
//!              who is inside | certificates
//! model        plain words: color, generation, endpoint, network, route
//! ```
//!
//! Two crates stand beside the rooms and use none of them. `flipgate-api` (`crates/api`) has the wire types
//! of the admin API and its client. `flipgate-drill` (`crates/drill`) is the load harness that checks what
//! a proxy promises, with the sample application behind it: a client, which knows Flipgate by
//! `flipgate-api` alone.
//!
//! Rooms on one line are neighbors and do not use each other; `tests/it/floors.rs` fails on a
//! `crate::room::` that does not go down, and on files of a room that use each other in a cycle.
//! Errors and settings belong to the room that makes them.
//!
//! # The path of one request
//!
//! `downstream` waits on a worker's own thread until a client has something to say, takes a buffer
//! (`net`), and reads a head (`http1`). A stream of HTTP/2 is a client of its own, and its head becomes the
//! same bytes (`http2`), so that there is one reader and one policy. `proxy` makes a small view of it, and asks the `switch` for a
//! claim: one load of one pointer, under which the view is matched to a service and a side, and the
//! claim is taken. From there on the request has its pool, whatever is flipped. `upstream` picks an
//! endpoint by what is known of each, and a connection; when all have as much as they may, the request waits in
//! line. `proxy` writes the upstream's head from the client's, sends it with the first bytes of the body, and relays
//! the answer; or goes on to another endpoint, if nothing can have happened twice. All of it is one task (`proxy::exchange`), and the
//! claim ends when the last byte of the answer is in the client's socket (of a stream: with the
//! connection that writes it) and the last byte of the request in the upstream's, or with the tunnel
//! that the connection has become.
//!
//! # The path of one flip
//!
//! `admin` reads a call. `control` plans the state that follows from it (pure) and commits it to the
//! `store`, which makes it durable. The new state comes back by the store's watch, as the changes of other
//! processes do; `control` makes pools and a table of what differs, and replaces the table in the `switch`: the
//! instant. The reply goes out after that, so no request that begins later reaches the replaced side. The
//! requests that are left on it hold the side; the end of the last one is the drained event. A rollback is the
//! same call with the other color. `ARCHITECTURE.md` has the whole way, and how to add to the state.
//!
//! # Invariants
//!
//! 1. One pointer, one load for each request. A guard never crosses an await; a claim may.
//! 2. After the reply to a promotion, no request that begins later reaches the replaced side.
//! 3. Nobody outside the internal networks reaches a side that is not active.
//! 4. A flip interrupts nothing.
//! 5. A change is done, refused, or of unknown outcome, and the caller is told which. A refused change has
//!    changed nothing, for good. A change is durable before it is applied; a killed process comes back to it.
//! 6. Nothing that a client or an upstream sends can panic the process.
//! 7. Every spawned task has an owner who can stop it and notices its death. Everything has a limit with a
//!    unit.
//! 8. `model` and `switch` do no I/O and read no clock.
//! 9. Only `app` makes registries and runtimes for the proxy, and only `cli` reads the environment.
//!    No globals.
//!
//! # Threads
//!
//! The data plane is one worker thread for each core, each with its own runtime, its own listening
//! sockets and its own upstream connections. What is shared on the path of a request is the table, the
//! claims, and what is counted over all workers: metrics, ceilings, what is known of endpoints. The
//! control plane (admin API, changes, health checks, names) has a thread and runtime of its own, so that a flip
//! works best when it is needed most; nothing blocks it. The thread `state` writes the journal. The thread `log` writes the log lines of all
//! others, which never wait for it.

pub mod admin;
pub mod app;
pub mod care;
pub mod cli;
pub mod config;
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
pub mod store;
pub mod switch;
pub mod tls;
pub mod upstream;
