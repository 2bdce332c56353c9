//! A client that sends what a test says, signed as the test says.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use tencent_vod_emulator::{Credential, Emulator, EmulatorSettings, Options, UploadSettings};
use tencentcloud_signing::cos::{self, KeyTime};
use tencentcloud_signing::{encode, tc3, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vodrelay::clock::Now as _;
use vodrelay_core::clock::WallTime;

pub(crate) const ID: &str = "AKIDofthetests";
pub(crate) const KEY: &str = "keyofthetests";

pub(crate) fn now() -> i64 {
    WallTime::now().0.div_euclid(1_000)
}

/// An emulator, and what it takes to talk to it.
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) http: reqwest::Client,
}

/// What `ApplyUpload` answered.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) session: String,
    /// Without the leading slash.
    pub(crate) media: String,
    pub(crate) cover: String,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) token: String,
    pub(crate) expires: i64,
}

impl Applied {
    fn of(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = |name: &str| text(&answer[name]).trim_start_matches('/').to_owned();
        let certificate = &answer["TempCertificate"];
        Self {
            bucket: text(&answer["StorageBucket"]),
            region: text(&answer["StorageRegion"]),
            session: text(&answer["VodSessionKey"]),
            media: path("MediaStoragePath"),
            cover: path("CoverStoragePath"),
            id: text(&certificate["SecretId"]),
            key: text(&certificate["SecretKey"]),
            token: text(&certificate["Token"]),
            expires: certificate["ExpiredTime"].as_i64().unwrap_or_default(),
        }
    }

    /// The bucket's own host.
    pub(crate) fn host(&self) -> String {
        format!("{}.cos.{}.myqcloud.com", self.bucket, self.region)
    }
}

impl World {
    pub(crate) async fn start(change: impl FnOnce(&mut UploadSettings)) -> Self {
        tencent_vod::install_crypto_provider();
        let mut settings =
            EmulatorSettings { hold_ms: 0, requests_per_second: 0, ..EmulatorSettings::default() };
        change(&mut settings.uploads);
        let credentials = vec![Credential::new(ID, KEY)];
        let options = Options { credentials, settings, ..Options::default() };
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { emulator: Emulator::start(options).await.unwrap(), http }
    }

    /// A call of the API: the members of `Response`.
    pub(crate) async fn api(&self, action: &str, parameters: Value) -> Value {
        let (host, body) = (self.emulator.addr().to_string(), parameters.to_string());
        let headers = [("content-type", "application/json"), ("host", host.as_str())];
        let timestamp = now();
        let signed = tc3::Request {
            method: "POST",
            query: "",
            headers: &headers,
            body: body.as_bytes(),
            timestamp,
            service: "vod",
        };
        let authorization = tc3::authorization(ID, KEY, &signed);
        let request = self.http.post(self.emulator.endpoint());
        let request = request
            .header("content-type", "application/json")
            .header("x-tc-action", action)
            .header("x-tc-version", "2018-07-17")
            .header("x-tc-timestamp", timestamp)
            .header("authorization", authorization)
            .body(body);
        response(request.send().await.unwrap()).await
    }

    /// A call of the API under signature v1.
    pub(crate) async fn v1(&self, action: &str, own: &[(&str, &str)]) -> Value {
        let (host, timestamp) = (self.emulator.addr().to_string(), now().to_string());
        let mut parameters = vec![
            ("Action", action),
            ("Version", "2018-07-17"),
            ("Timestamp", &timestamp),
            ("Nonce", "7"),
            ("SecretId", ID),
            ("SignatureMethod", "HmacSHA256"),
            ("Language", "en-US"),
            ("RequestClient", "SDK_NODEJS"),
        ];
        parameters.extend(own);
        let signed = v1::Request { method: "POST", host: &host, path: "/", parameters: &parameters };
        let signature = v1::signature(KEY, v1::Method::HmacSha256, &signed);
        parameters.push(("Signature", &signature));
        let form: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let request = self.http.post(self.emulator.endpoint());
        let request =
            request.header("content-type", "application/x-www-form-urlencoded").body(form.join("&"));
        response(request.send().await.unwrap()).await
    }

    /// A call of the web SDK: the whole answer.
    pub(crate) async fn ugc(&self, action: &str, parameters: Value) -> Value {
        let url = format!("{}/v3/index.php?Action={action}", self.emulator.endpoint());
        let sent =
            self.http.post(url).header("content-type", "application/json").body(parameters.to_string());
        serde_json::from_str(&sent.send().await.unwrap().text().await.unwrap()).unwrap()
    }

    /// The code of an error, or `ok`.
    pub(crate) async fn code(&self, action: &str, parameters: Value) -> String {
        code_of(&self.api(action, parameters).await)
    }

    pub(crate) async fn apply(&self, parameters: Value) -> Applied {
        let answer = self.api("ApplyUpload", parameters).await;
        assert_eq!(code_of(&answer), "ok", "{answer}");
        Applied::of(&answer)
    }

    pub(crate) async fn apply_mp4(&self) -> Applied {
        self.apply(json!({ "MediaType": "mp4", "MediaName": "film" })).await
    }

    pub(crate) async fn commit(&self, applied: &Applied) -> Value {
        self.api("CommitUpload", json!({ "VodSessionKey": applied.session })).await
    }

    /// A request to the object storage, signed with the key that was applied for.
    pub(crate) fn cos(&self, applied: &Applied, method: Method, key: &str) -> CosCall<'_> {
        CosCall {
            world: self,
            method,
            path: format!("/{key}"),
            query: Vec::new(),
            host: applied.host(),
            signed_host: None,
            id: applied.id.clone(),
            key: applied.key.clone(),
            token: Some(applied.token.clone()),
            time: KeyTime { start: now() - 60, end: now() + 900 },
            headers: Vec::new(),
            body: Vec::new().into(),
            length: Some(0),
        }
    }

    /// Begins an upload in parts.
    pub(crate) async fn initiate(&self, applied: &Applied) -> String {
        let call = self.cos(applied, Method::POST, &applied.media).query("uploads", "");
        let answer = call.send().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.element("UploadId")
    }

    pub(crate) fn part(
        &self,
        applied: &Applied,
        id: &str,
        number: u32,
        body: impl Into<Vec<u8>>,
    ) -> CosCall<'_> {
        self.cos(applied, Method::PUT, &applied.media)
            .query("partNumber", &number.to_string())
            .query("uploadId", id)
            .body(body)
    }

    pub(crate) fn complete(&self, applied: &Applied, id: &str, parts: &[(u32, String)]) -> CosCall<'_> {
        let parts: Vec<String> = parts
            .iter()
            .map(|(number, etag)| {
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
            })
            .collect();
        let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.concat());
        self.cos(applied, Method::POST, &applied.media).query("uploadId", id).body(body)
    }

    /// A medium, uploaded as a whole and committed.
    pub(crate) async fn uploaded(&self, content: &[u8], parameters: Value) -> (Applied, Value) {
        let applied = self.apply(parameters).await;
        let put = self.cos(&applied, Method::PUT, &applied.media).body(content).send().await;
        assert_eq!(put.status, 200, "{}", put.text);
        let committed = self.commit(&applied).await;
        (applied, committed)
    }

    /// What comes back for these bytes, once nothing more is sent.
    pub(crate) async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.emulator.addr()).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // It may hang up on what is cut off.
        let _heard = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Everything that waits in the queue, confirmed.
    pub(crate) async fn events(&self, sub_app_id: u64) -> Vec<Value> {
        let app = json!({ "SubAppId": sub_app_id });
        let mut events = Vec::new();
        loop {
            let pulled = self.api("PullEvents", app.clone()).await;
            let Some(set) = pulled["EventSet"].as_array() else { return events };
            let handles: Vec<&Value> = set.iter().map(|event| &event["EventHandle"]).collect();
            self.api("ConfirmEvents", json!({ "SubAppId": sub_app_id, "EventHandles": handles })).await;
            events.extend(set.iter().cloned());
        }
    }
}

pub(crate) fn code_of(response: &Value) -> String {
    response.pointer("/Error/Code").and_then(Value::as_str).unwrap_or("ok").to_owned()
}

async fn response(answer: reqwest::Response) -> Value {
    let text = answer.text().await.unwrap();
    serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error} in {text}"))["Response"]
        .clone()
}

/// A request to the object storage; fields are what tests change.
pub(crate) struct CosCall<'a> {
    world: &'a World,
    method: Method,
    /// Decoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) host: String,
    /// The host as it is signed, where it is another one.
    pub(crate) signed_host: Option<String>,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) token: Option<String>,
    pub(crate) time: KeyTime,
    pub(crate) headers: Vec<(&'static str, String)>,
    body: Body,
    /// What `Content-Length` says, if it is sent.
    pub(crate) length: Option<usize>,
}

/// What the object storage answered.
#[derive(Debug)]
pub(crate) struct CosAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl CosAnswer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The text of the first element of this name, as it stands.
    pub(crate) fn element(&self, name: &str) -> String {
        self.elements(name).into_iter().next().unwrap_or_default()
    }

    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let mut found = Vec::new();
        let mut left = self.text.as_str();
        while let Some((_, after)) = left.split_once(&open) {
            let (text, rest) = after.split_once(&close).unwrap();
            found.push(text.to_owned());
            left = rest;
        }
        found
    }

    /// The code of an error, or `ok`.
    pub(crate) fn code(&self) -> String {
        match self.text.contains("<Error>") {
            true => self.element("Code"),
            false if self.status < 400 => "ok".to_owned(),
            false => self.status.to_string(),
        }
    }
}

impl CosCall<'_> {
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        self.length = Some(body.len());
        self.body = body.into();
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The target, and all headers.
    fn signed(&self) -> (String, Vec<(&'static str, String)>) {
        let mut headers = self.headers.clone();
        headers.push(("host", self.host.clone()));
        headers.extend(self.length.map(|length| ("content-length", length.to_string())));
        headers.extend(self.token.clone().map(|token| (cos::SECURITY_TOKEN, token)));
        let signed_host = self.signed_host.as_ref().unwrap_or(&self.host);
        let signed: Vec<(&str, &str)> = headers
            .iter()
            .filter(|(name, _)| cos::is_signed_header(name))
            .map(|(name, value)| (*name, if *name == "host" { signed_host } else { value.as_str() }))
            .collect();
        let query: Vec<(&str, &str)> = self.query.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let request =
            cos::Request { method: self.method.as_str(), path: &self.path, query: &query, headers: &signed };
        let authorization = cos::authorization(&self.id, &self.key, &request, self.time);
        headers.push(("authorization", authorization));
        let path: Vec<_> = self.path.split('/').map(encode).collect();
        let query: Vec<String> = query.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect();
        (format!("{}?{}", path.join("/"), query.join("&")), headers)
    }

    /// Sends it, and waits for the head of the answer.
    pub(crate) async fn begin(self) -> reqwest::Result<reqwest::Response> {
        let (target, headers) = self.signed();
        let mut sent =
            self.world.http.request(self.method, format!("{}{target}", self.world.emulator.endpoint()));
        for (name, value) in headers {
            sent = sent.header(name, value);
        }
        sent.body(self.body).send().await
    }

    /// Sends its head and then these bytes, whatever the head says of them; the answer as it came.
    pub(crate) async fn raw(self, body: &[u8]) -> String {
        let (target, headers) = self.signed();
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head =
            format!("{} {target} HTTP/1.1\r\n{}Connection: close\r\n\r\n", self.method, lines.concat());
        self.world.exchange(&[head.as_bytes(), body].concat()).await
    }

    pub(crate) async fn try_send(self) -> reqwest::Result<CosAnswer> {
        let answer = self.begin().await?;
        let (status, headers) = (StatusCode::as_u16(&answer.status()), answer.headers().clone());
        Ok(CosAnswer { status, headers, text: answer.text().await? })
    }

    pub(crate) async fn send(self) -> CosAnswer {
        self.try_send().await.unwrap()
    }

    pub(crate) async fn code(self) -> String {
        self.send().await.code()
    }
}
