//! A service can have pages of its own for errors of Flipgate, in HTML and JSON.

use std::fs;

use flipgate::config::Config;
use tempfile::TempDir;

use crate::support::{
    Answer, Client, Http2, Process, TestProxy, Upstream, client, test_proxy::TestProxyBuilder,
};

const HTML: &str = "<!DOCTYPE html><title>Back soon</title>";
const JSON: &str = "{\"error\": \"back soon\"}";

/// A folder with a page of each format.
fn pages() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("503.html"), HTML).expect("written");
    fs::write(folder.path().join("503.json"), JSON).expect("written");
    folder
}

/// A service `web` with a blue endpoint and no green one, and with these pages.
fn service(blue: &Upstream, errors: &str) -> TestProxyBuilder {
    TestProxy::build().service("web", &[blue], &[]).services(errors)
}

fn both(folder: &TempDir) -> String {
    let path = folder.path().display();
    format!("errors.503 = {{ html = \"{path}/503.html\", json = \"{path}/503.json\" }}\n")
}

/// Asks an internal client's preview for green, which has no endpoint.
async fn no_endpoint(proxy: &TestProxy, fields: &str) -> Answer {
    let fields = format!("Flipgate-Preview: green\r\n{fields}");
    proxy.internal().await.get("/", &fields).await
}

#[tokio::test]
async fn an_error_of_flipgate_has_the_page_in_the_format_that_the_client_accepts() {
    let (blue, folder) = (Upstream::start("blue").await, pages());
    let proxy = service(&blue, &both(&folder)).start();
    for (accept, content_type, body) in [
        ("", "text/html; charset=utf-8", HTML),
        ("Accept: text/html,*/*;q=0.8\r\n", "text/html; charset=utf-8", HTML),
        ("Accept: application/json\r\n", "application/json", JSON),
        ("Accept: image/png\r\n", "text/plain; charset=utf-8", ""),
    ] {
        let answer = no_endpoint(&proxy, accept).await;
        assert_eq!(answer.status, 503, "{}", answer.head);
        assert_eq!(answer.field("content-type"), Some(content_type), "{accept}");
        match body {
            "" => assert!(answer.text().starts_with("503 Service Unavailable: "), "the usual text"),
            page => assert_eq!(answer.text(), page),
        }
        let proxy_status = Some("flipgate; error=destination_unavailable");
        assert_eq!(answer.field("proxy-status"), proxy_status, "{}", answer.head);
        assert_eq!(answer.field("retry-after"), Some("1"), "{}", answer.head);
        let cache_control = answer.field("cache-control").expect("one");
        assert!(cache_control.contains("no-store"), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_head_request_gets_the_head_of_the_page_and_the_connection_goes_on() {
    let (blue, folder) = (Upstream::start("blue").await, pages());
    let proxy = service(&blue, &both(&folder)).start();
    let mut client = proxy.internal().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nFlipgate-Preview: green\r\n\r\n").await;
    let answer = client.answer_to_head().await;
    assert_eq!(
        (answer.status, answer.field("content-type")),
        (503, Some("text/html; charset=utf-8"))
    );
    assert_eq!(answer.field("content-length"), Some(&*HTML.len().to_string()));
    assert_eq!(client.get("/", "").await.text(), "blue", "no body came");
    assert_eq!(client.get("/", "Flipgate-Preview: green\r\n").await.text(), HTML);
    assert_eq!(client.get("/", "").await.text(), "blue", "the body was as long as declared");
}

#[tokio::test]
async fn over_http2_the_page_comes_whole_and_grpc_has_its_own_errors() {
    let (blue, folder) = (Upstream::start("blue").await, pages());
    let large = "x".repeat(200_000);
    fs::write(folder.path().join("503.html"), &large).expect("written");
    let proxy = service(&blue, &both(&folder)).start();
    let mut client = Http2::connect(client::INTERNAL, proxy.public).await;
    let answer = client.get("/", "flipgate-preview: green").await;
    assert_eq!((answer.status, answer.text() == large), (503, true), "{}", answer.head);
    let fields = "flipgate-preview: green\ncontent-type: application/grpc\naccept: text/html";
    let answer = client.get("/", fields).await;
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")), "{}", answer.head);
    assert_eq!(answer.text(), "");
}

#[tokio::test]
async fn answers_of_the_application_and_errors_without_a_service_have_no_page() {
    let folder = pages();
    let blue =
        crate::support::Application::start(|_| crate::support::Reply::status(503, "own")).await;
    let proxy = TestProxy::build()
        .service_of("web", "a.test", "/", &[blue.address], &[])
        .services(&both(&folder))
        .start();
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!((answer.status, &*answer.text()), (503, "own"));
    assert_eq!(answer.field("proxy-status"), None);
    // An unclear preview is refused before a service is chosen.
    let answer = proxy.internal().await.get("/", "Flipgate-Preview: red\r\n").await;
    assert!(
        answer.text().starts_with("503 Service Unavailable: invalid preview"),
        "{}",
        answer.text()
    );
    let mut client = proxy.public().await;
    client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
}

#[tokio::test]
async fn every_error_with_a_service_can_have_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut errors = String::new();
    for status in [400, 413, 429, 502] {
        let path = folder.path().join(format!("{status}.json"));
        fs::write(&path, format!("{{\"page\": {status}}}")).expect("written");
        errors.push_str(&format!("errors.{status} = {:?}\n", path.display().to_string()));
    }
    let blue = Upstream::start("blue").await;
    let settings = format!("max_body = \"10B\"\nlimits.client_rate = \"1/s\"\n{errors}");
    let proxy = TestProxy::build().service("web", &[&blue], &[]).services(&settings).start();
    // One request of each address a second.
    let ask = async |address: &str, path: &str, rest: &str| {
        let mut client = Client::connect(address, proxy.public).await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}")).await;
        let answer = client.answer().await;
        (answer.status, answer.text())
    };
    let page = |status: u16| (status, format!("{{\"page\": {status}}}"));
    assert_eq!(ask("127.0.0.5", "/", "Content-Length: 100\r\n\r\n").await, page(413));
    let chunked = "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n";
    assert_eq!(ask("127.0.0.6", "/echo", chunked).await, page(400));
    assert_eq!(ask("127.0.0.7", "/close", "Content-Length: 0\r\n\r\n").await, page(502));
    let mut answer = ask("127.0.0.8", "/", "Content-Length: 0\r\n\r\n").await;
    while answer.0 == 200 {
        answer = ask("127.0.0.8", "/", "Content-Length: 0\r\n\r\n").await;
    }
    assert_eq!(answer, page(429));
}

#[tokio::test]
async fn a_reload_reads_the_pages_again_and_refuses_a_missing_one() {
    let blue = Upstream::start("blue").await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flipgate.toml");
    let process = Process::start(&folder, &blue, &blue).await;
    let text = fs::read_to_string(&path).expect("the configuration");
    // Relative to the file that names it.
    let text = format!("{text}max_body = \"1B\"\nerrors.413 = \"pages/413.html\"\n");
    fs::create_dir(folder.path().join("pages")).expect("a folder");
    let page = folder.path().join("pages/413.html");
    let body_too_large = async || {
        let mut client = process.public().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await;
        client.answer().await.text()
    };
    for content in ["one", "two"] {
        fs::write(&page, content).expect("written");
        fs::write(&path, &text).expect("written");
        process.caller().reload().await.expect("a good configuration");
        assert_eq!(body_too_large().await, content);
    }
    fs::remove_file(&page).expect("it is there");
    let error = process.caller().reload().await.expect_err("the page is missing").to_string();
    assert!(error.contains("service.web.errors.413") && error.contains("413.html"), "{error}");
    assert_eq!(body_too_large().await, "two", "a refused reload changes nothing");
}

#[test]
fn a_page_that_cannot_be_sent_is_a_mistake_of_the_configuration() {
    let folder = pages();
    let write = |name: &str, text: &[u8]| {
        fs::write(folder.path().join(name), text).expect("written");
    };
    write("large.html", &vec![b'x'; (256 << 10) + 1]);
    write("largest.html", &vec![b'x'; 256 << 10]);
    write("empty.html", b" \n");
    write("broken.json", b"{");
    write("latin.html", b"\xe9");
    write("503.txt", b"text");
    let minimal = fs::read_to_string("config/minimal.toml").expect("the file");
    let path = folder.path().join("flipgate.toml");
    let check =
        |errors: &str| Config::parse(&path, &format!("service.web.errors = {errors}\n{minimal}"));
    for good in [
        "{ 503 = \"503.html\" }",
        "{ 503 = \"503.json\", 502 = \"largest.html\" }",
        "{ 503 = { html = \"503.html\", json = \"503.json\" }, 413 = { json = \"503.json\" } }",
        "{}",
    ] {
        assert!(check(good).is_ok(), "{good}");
    }
    for (errors, key, message) in [
        ("{ 404 = \"503.html\" }", "errors.404", "has the status `404`"),
        ("{ 418 = \"503.html\" }", "errors.418", "has the status `418`"),
        ("{ \"0503\" = \"503.html\" }", "errors.0503", "has the status `0503`"),
        ("{ 5xx = \"503.html\" }", "errors.5xx", "has the status `5xx`"),
        ("{ 503 = \"none.html\" }", "errors.503", "none.html: No such file"),
        ("{ 503 = \"large.html\" }", "errors.503", "larger than 262144 bytes"),
        ("{ 503 = \"empty.html\" }", "errors.503", "is empty"),
        ("{ 503 = \"broken.json\" }", "errors.503", "is not JSON"),
        ("{ 503 = \"latin.html\" }", "errors.503", "is not UTF-8"),
        ("{ 503 = \"503.txt\" }", "errors.503", "neither in `.html` nor in `.json`"),
        ("{ 503 = 5 }", "errors.503", "expected a string"),
        ("{ 503 = {} }", "errors.503", "the table is empty"),
        ("{ 503 = { html = \"503.json\" } }", "errors.503.html", "ends in `.html`"),
        ("{ 503 = { htm = \"503.html\" } }", "errors.503.htm", "did you mean `html`"),
        ("\"503.html\"", "errors", "expected a table"),
    ] {
        let mistakes = check(errors).expect_err(errors);
        let is_it = |key: &str| {
            mistakes.iter().any(|it| {
                it.key == format!("service.web.{key}") && it.to_string().contains(message)
            })
        };
        assert!(is_it(key), "{errors}: {mistakes:#?}");
    }
}
