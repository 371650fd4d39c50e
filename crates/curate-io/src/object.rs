//! Object stores and web servers: what an address stands for, and its bytes as a blocking reader.
//!
//! Requests run on a small runtime of their own; a body comes through a bounded channel, so that a slow reader slows
//! the transfer. The store's client repeats failed requests; a body that breaks off is asked for again from where it
//! stopped. Without the feature `object-store` every address is an error that says so.

/// True for `scheme://…`.
pub(crate) fn is_url(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| {
        scheme.len() > 1
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
            && scheme.as_bytes()[0].is_ascii_alphabetic()
    })
}

/// A name as far as it names a file: an address of the web without its query.
pub(crate) fn without_query(name: &str) -> &str {
    let is_web = ["http://", "https://"].iter().any(|scheme| name.starts_with(scheme));
    if is_web { name.split(['?', '#']).next().unwrap_or(name) } else { name }
}

/// What an address stands for.
pub(crate) struct Found {
    pub(crate) objects: Vec<Object>,
    /// The prefix that was listed, if the address is no single object.
    pub(crate) root: Option<String>,
}

#[cfg(not(feature = "object-store"))]
pub(crate) use absent::{Client, Object};
#[cfg(feature = "object-store")]
pub(crate) use present::{Client, Object};

#[cfg(not(feature = "object-store"))]
mod absent {
    use std::io::Read;
    use std::time::SystemTime;

    use super::Found;
    use crate::error::{IoError, Result};

    #[derive(Default)]
    pub(crate) struct Client {}

    impl Client {
        pub(crate) fn find(&mut self, url: &str) -> Result<Found> {
            Err(IoError::Url {
                action: "read",
                url: url.to_owned(),
                message: "this program was built without object stores".to_owned(),
                hint: "build it with `--features object-store`, or fetch the files first".to_owned(),
            })
        }
    }

    /// There is none.
    #[derive(Debug, Clone)]
    pub(crate) enum Object {}

    impl Object {
        pub(crate) fn url(&self) -> &str {
            match *self {}
        }

        pub(crate) fn bytes(&self) -> Option<u64> {
            match *self {}
        }

        pub(crate) fn modified(&self) -> Option<SystemTime> {
            match *self {}
        }

        pub(crate) fn open(&self) -> Box<dyn Read + Send> {
            match *self {}
        }
    }
}

#[cfg(feature = "object-store")]
mod present {
    use std::env;
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use futures_util::StreamExt;
    use object_store::aws::AmazonS3Builder;
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::gcp::GoogleCloudStorageBuilder;
    use object_store::http::HttpBuilder;
    use object_store::path::Path;
    use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
    use tokio::runtime::Runtime;
    use tokio::sync::mpsc;

    use super::Found;
    use crate::error::{IoError, Result};
    use crate::input::{fixed_part, pattern_options};

    /// Parts of a body that may be ahead of the reader. The client makes them as they arrive: 16 KiB or so.
    const PARTS_AHEAD: usize = 64;
    /// Times that a body is asked for again without a single byte of progress.
    const RESUMPTIONS: u32 = 5;
    /// The client's own limit is for a whole body: a slow reader of a large one would not come to its end.
    const BODY_TIMEOUT: &str = "365d";

    /// The kinds of places.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        S3,
        Gcs,
        Azure,
        Http,
    }

    impl Kind {
        fn of_scheme(scheme: &str) -> Option<Self> {
            match scheme {
                "s3" | "s3a" => Some(Self::S3),
                "gs" => Some(Self::Gcs),
                "az" | "azure" | "abfs" | "abfss" | "adl" => Some(Self::Azure),
                "http" | "https" => Some(Self::Http),
                _ => None,
            }
        }

        /// How the variables begin that say where it is and who asks.
        fn variables(self) -> &'static str {
            match self {
                Self::S3 => "AWS_",
                Self::Gcs => "GOOGLE_",
                Self::Azure => "AZURE_",
                Self::Http => "",
            }
        }

        fn hint(self) -> &'static str {
            match self {
                Self::S3 => {
                    "check the name, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and for other servers \
                     than Amazon's AWS_ENDPOINT (with AWS_ALLOW_HTTP=true for http://); AWS_SKIP_SIGNATURE=true reads \
                     public buckets"
                }
                Self::Gcs => {
                    "check the name and GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT; \
                     GOOGLE_SKIP_SIGNATURE=true reads public buckets"
                }
                Self::Azure => {
                    "check the name, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or \
                     AZURE_STORAGE_SAS_KEY); AZURE_SKIP_SIGNATURE=true reads public containers"
                }
                Self::Http => "check the address; the server must answer with the length of the file",
            }
        }
    }

    /// An address, taken apart.
    #[derive(Debug, PartialEq)]
    struct Address<'u> {
        kind: Kind,
        /// `scheme://bucket` or `scheme://host?query`.
        store: String,
        /// What stands before the key in the names of objects: `scheme://bucket/`.
        base: String,
        /// Within the bucket, or the path on a host.
        key: &'u str,
    }

    impl<'u> Address<'u> {
        fn parse(url: &'u str) -> std::result::Result<Self, &'static str> {
            let (scheme, rest) = url.split_once("://").ok_or("expected an address with ://")?;
            let kind = Kind::of_scheme(&scheme.to_ascii_lowercase())
                .ok_or("expected s3://, gs://, az://, https:// or http://")?;
            let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
            if host.is_empty() {
                return Err("expected a bucket or host after ://");
            }
            let base = format!("{scheme}://{host}/");
            let store = format!("{scheme}://{host}");
            Ok(match kind {
                Kind::Http => {
                    let key = key.split('#').next().unwrap_or_default();
                    let (path, query) = key.split_once('?').unwrap_or((key, ""));
                    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
                    Self { kind, store: format!("{store}/{query}"), base, key: path }
                }
                _ => Self { kind, store, base, key },
            })
        }

        fn path(&self, key: &str) -> std::result::Result<Path, object_store::path::Error> {
            if self.kind == Kind::Http { Path::from_url_path(key) } else { Path::parse(key) }
        }

        /// True if it stands for what its key matches or begins.
        fn is_prefix(&self) -> bool {
            let is_pattern = self.kind != Kind::Http && self.key.contains(['*', '?', '[']);
            is_pattern || self.key.is_empty() || self.key.ends_with('/')
        }

        fn connect(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
            /// Sets what is set by default, then what the environment says.
            macro_rules! build {
                ($builder:ty) => {{
                    let mut builder = <$builder>::new().with_url(self.store.clone());
                    for (name, value) in self.settings() {
                        if let Ok(key) = name.parse() {
                            builder = builder.with_config(key, value);
                        }
                    }
                    Ok(Arc::new(builder.build()?))
                }};
            }
            match self.kind {
                Kind::S3 => build!(AmazonS3Builder),
                Kind::Gcs => build!(GoogleCloudStorageBuilder),
                Kind::Azure => build!(MicrosoftAzureBuilder),
                Kind::Http => build!(HttpBuilder),
            }
        }

        /// Names and values, later ones first in rank.
        fn settings(&self) -> Vec<(String, String)> {
            let mut settings = vec![("timeout".to_owned(), BODY_TIMEOUT.to_owned())];
            if self.kind == Kind::Http {
                settings.push(("allow_http".to_owned(), "true".to_owned()));
                return settings;
            }
            let prefix = self.kind.variables();
            let mut variables: Vec<(String, String)> = env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            variables.sort();
            settings.append(&mut variables);
            if let (Kind::Gcs, Ok(path)) = (self.kind, env::var("SERVICE_ACCOUNT")) {
                settings.push(("google_service_account".to_owned(), path));
            }
            settings
        }
    }

    /// Finds and reads objects.
    #[derive(Default)]
    pub(crate) struct Client {
        /// Made for the first address.
        runtime: Option<Arc<Runtime>>,
    }

    impl Client {
        /// The objects that `url` stands for: itself, or all that it is a prefix or pattern of, sorted.
        pub(crate) fn find(&mut self, url: &str) -> Result<Found> {
            let failed = |action, hint: &str, message: String| IoError::Url {
                action,
                url: url.to_owned(),
                message,
                hint: hint.to_owned(),
            };
            let address = Address::parse(url).map_err(|expected| {
                failed(
                    "read",
                    "s3://bucket/key names one object, s3://bucket/dir/ all below dir",
                    expected.into(),
                )
            })?;
            let hint = address.kind.hint();
            let runtime = self
                .runtime()
                .map_err(|e| failed("read", "too many threads may be running", e.to_string()))?;
            let _guard = runtime.enter();
            let store = address.connect().map_err(|e| failed("read", hint, describe(&e)))?;
            let reader = Reader { runtime: Arc::clone(&runtime), store };
            if !address.is_prefix() {
                let path = address.path(address.key).map_err(|e| failed("read", hint, e.to_string()))?;
                let meta = match runtime.block_on(reader.store.head(&path)) {
                    Ok(meta) => Some(meta),
                    Err(error @ object_store::Error::NotFound { .. }) => {
                        return Err(failed("read", hint, describe(&error)));
                    }
                    // Many servers answer to nothing but GET, which then has the last word.
                    Err(_) if address.kind == Kind::Http => None,
                    Err(error) => return Err(failed("read", hint, describe(&error))),
                };
                return Ok(Found { objects: vec![reader.object(url.to_owned(), path, meta)], root: None });
            }
            if address.kind == Kind::Http {
                let message = "a web server does not say which files it has".to_owned();
                return Err(failed("list", "name every file", message));
            }
            let metas = reader.list(&address).map_err(|e| failed("list", hint, e))?;
            let objects = metas.into_iter().map(|meta| {
                let url = format!("{}{}", address.base, meta.location);
                reader.object(url, meta.location.clone(), Some(meta))
            });
            let root = format!("{}{}", address.base, prefix_of(address.key));
            Ok(Found { objects: objects.collect(), root: Some(root) })
        }

        fn runtime(&mut self) -> io::Result<Arc<Runtime>> {
            if self.runtime.is_none() {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name("objects")
                    .enable_all()
                    .build()?;
                self.runtime = Some(Arc::new(runtime));
            }
            Ok(Arc::clone(self.runtime.as_ref().expect("made just above")))
        }
    }

    /// The part of a key that every object found has.
    fn prefix_of(key: &str) -> &str {
        if key.ends_with('/') && !key.contains(['*', '?', '[']) { key } else { fixed_part(key) }
    }

    /// One store, and the threads that talk to it.
    #[derive(Debug, Clone)]
    struct Reader {
        runtime: Arc<Runtime>,
        store: Arc<dyn ObjectStore>,
    }

    impl Reader {
        fn object(&self, url: String, path: Path, meta: Option<ObjectMeta>) -> Object {
            let bytes = meta.as_ref().map(|m| m.size);
            let modified = meta.map(|m| SystemTime::from(m.last_modified));
            Object { reader: self.clone(), url: url.into(), path, bytes, modified }
        }

        /// All objects under a prefix that match, by name; what is hidden is left out.
        fn list(&self, address: &Address<'_>) -> std::result::Result<Vec<ObjectMeta>, String> {
            let prefix = prefix_of(address.key);
            let path = address.path(prefix).map_err(|e| e.to_string())?;
            let is_pattern = prefix.len() < address.key.len();
            let pattern = glob::Pattern::new(address.key).map_err(|e| e.to_string())?;
            let listed = self.runtime.block_on(async {
                let mut stream = self.store.list(Some(&path));
                let mut found = Vec::new();
                while let Some(meta) = stream.next().await {
                    found.push(meta?);
                }
                Ok(found)
            });
            let mut found: Vec<ObjectMeta> = listed.map_err(|e: object_store::Error| describe(&e))?;
            found.retain(|meta| {
                let key = meta.location.as_ref();
                let below = key.strip_prefix(prefix).unwrap_or(key);
                let hidden = below.split('/').any(|part| part.starts_with('.'));
                !hidden && (!is_pattern || pattern.matches_with(key, pattern_options()))
            });
            found.sort_by(|a, b| a.location.cmp(&b.location));
            Ok(found)
        }
    }

    /// One object, found.
    #[derive(Debug, Clone)]
    pub(crate) struct Object {
        reader: Reader,
        url: Arc<str>,
        path: Path,
        bytes: Option<u64>,
        modified: Option<SystemTime>,
    }

    impl Object {
        pub(crate) fn url(&self) -> &str {
            &self.url
        }

        pub(crate) fn bytes(&self) -> Option<u64> {
            self.bytes
        }

        pub(crate) fn modified(&self) -> Option<SystemTime> {
            self.modified
        }

        /// Its bytes; that it cannot be read is told by the first read.
        pub(crate) fn open(&self) -> Box<dyn Read + Send> {
            let (send, parts) = mpsc::channel(PARTS_AHEAD);
            let store = Arc::clone(&self.reader.store);
            self.reader.runtime.spawn(transfer(store, self.path.clone(), send));
            let runtime = Arc::clone(&self.reader.runtime);
            Box::new(Body { parts, part: io::Cursor::new(Part::new()), at_end: false, _runtime: runtime })
        }
    }

    type Part = bytes::Bytes;

    /// The body of an object on its way.
    struct Body {
        parts: mpsc::Receiver<io::Result<Part>>,
        part: io::Cursor<Part>,
        at_end: bool,
        /// Lives as long as anything is read through it.
        _runtime: Arc<Runtime>,
    }

    impl Read for Body {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            loop {
                let n = self.part.read(buf)?;
                if n > 0 || self.at_end || buf.is_empty() {
                    return Ok(n);
                }
                match self.parts.blocking_recv() {
                    Some(Ok(part)) => {
                        self.at_end = part.is_empty();
                        self.part = io::Cursor::new(part);
                    }
                    Some(Err(error)) => {
                        self.at_end = true;
                        return Err(error);
                    }
                    None => {
                        self.at_end = true;
                        return Err(io::Error::other("the transfer has stopped"));
                    }
                }
            }
        }
    }

    /// Sends the whole body, then an empty part; or an error.
    async fn transfer(store: Arc<dyn ObjectStore>, path: Path, send: mpsc::Sender<io::Result<Part>>) {
        let mut position = 0;
        let mut tag = None;
        let mut failures = 0;
        loop {
            let options = GetOptions {
                range: (position > 0).then_some(GetRange::Offset(position)),
                if_match: tag.clone(),
                ..GetOptions::default()
            };
            let before = position;
            let error = match store.get_opts(&path, options).await {
                Ok(result) => {
                    let size = result.meta.size;
                    // A weak tag cannot be asked for.
                    tag = result.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
                    let mut stream = result.into_stream();
                    loop {
                        match stream.next().await {
                            Some(Ok(part)) if part.is_empty() => {}
                            Some(Ok(part)) => {
                                position += part.len() as u64;
                                if send.send(Ok(part)).await.is_err() {
                                    return;
                                }
                            }
                            Some(Err(error)) => break describe(&error),
                            None if position >= size => {
                                // Nobody need be there to hear it.
                                let _ = send.send(Ok(Part::new())).await;
                                return;
                            }
                            None => break format!("the body ends at byte {position} of {size}"),
                        }
                    }
                }
                Err(error) => {
                    let error = describe(&error);
                    if position == 0 {
                        // The client has tried again already.
                        let _ = send.send(Err(io::Error::other(error))).await;
                        return;
                    }
                    error
                }
            };
            failures = if position > before { 0 } else { failures + 1 };
            if failures >= RESUMPTIONS {
                let message = format!("{error} (byte {position}, asked for again {failures} times)");
                let _ = send.send(Err(io::Error::other(message))).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100 << failures)).await;
        }
    }

    /// What went wrong, in one line.
    fn describe(error: &object_store::Error) -> String {
        match error {
            object_store::Error::NotFound { .. } => "there is no such object".to_owned(),
            error => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn addresses_are_taken_apart() {
            let check = |url, kind, store: &str, base: &str, key| {
                let expected = Address { kind, store: store.to_owned(), base: base.to_owned(), key };
                assert_eq!(Address::parse(url), Ok(expected), "{url}");
            };
            check("s3://b/a/c.jsonl", Kind::S3, "s3://b", "s3://b/", "a/c.jsonl");
            check("gs://b", Kind::Gcs, "gs://b", "gs://b/", "");
            check("az://c/a?.txt", Kind::Azure, "az://c", "az://c/", "a?.txt");
            check("https://h:1/a/b?x=1&y#z", Kind::Http, "https://h:1/?x=1&y", "https://h:1/", "a/b");
            check("http://h", Kind::Http, "http://h/", "http://h/", "");
            assert!(Address::parse("ftp://h/a").is_err());
            assert!(Address::parse("s3:///a").is_err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for url in ["s3://b/k", "https://h/a.gz", "gs://b/", "ftp://h"] {
            assert!(is_url(url), "{url}");
        }
        for path in ["a/b", "c://x", "://x", "a b://c", "-", "data/s3:/x", "1://x"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn a_query_is_no_part_of_the_name() {
        assert_eq!(without_query("https://h/a.txt?x=.gz"), "https://h/a.txt");
        assert_eq!(without_query("dir/what?.txt"), "dir/what?.txt");
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn without_object_stores_an_address_is_an_error() {
        let error = crate::resolve(&["s3://b/k".into()], None).unwrap_err();
        assert_eq!(error.to_string(), "cannot read s3://b/k: this program was built without object stores");
        assert!(error.hint().unwrap().contains("--features object-store"));
    }
}
