//! What a signature costs, to make and to check, by the size of the body.
//!
//! `cargo bench --bench signing`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use jiff::Timestamp;
use tidings::signing::{
    PrivateKey, Secret, StandardSigner, TimestampedSigner, TimestampedVerifier, Verifier,
};

const ID: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";

fn signing(criterion: &mut Criterion) {
    let now = Timestamp::UNIX_EPOCH;
    let secret = Secret::generate();
    let key = PrivateKey::generate();
    let v1 = StandardSigner::new([secret.clone()]).expect("there is a secret");
    let v1a = StandardSigner::from_private_key(key.clone());
    let timestamped = TimestampedSigner::new("key").expect("the key is not empty");
    for kib in [1, 16, 256] {
        let body = vec![b'x'; kib * 1024];
        let mut group = criterion.benchmark_group(format!("{kib} KiB"));
        group.throughput(Throughput::Bytes(body.len() as u64));

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

criterion_group!(benches, signing);
criterion_main!(benches);
