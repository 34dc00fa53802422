//! Flipgate over real sockets, by rule.

mod abandoned; // What does a drain wait for when clients have left?
mod address; // Which client address do upstreams see, and which peers may give it?
mod admin; // Which calls are there, and what are their responses?
mod admin_guard; // Who may call the admin API, and in what form?
mod audience; // Who sees green before it is active?
mod bad_input; // What happens to what cannot be right?
mod blocking; // What may hold up the control thread?
mod cli; // What do people and scripts hold on to?
mod config; // Do the files of config/ say what is true?
mod crates; // Do the crates beside the proxy stand without it?
mod demo; // Does the demo lose a request?
mod detour; // Can the public reach the admin API by way of an endpoint?
mod differential; // Does hyper see the same messages in the same bytes?
mod docs; // Does the documentation say what the program does?
mod drain; // Which requests hold a color, and when is it drained?
mod drill; // Does the drill find planted faults, and none in a good proxy?
mod fairness; // Can one client or service take what all others need?
mod flip; // Where does a request go, before and after?
mod floors; // Does the house still stand?
mod forwarding; // Do both families of forwarding fields say the same, whichever the trusted proxy wrote?
mod health; // Who is well, who says so, and who is asked meanwhile?
mod http2; // Do the promises hold over HTTP/2, and does everything come through it?
mod http2_upstream; // Do applications that speak HTTP/2 get what was asked?
mod http2_wire; // Is HTTP/2 read as strictly as HTTP/1, and is misuse ended?
mod lifecycle; // How does the process begin, change and end?
mod limits; // Does everything that a client can have more of come to an end?
mod logs; // What happens when standard error is not read?
mod loops; // What happens when a request comes back to the proxy that sent it?
mod metrics; // Can an on-call engineer tell what is wrong, and who is to blame?
mod names; // Where do requests for a name go when its addresses change?
mod overload; // What happens when there is more to do than may be?
mod packaging; // Do the packages, the image and the examples fit the program?
mod places; // Who gets a place when every one is taken?
mod prose; // Do comments, messages and pages say who does what?
mod relay; // Does everything come through as it was sent?
mod retries; // What is tried again, and what never?
mod reuse; // Which connections to an endpoint are used for another request?
mod signals; // When does a signal count?
mod smuggling; // Is a body ever taken for a request, or the reverse?
mod state; // What survives?
mod supervision; // What happens to a task that panics, and to all others?
mod support;
mod timeouts; // How long may the upstreams of each service take?
mod tls; // Do the promises hold over TLS, and is every peer verified?
mod trailers; // Which fields pass behind a body?
mod tunnel; // Does a WebSocket keep its color, and is it waited for?
mod wire; // Is the wire used as HTTP/1 says, by us and by those around us?
