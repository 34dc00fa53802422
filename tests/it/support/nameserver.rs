//! A name server with answers that the test changes.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Metadata, ResponseCode},
        rr::{RData, Record, RecordType},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::net::{TcpListener, UdpSocket};

/// A name server that knows one answer to everything. Ends when it is dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Zone>,
    _server: Server<Answering>,
}

struct Zone {
    answer: Mutex<Result<Vec<IpAddr>, ResponseCode>>,
    questions: AtomicUsize,
}

struct Answering(Arc<Zone>);

/// How many there were before.
static NUMBER: AtomicUsize = AtomicUsize::new(1);

/// How long each answer is good, in seconds.
const TTL: u32 = 1;

impl NameServer {
    pub(crate) async fn start(addresses: &[&str]) -> Self {
        // An address of its own, so that its port is free for TCP, too.
        let number = u8::try_from(NUMBER.fetch_add(1, SeqCst)).expect("few servers");
        let udp = UdpSocket::bind((Ipv4Addr::new(127, 0, 53, number), 0)).await.expect("a port");
        let address = udp.local_addr().expect("a bound socket");
        let tcp = TcpListener::bind(address).await.expect("the same port");
        let answer = Mutex::new(Ok(parsed(addresses)));
        let zone = Arc::new(Zone { answer, questions: AtomicUsize::new(0) });
        let mut server = Server::new(Answering(Arc::clone(&zone)));
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 1024);
        Self { address, zone, _server: server }
    }

    /// From now on the name has these addresses.
    pub(crate) fn tell(&self, addresses: &[&str]) {
        *self.zone.answer.lock().expect("no panic inside") = Ok(parsed(addresses));
    }

    /// From now on there is no answer but this.
    pub(crate) fn fail(&self, code: ResponseCode) {
        *self.zone.answer.lock().expect("no panic inside") = Err(code);
    }

    /// How often it was asked.
    pub(crate) fn questions(&self) -> usize {
        self.zone.questions.load(SeqCst)
    }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|it| it.parse().expect("an address")).collect()
}

#[async_trait::async_trait]
impl RequestHandler for Answering {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        self.0.questions.fetch_add(1, SeqCst);
        let asked = request.request_info().expect("one question").query.original().clone();
        let answer = self.0.answer.lock().expect("no panic inside").clone();
        let build = MessageResponseBuilder::from_message_request(request);
        let sent = match answer {
            Ok(addresses) => {
                let records: Vec<Record> = addresses
                    .into_iter()
                    .filter_map(|address| match (address, asked.query_type()) {
                        (IpAddr::V4(it), RecordType::A) => Some(RData::A(it.into())),
                        (IpAddr::V6(it), RecordType::AAAA) => Some(RData::AAAA(it.into())),
                        _ => None,
                    })
                    .map(|data| Record::from_rdata(asked.name().clone(), TTL, data))
                    .collect();
                let metadata = Metadata::response_from_request(&request.metadata);
                let none = || std::iter::empty::<&Record>();
                response
                    .send_response(build.build(metadata, &records, none(), none(), none()))
                    .await
            }
            Err(code) => response.send_response(build.error_msg(&request.metadata, code)).await,
        };
        sent.expect("the resolver is there")
    }
}
