//! What a signature costs, to make and to check, by the size of the body.
//!
//! `cargo bench --bench signing`

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use sha2::Sha256;
use tidings::signing::{
    PrivateKey, Secret, StandardSigner, TimestampedSigner, TimestampedVerifier, Verifier,
};
use tidings_bench::Row;

const SIZES: [usize; 3] = [1, 16, 256];

/// What each function is compared with.
const BASELINES: [(&str, &str); 6] = [
    ("sign v1", "HMAC-SHA256"),
    ("verify v1", "HMAC-SHA256"),
    ("sign v1a", "Ed25519"),
    ("verify v1a", "Ed25519 verification"),
    ("sign timestamped", "HMAC-SHA256"),
    ("verify timestamped", "HMAC-SHA256"),
];

const ID: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";

fn signing(criterion: &mut Criterion) {
    let now = Timestamp::UNIX_EPOCH;
    let secret = Secret::generate();
    let key = PrivateKey::generate();
    let v1 = StandardSigner::new([secret.clone()]).expect("there is a secret");
    let v1a = StandardSigner::from_private_key(key.clone());
    let timestamped = TimestampedSigner::new("key").expect("the key is not empty");
    let bare = SigningKey::from_bytes(&[7; 32]);
    for kib in SIZES {
        let body = vec![b'x'; kib * 1024];
        let mut group = criterion.benchmark_group(format!("{kib} KiB"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.warm_up_time(tidings_bench::length() / 20);
        group.measurement_time(tidings_bench::length() / 4);

        group.bench_function("HMAC-SHA256", |bencher| {
            bencher.iter(|| {
                let mac = Hmac::<Sha256>::new_from_slice(&[7; 24]).expect("any key fits");
                mac.chain_update(black_box(&body)).finalize()
            });
        });
        group.bench_function("Ed25519", |bencher| {
            bencher.iter(|| bare.sign(black_box(&body)));
        });
        let signature = bare.sign(&body);
        group.bench_function("Ed25519 verification", |bencher| {
            bencher.iter(|| bare.verify(black_box(&body), &signature).is_ok());
        });

        let mut headers = HeaderMap::new();
        group.bench_function("sign v1", |bencher| {
            bencher.iter(|| v1.sign(ID, now, black_box(&body), &mut headers));
        });
        let verifier = Verifier::new(secret.clone());
        group.bench_function("verify v1", |bencher| {
            bencher.iter(|| verifier.verify(black_box(&headers), &body, now).is_ok());
        });

        let mut headers = HeaderMap::new();
        group.bench_function("sign v1a", |bencher| {
            bencher.iter(|| v1a.sign(ID, now, black_box(&body), &mut headers));
        });
        let verifier = Verifier::from_public_key(key.public_key());
        group.bench_function("verify v1a", |bencher| {
            bencher.iter(|| verifier.verify(black_box(&headers), &body, now).is_ok());
        });

        let mut headers = HeaderMap::new();
        group.bench_function("sign timestamped", |bencher| {
            bencher.iter(|| timestamped.sign(now, black_box(&body), &mut headers));
        });
        let verifier = TimestampedVerifier::new("key").expect("the key is not empty");
        group.bench_function("verify timestamped", |bencher| {
            bencher.iter(|| verifier.verify(black_box(&headers), &body, now).is_ok());
        });
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    signing(&mut criterion);
    criterion.final_summary();
    for kib in SIZES {
        let rate = |function| tidings_bench::criterion::rate(&format!("{kib} KiB"), function, 1);
        for (function, beside) in BASELINES {
            if let (Some(ours), Some(alone)) = (rate(function), rate(beside)) {
                Row::rate(&format!("{function}, {kib} KiB"), "signatures/s", ours)
                    .beside(beside, alone)
                    .emit();
            }
        }
    }
}
